"""A job: one call that is to be sent later."""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, cast

from insider_otel.api.verdict import Verdict

FORMAT = 1
"""Version of a job's JSON."""


class JobError(ValueError):
    """A job that cannot be read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """One call that is to be sent later. All moments are seconds since 1970.

    It holds no credentials; what was sent is in ``content``, and only there.

    Attributes:
        id: Names it; what the caller was told with the 202.
        operation: Name of the operation.
        product: Insider's product.
        pool: Names what shares a rate limit: the operations' pool, and behind an ``@`` the account if it has a name.
        content: What is to be sent, as ``content.Codec`` wrote it.
        account: The app's own name for the account whose credentials are to be put back; None if it has one only.
        line: A hash of what the app wants to keep in order: of two jobs with the same line the first is sent first.
        context: Trace context of the call, W3C's ``traceparent`` and ``tracestate``.
        created: When the call was deferred.
        due: When it is to be sent, at the earliest.
        expires: When it is given up.
        attempts: HTTP requests made so far.
        deliveries: Deliveries tried so far.
        ambiguous_since: When it was sent for the first time without our knowing whether Insider processed it.
        verdict: What the last answer meant: its category, rule, fault and retry, and a message that is safe to show.
        stopped: Why it was given up; None while it waits.
        stopped_at: When it was given up; None while it waits, or if an older version of insider-otel gave it up.
    """

    id: str
    operation: str
    product: str
    pool: str
    content: bytes = field(repr=False)
    account: str | None = None
    line: str | None = None
    context: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    created: float
    due: float
    expires: float
    attempts: int = 0
    deliveries: int = 0
    ambiguous_since: float | None = None
    verdict: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    stopped: str | None = None
    stopped_at: float | None = None

    def to_json(self) -> dict[str, Any]:
        """As JSON can hold it."""
        values = asdict(self)
        values["content"] = base64.b64encode(self.content).decode("ascii")
        if self.stopped_at is None:
            # A job that waits can be read by the version that did not know of it.
            del values["stopped_at"]
        return {"format": FORMAT, **values}

    @classmethod
    def from_json(cls, value: object) -> Job:
        """A job from its JSON.

        Args:
            value: What ``to_json`` returned.

        Raises:
            JobError: It is no job, or one of another version of insider-otel.
        """
        if not isinstance(value, dict):
            raise JobError("a job is a JSON object")
        values = dict(cast("dict[str, Any]", value))
        version = values.pop("format", None)
        if version != FORMAT:
            raise JobError(f"the job has format {version!r}, this version of insider-otel reads {FORMAT}: upgrade it")
        try:
            values["content"] = base64.b64decode(values["content"], validate=True)
            return cls(**values)
        except (KeyError, TypeError, ValueError) as error:
            raise JobError(f"the job cannot be read: {type(error).__name__}") from None


def verdict_to_keep(verdict: Verdict | None) -> dict[str, str]:
    """What is kept of a verdict: nothing that could tell whom the call was about.

    Args:
        verdict: The verdict; None if nothing was sent yet.
    """
    if verdict is None:
        return {}
    kept = {
        "category": verdict.category.value,
        "rule": verdict.rule,
        "fault": verdict.fault.value,
        "retry": verdict.retry.value,
        "message": verdict.message or "",
    }
    return {name: text for name, text in kept.items() if text}


def read_mapping(text: str) -> dict[str, str]:
    """A trace context, or what is kept of a verdict, from its JSON; empty if that cannot be read.

    Args:
        text: The JSON.
    """
    # It is not worth losing a job for; nor are those behind it.
    try:
        value: object = json.loads(text)
    except ValueError:
        value = None
    return cast("dict[str, str]", value) if isinstance(value, dict) else {}


def pool_name(pool: str, account: str | None) -> str:
    """What a job's rate limit is shared by: each account has limits of its own.

    Args:
        pool: The operations' pool.
        account: The app's own name for the account.
    """
    return pool if account is None else f"{pool}@{account}"


def pool_of(name: str) -> str:
    """The operations' pool of a job.

    Args:
        name: What ``pool_name`` returned.
    """
    return name.partition("@")[0]
