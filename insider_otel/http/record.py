"""What is known of a call after it ended: ``call_of(response)``."""

from __future__ import annotations

import weakref
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from insider_otel.api.operations import Operation
from insider_otel.api.verdict import Verdict
from insider_otel.policy.steps import Outcome, Stop

if TYPE_CHECKING:
    import httpx

EXTENSION = "insider_otel"
"""Key of the record among the extensions of a response, and of the app's request."""

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
        result: A response of an httpx or httpx2 client, or the exception that such a client, or the response's
            ``raise_for_status``, raised.

    Returns:
        The record of the call.

    Raises:
        LookupError: The result did not come through insider-otel: the client is not instrumented, or the host is none
            of Insider's.
    """
    record = _attached(result)
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


class _Remembered(NamedTuple):
    """The record of the call that a request made. A request that follows a redirect inherits it, and made another."""

    record: Call
    request: weakref.ref[httpx.Request]


def remember_record(request: httpx.Request, record: Call) -> None:
    """Let ``call_of`` find the record by the request, too: all that some exceptions of a client's own tell."""
    # In a dict of its own: an httpx before 0.28 leaves the app's there, which may be that of other requests, too.
    request.extensions = {**request.extensions, EXTENSION: _Remembered(record, weakref.ref(request))}


def _attached(result: Any) -> object:
    return _behind(result) if isinstance(result, BaseException) else result.extensions.get(EXTENSION)


def _behind(error: Any) -> object:
    record = getattr(error, _EXCEPTION_ATTRIBUTE, None)
    if record is not None:
        return record
    # It is none that a transport raised. ``raise_for_status`` raises of a response, and a client that follows too many
    # redirects, or cannot decode a body, of a request. It may also be somebody else's, whose attributes raise.
    with suppress(Exception):
        response = getattr(error, "response", None)
        if response is not None:
            return response.extensions.get(EXTENSION)
        remembered = error.request.extensions.get(EXTENSION)
        if isinstance(remembered, _Remembered):
            # The request that would have been one redirect too many was never sent.
            is_its_own = remembered.request() is error.request or type(error).__name__ == "TooManyRedirects"
            return remembered.record if is_its_own else None
    return None
