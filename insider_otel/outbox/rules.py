"""What every outbox decides or says alike, whatever it keeps jobs in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from time import monotonic

from insider_otel.outbox.job import Job

LOOK_AHEAD = 1.0
"""Seconds. A job that may start no later than that is taken already, so that starts need not be exact."""

LONGEST_HOLD = 60.0
"""Seconds for which a pool without room is left alone at once; then somebody looks again."""

LONGEST_LEASE = 3600.0
"""Seconds. A lease that was not renewed for that long is over, whichever moment it names."""


class Renewals:
    """Knows a lease that ends later than all others, and whether it is renewed: workers that live renew theirs.

    One that a clock wrote that was ahead then names a moment far away, and its worker may be no more. How long nobody
    has renewed it is told by the monotonic clock: no wall clock, of whichever machine, takes a lease from its worker.
    """

    __slots__ = ("_last", "_since")

    def __init__(self) -> None:
        self._last = self._since = 0.0

    def over_in(self, last: float) -> float:
        """Seconds after which the lease is over if it is not renewed meanwhile; not above 0 if it is.

        Args:
            last: The latest moment at which a lease ends, in seconds since 1970.
        """
        if last != self._last:
            self._last, self._since = last, monotonic()
        return self._since + LONGEST_LEASE - monotonic()


def opens_at(free_at: float, now: float, step: float, ahead: float = 0.0) -> float:
    """When the next delivery of a pool may start.

    A moment farther ahead than any worker writes is the mark of a clock that was ahead then: the pool is free.

    Args:
        free_at: When the pool is free, as the last worker wrote it, in seconds since 1970.
        now: The present moment, in seconds since 1970.
        step: Seconds between two deliveries.
        ahead: Seconds; a pool that is free within that time counts as free now.
    """
    # Twice, for the clocks of two machines differ.
    return free_at if now + ahead < free_at <= now + step + 2 * LONGEST_HOLD else now


def room(until_start: float, step: float, most: int) -> int:
    """How many deliveries of a pool may start within the time looked ahead.

    Args:
        until_start: Seconds until the next one may start.
        step: Seconds between two of them.
        most: How many at most.
    """
    if until_start > LOOK_AHEAD:
        return 0
    return most if step <= 0 else min(most, int((LOOK_AHEAD - until_start) / step) + 1)


def interrupted(job: Job, sent_at: float | None) -> Job:
    """A job as it is when its last worker has not said what became of it.

    Args:
        job: The job as that worker took it.
        sent_at: When that worker began to send it, in seconds since 1970; None if it did not.
    """
    if sent_at is None:
        return job
    # Nobody knows whether Insider has it.
    since = sent_at if job.ambiguous_since is None else job.ambiguous_since
    return replace(job, attempts=job.attempts + 1, ambiguous_since=since)


def purged_text(purged: Mapping[str, int]) -> str:
    """What the log says of dead letters that were deleted: nothing that could tell whom they were about.

    Args:
        purged: How many there were of each operation.
    """
    operations = ", ".join(f"{operation} {number}" for operation, number in sorted(purged.items()))
    return f"dead letters whose outbox_retention is over were deleted, {sum(purged.values())} in all: {operations}"


def reason_text(job: Job) -> str:
    """Why a job was not accepted by the last delivery, or given up: nothing of what it holds.

    Args:
        job: The job.
    """
    said = (job.stopped, job.verdict.get("category"), job.verdict.get("rule"))
    return ", ".join(text for text in said if text)


def given_up_text(job: Job) -> str:
    """What the log says of a job that has become a dead letter: nothing that could tell whom it was about.

    Args:
        job: The job.
    """
    return (
        f"a deferred call of {job.operation} was given up, and is a dead letter: {reason_text(job)}; "
        f"attempts: {job.attempts}; job: {job.id}"
    )
