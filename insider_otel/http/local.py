"""What the library says itself in Insider's place: marked, so that nobody takes it for Insider's own word."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from insider_otel.api.verdict import Category, Fault, Retry, Verdict

if TYPE_CHECKING:
    import httpx

HEADER = "x-insider-otel"
"""Header of every response that was made here; says what kind it is."""

DEADLINE_PASSED = Verdict(
    category=Category.TIMEOUT,
    rule="local.deadline",
    fault=Fault.CALLER,
    retry=Retry.BACKOFF,
    advice="The deadline had passed before the call was sent. Call Insider earlier, or allow the request more time.",
)
"""The deadline had passed before the first attempt; nothing was sent."""


HELD_BACK = Verdict(
    category=Category.DUPLICATE,
    rule="local.duplicate",
    fault=Fault.NONE,
    retry=Retry.NEVER,
    advice="Insider has taken the same content a short while ago; it was not sent a second time.",
)
"""The same content was sent, and taken, inside the duplicate window; nothing was sent."""


DEFERRED = Verdict(
    category=Category.ACCEPTED,
    rule="local.deferred",
    fault=Fault.NONE,
    retry=Retry.NEVER,
    advice="The call is kept in the outbox and will be sent later; x-insider-otel names its job.",
)
"""The call goes on later; what Insider will say is not known yet."""


NOT_DEFERRED = Verdict(
    category=Category.CONFIGURATION,
    rule="local.not_deferred",
    fault=Fault.CALLER,
    retry=Retry.NEVER,
    advice="The call was to be deferred and was not kept; the exception says why. Nothing was sent.",
)
"""The app asked for the outbox, and the call cannot be kept; nothing was sent."""


NOT_SENT = Verdict(Category.CONFIGURATION, "local.not_sent", Fault.CALLER, Retry.BACKOFF)
"""A deferred call was not sent for want of credentials, of the key to its content, or of a setting."""


def rate_limit_refused(retry_after: float) -> Verdict:
    """The pool has no room before the call's deadline; nothing was sent.

    Args:
        retry_after: Seconds until the pool has room.
    """
    return Verdict(
        category=Category.RATE_LIMIT,
        rule="local.rate_limit",
        fault=Fault.CALLER,
        retry=Retry.AFTER_WINDOW,
        retry_after=retry_after,
        advice="This rate limit has no room before the deadline of the call. Send less, or allow it more time.",
    )


def response(module: Any, request: httpx.Request, status: int, kind: str, verdict: Verdict) -> httpx.Response:
    """A real response of the client's own module, made here.

    Args:
        module: The client's httpx or httpx2.
        request: The app's request.
        status: HTTP status.
        kind: What it is, for the ``x-insider-otel`` header.
        verdict: What it means.
    """
    headers = {HEADER: kind}
    if verdict.retry_after is not None:
        headers["retry-after"] = str(max(math.ceil(verdict.retry_after), 1))
    whole = module.Response(status, headers=headers, json={"message": verdict.advice})
    # One that is given its content is read and closed by then, and ``elapsed`` is what a client notes on closing it.
    made: httpx.Response = module.Response(
        status, headers=whole.headers, stream=module.ByteStream(whole.content), request=request
    )
    return made
