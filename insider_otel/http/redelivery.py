"""A deferred call that is sent: where it goes on, and how far it comes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from opentelemetry.context import Context

from insider_otel.api.verdict import Category, Fault, Retry, Verdict
from insider_otel.http.effects import Effects
from insider_otel.http.local import NOT_SENT
from insider_otel.outbox.job import Job
from insider_otel.policy.deferral import DELIVERY_DEADLINE
from insider_otel.policy.steps import Progress

if TYPE_CHECKING:
    from opentelemetry.trace import Link

    from insider_otel.http.record import Call


class LeaseLost(Exception):  # noqa: N818  (no error: another worker has the job)
    """A job that is no longer this worker's to send."""


def last_verdict(job: Job) -> Verdict:
    """What the last attempt of a job brought, as far as it is kept.

    Args:
        job: The job.
    """
    kept = job.verdict
    with suppress(KeyError, ValueError):
        return Verdict(
            Category(kept["category"]),
            kept["rule"],
            Fault(kept["fault"]),
            Retry(kept["retry"]),
            kept.get("message", ""),
        )
    return NOT_SENT


class Redelivery:
    """One delivery of a job. In place of handing the call over it remembers how far the call has come.

    Args:
        job: The job.
        wall_clock: Returns seconds since 1970.
        until: The moment by which it has to be sent, in seconds since 1970; None for no bound.
        mending_time: Seconds until it is sent again if somebody has to mend something first.
        links: Where the delivery comes from.
        begin: Called just before the job is sent for the first time; returns whether it still may be.
    """

    __slots__ = (
        "_begin",
        "_mending_time",
        "ambiguous_since",
        "call",
        "deadline",
        "has_begun",
        "job",
        "kept_at",
        "links",
        "progress",
        "wall_clock",
    )

    is_wanted = False

    def __init__(
        self,
        job: Job,
        wall_clock: Callable[[], float],
        until: float | None,
        mending_time: float,
        links: Sequence[Link] = (),
        begin: Callable[[], bool] | None = None,
    ) -> None:
        self.job = job
        self.wall_clock = wall_clock
        now = wall_clock()
        self.links = links
        ends = job.expires if until is None else min(job.expires, until)
        self.deadline = max(min(DELIVERY_DEADLINE, ends - now), 0.0)
        """Seconds that it may take."""
        self.progress: Progress | None = None
        """How far it has come, if it is to go on later."""
        self.kept_at = now
        """When that was, in seconds since 1970."""
        self.call: Call | None = None
        """How it ended; None if it did not, or was broken off."""
        self.ambiguous_since = job.ambiguous_since
        """Since when Insider may have it without our knowing, in seconds since 1970; None if it cannot."""
        self.has_begun = False
        """Whether Insider may have heard of it."""
        self._begin = begin
        self._mending_time = mending_time

    def begin(self) -> None:
        """The job is about to be sent.

        Raises:
            LeaseLost: It must not be.
        """
        if not self.has_begun:
            if self._begin is not None and not self._begin():
                raise LeaseLost
            self.has_begun = True

    @property
    def ambiguous_for(self) -> float | None:
        """Seconds since Insider may have processed it without our knowing; None if it cannot have."""
        since = self.job.ambiguous_since
        return None if since is None else max(self.wall_clock() - since, 0.0)

    @property
    def cause(self) -> Verdict | None:
        """What made its first attempt necessary; None if that is the first one of the call."""
        return last_verdict(self.job) if self.job.attempts else None

    def wait_after(self, verdict: Verdict) -> float | None:
        """Seconds until it is sent again after an answer that is final to the app; None if it is given up.

        Keys change, and this process may have the old ones: a call that is refused for its key waits for the right one.

        Args:
            verdict: What the answer means.
        """
        return self._mending_time if verdict.category is Category.AUTHENTICATION else None

    def ended(self, call: Call, ambiguous_for: float | None) -> None:
        """Note how it ended.

        Args:
            call: The record of the call.
            ambiguous_for: Seconds since Insider may have processed it without our knowing; None if it cannot have.
        """
        self.call = call
        self.ambiguous_since = None if ambiguous_for is None else self.wall_clock() - ambiguous_for

    def keep(self, context: Context, progress: Progress) -> Effects[str]:
        """Remember how far the call has come.

        Args:
            context: Holds the call's span; the job has its trace already.
            progress: How far it has come.

        Returns:
            The name of the job.
        """
        self.progress = progress
        self.kept_at = self.wall_clock()
        yield from ()
        return self.job.id
