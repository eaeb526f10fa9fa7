"""What may be sent later, when, and until when: the decisions about deferred calls."""

from __future__ import annotations

from dataclasses import dataclass, replace

from insider_otel.api.operations import Limit, Operation, Resend
from insider_otel.policy.call import TRANSIT, CallPlan
from insider_otel.policy.steps import Stop

LEASE = 30.0
"""Seconds for which a job belongs to the worker that took it; a worker that lives renews it."""

DELIVERY_DEADLINE = 60.0
"""Seconds that a delivery may take, with its quick retries."""

LONGEST_WAIT = 2.0
"""Seconds that a delivery waits by itself; for longer it goes back into the outbox, and others have the worker."""

SHORTEST_WAIT = 1.0
"""Seconds that a job waits at least when it goes back into the outbox."""

SHORTEST_RETRY_WINDOW = 10.0
"""Seconds. Whatever the settings say, an outbox does not hammer."""

LONGEST_RETRY_WINDOW = 3600.0
"""Seconds. The window over which the next delivery is spread doubles each time, up to this."""

SHARE = 0.9
"""What deliveries use of a limit: the rest is left to calls that somebody waits for."""


@dataclass(frozen=True, slots=True)
class Ambiguity:
    """What may become of a job that Insider may have processed already.

    Attributes:
        stopped: Why it must not be sent again; None if it may be.
        until: The moment by which it has to be sent; None for no bound.
    """

    stopped: Stop | None = None
    until: float | None = None


def ambiguity(operation: Operation, since: float | None, now: float, *, duplicate_window: float) -> Ambiguity:
    """Whether a call may be sent again that Insider may have processed without our knowing.

    Args:
        operation: The operation.
        since: The moment it was first sent so; None if it was not.
        now: The present moment.
        duplicate_window: Seconds in which Insider ignores a repeat.
    """
    if since is None or operation.resend is Resend.IDEMPOTENT:
        return Ambiguity()
    if operation.resend is not Resend.WINDOW:
        return Ambiguity(Stop.UNSAFE)
    # What is sent just before its end arrives after it.
    until = since + duplicate_window - TRANSIT
    # If the clock was set back since, nobody knows how long ago it was.
    return Ambiguity(until=until) if since <= now < until else Ambiguity(Stop.DUPLICATE_WINDOW)


def retry_window(base: float, deliveries: int) -> float:
    """Seconds over which the next delivery of a job is spread.

    Args:
        base: The window of a first retry.
        deliveries: Deliveries tried so far.
    """
    base = max(base, SHORTEST_RETRY_WINDOW)
    return max(base, min(base * 2.0 ** min(deliveries, 16), LONGEST_RETRY_WINDOW))


def pace(limit: Limit | None) -> float:
    """Seconds between the beginnings of two deliveries of a pool, so that their curve is flat and below its limit.

    Args:
        limit: The limit; None for none. Of one that ends with a day nothing is to be spread.
    """
    return 0.0 if limit is None or limit.calendar else limit.window / (limit.count * SHARE)


def plan_delivery(plan: CallPlan, *, attempts: int, deliveries: int) -> CallPlan:
    """What one delivery of a job may do: an attempt and its quick retries. For whatever takes longer it goes back.

    Args:
        plan: What a call of the same operation may do.
        attempts: HTTP requests made so far.
        deliveries: Deliveries tried so far.
    """
    return replace(
        plan,
        enforce=True,
        # Time, and not their number, ends the deliveries of a job: there is always one more, made by the next delivery.
        spread_retries=1,
        spread_inside=False,
        max_attempts=attempts + plan.quick_retries + 2,
        retry_window=retry_window(plan.retry_window, deliveries),
        longest_wait=LONGEST_WAIT,
    )
