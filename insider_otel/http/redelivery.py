"""A deferred call that is sent: where it goes on, and how far it comes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentelemetry.context import Context

from insider_otel.http.effects import Effects
from insider_otel.outbox.job import Job
from insider_otel.policy.deferral import DELIVERY_DEADLINE
from insider_otel.policy.steps import Progress

if TYPE_CHECKING:
    from opentelemetry.trace import Link


class Redelivery:
    """One delivery of a job. In place of handing the call over it remembers how far the call has come.

    Args:
        job: The job.
        now: The present moment, in seconds since 1970.
        until: The moment by which it has to be sent, in seconds since 1970; None for no bound.
        links: Where the delivery comes from.
    """

    __slots__ = ("deadline", "job", "links", "now", "progress")

    is_wanted = False

    def __init__(self, job: Job, now: float, until: float | None, links: Sequence[Link] = ()) -> None:
        self.job = job
        self.now = now
        self.links = links
        ends = job.expires if until is None else min(job.expires, until)
        self.deadline = max(min(DELIVERY_DEADLINE, ends - now), 0.0)
        """Seconds that it may take."""
        self.progress: Progress | None = None
        """How far it has come, if it is to go on later."""

    @property
    def ambiguous_for(self) -> float | None:
        """Seconds since Insider may have processed it without our knowing; None if it cannot have."""
        since = self.job.ambiguous_since
        return None if since is None else max(self.now - since, 0.0)

    def keep(self, context: Context, progress: Progress) -> Effects[str]:
        """Remember how far the call has come."""
        self.progress = progress
        yield from ()
        return self.job.id
