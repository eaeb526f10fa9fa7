"""What is known of a call after it ended: ``call_of(response)``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from insider_otel.api.operations import Operation
from insider_otel.api.verdict import Verdict
from insider_otel.policy.steps import Outcome, Stop

if TYPE_CHECKING:
    import httpx

EXTENSION = "insider_otel"
"""Key of the record among a response's extensions."""

_EXCEPTION_ATTRIBUTE = "_insider_otel_call"


@dataclass(frozen=True, slots=True)
class Call:
    """One call, as it ended.

    Attributes:
        operation: The operation called.
        verdict: What Insider's last answer, or its lack, means.
        outcome: How the call ended.
        attempts: HTTP requests made.
        waited: Seconds spent waiting between them.
        stopped: Why it was not tried again, if it failed and something forbade another attempt.
    """

    operation: Operation
    verdict: Verdict
    outcome: Outcome
    attempts: int
    waited: float
    stopped: Stop | None = None


def call_of(result: httpx.Response | BaseException) -> Call:
    """The record of the call that a response, or an httpx exception, came from.

    Args:
        result: A response of an httpx or httpx2 client, or the exception that such a client raised.

    Returns:
        The record of the call.

    Raises:
        LookupError: The result did not come through insider-otel: the client is not instrumented, or the host is none
            of Insider's.
    """
    record = (
        getattr(result, _EXCEPTION_ATTRIBUTE, None)
        if isinstance(result, BaseException)
        else result.extensions.get(EXTENSION)
    )
    if not isinstance(record, Call):
        raise LookupError(
            "this result came from no Insider call; use InsiderTransport or InsiderInstrumentor, and name the host in "
            "Settings.hosts if it is a fake or a proxy"
        )
    return record


def attach_record(result: httpx.Response | BaseException, record: Call) -> None:
    """Let ``call_of(result)`` find the record of the call that it came from."""
    if isinstance(result, BaseException):
        setattr(result, _EXCEPTION_ATTRIBUTE, record)
    else:
        result.extensions[EXTENSION] = record
