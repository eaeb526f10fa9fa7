"""What an outbox is: where deferred calls are kept."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from insider_otel.outbox.job import Job


class OutboxError(Exception):
    """An outbox that cannot do what it was asked; says what to do about it, and nothing of what it holds."""


class Outbox(Protocol):
    """Takes jobs."""

    @property
    def name(self) -> str:
        """Its kind, for telemetry."""
        ...

    def put(self, job: Job) -> None:
        """Keep a job. When this returns, it is kept.

        Raises:
            OutboxError: It is not kept.
        """
        ...

    async def put_async(self, job: Job) -> None:
        """``put``, for an event loop.

        Raises:
            OutboxError: It is not kept.
        """
        ...


@dataclass(frozen=True, slots=True)
class Lease:
    """A job that belongs to one worker for a while.

    Attributes:
        job: The job.
        token: Proves that it is this worker's.
        start: The moment to send it at, in seconds since 1970.
    """

    job: Job
    token: str
    start: float


@dataclass(frozen=True, slots=True)
class Taken:
    """What ``JobStore.take`` gives.

    Attributes:
        leases: Jobs to send.
        wake_at: When there may be more, in seconds since 1970; None if only a new job can change that.
    """

    leases: Sequence[Lease]
    wake_at: float | None


@dataclass(frozen=True, slots=True)
class Stats:
    """How full an outbox is.

    Attributes:
        waiting: Jobs to be sent.
        dead: Jobs that were given up and that nobody has retried or discarded.
        oldest: When the oldest job that waits was deferred, in seconds since 1970; None if none waits.
        leased: Of those that wait, how many a worker is sending.
    """

    waiting: int
    dead: int
    oldest: float | None
    leased: int


JobState = Literal["waiting", "dead"]

Pace = Callable[[str], float]
"""Seconds between two deliveries of a pool, by its name."""


class JobStore(Outbox, Protocol):
    """An outbox from which workers take jobs. Every method may raise ``OutboxError``."""

    @property
    def poll(self) -> float:
        """Seconds between two looks at ``change``."""
        ...

    def take(self, most: int, now: float, *, lease: float, pace: Pace, ahead: float = 0.0) -> Taken:
        """Take jobs that are due: first come, first served, a pool no faster than its pace, a line one after another.

        A job that a worker began to send, of which nothing was heard since, is one that Insider may have processed: it
        has been ambiguous since then, and has one attempt more.

        Args:
            most: How many at most.
            now: The present moment, in seconds since 1970.
            lease: Seconds for which they are taken.
            pace: How far apart deliveries of a pool are.
            ahead: Seconds; what is due within that time is taken as if it were due now.
        """
        ...

    def begin(self, lease: Lease, now: float) -> bool:
        """Note that a job is about to be sent.

        Returns:
            Whether it still belongs to the lease; if not, it must not be sent.
        """
        ...

    def renew(self, leases: Collection[Lease], until: float) -> None:
        """Keep jobs for longer."""
        ...

    def release(self, leases: Collection[Lease]) -> None:
        """Give back jobs that were not sent."""
        ...

    def delivered(self, lease: Lease) -> None:
        """A job is done: forget it, and all that was stored of it, also if the lease has ended: nobody sends it."""
        ...

    def put_back(self, lease: Lease, job: Job) -> bool:
        """A job is to be sent later: keep it as it is now. With ``job.stopped`` it is a dead letter.

        Returns:
            Whether it still belonged to the lease; if not, nothing was changed.
        """
        ...

    def hold_pool(self, pool: str, until: float) -> None:
        """Take no job of a pool before a moment, ``rules.LONGEST_HOLD`` from now at the latest."""
        ...

    def change(self) -> Any:
        """Something that differs from what it was if a job may have come meanwhile; cheap to ask."""
        ...

    def jobs(self, state: JobState | None = None, *, most: int = 100) -> Sequence[Job]:
        """Jobs, the oldest first."""
        ...

    def ids(self, state: JobState | None = None, *, beginning: str = "") -> Sequence[str]:
        """The names of all jobs, or of those that begin so, the oldest first; nothing of what they hold is read."""
        ...

    def job(self, job_id: str) -> Job | None:
        """One job."""
        ...

    def retry(self, job_id: str, *, now: float, expires: float) -> bool:
        """Have a dead letter sent once more, now, or a job that waits.

        Returns:
            Whether there is such a job that nobody is sending.
        """
        ...

    def discard(self, job_id: str) -> bool:
        """Forget a job.

        Returns:
            Whether there was such a job that nobody is sending.
        """
        ...

    def purge(self, now: float, *, retention: float, most: int) -> Mapping[str, int]:
        """Forget dead letters that were kept for long enough, and all that was stored of them, in one transaction.

        One of which nobody knows when it was given up is kept from now on for as long.

        Args:
            now: The present moment, in seconds since 1970.
            retention: Seconds for which they are kept after they were given up.
            most: How many at most.

        Returns:
            How many there were of each operation.
        """
        ...

    def stats(self) -> Stats:
        """How full it is."""
        ...

    def close(self) -> None:
        """Close it; whoever uses it again opens it again."""
        ...
