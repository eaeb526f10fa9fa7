"""The outbox in the app's own database: a call is kept if and only if the transaction in which it was deferred is."""

from __future__ import annotations

import itertools
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

from asgiref.sync import sync_to_async
from django.core.exceptions import SynchronousOnlyOperation
from django.db import Error, InterfaceError, OperationalError, ProgrammingError, connections, router, transaction
from django.db.models import CharField, Count, Exists, F, FloatField, Max, Min, OuterRef, Q, QuerySet, Value
from django.db.models.functions import Cast, Concat, Greatest
from django.db.transaction import TransactionManagementError

from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import JobState, Lease, OutboxError, Pace, Stats, Taken
from insider_otel.outbox.rules import LOOK_AHEAD, Renewals, interrupted, opens_at, room
from insider_otel_django.outbox.database_thread import DatabaseThread
from insider_otel_django.outbox.models import OutboxJob, OutboxPool

_LOOK_EVERY = 1.0
"""Seconds between two looks into the database for what other processes have put there."""

_T = TypeVar("_T")


class DjangoOutbox:
    """Jobs in the app's own database.

    ``put`` writes through the connection of the calling thread, so a job is kept when the transaction around it is
    committed, and is not if it is rolled back. Workers need no transaction and no lock: of several that want the same,
    one UPDATE finds it as it was.

    Args:
        clock: Returns seconds; only differences matter.
    """

    name = "django"
    poll = 0.05

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._thread = DatabaseThread()
        self._renewals = Renewals()
        self._count = itertools.count(1)
        self._changes = 0

    def put(self, job: Job) -> None:
        """Keep a job, when the transaction is committed in which this is called; at once if there is none."""
        # With a transaction of its own, within that of the app: if it fails, the app's can go on.
        with _errors_told(), transaction.atomic(using=_database()):
            OutboxJob.of(job).save(using=_database(), force_insert=True)
            self._changed_on_commit()

    async def put_async(self, job: Job) -> None:
        """``put``, in the thread that holds the connection of sync code around it."""
        await sync_to_async(self.put, thread_sensitive=True)(job)

    def take(self, most: int, now: float, *, lease: float, pace: Pace, ahead: float = 0.0) -> Taken:
        """Take jobs that are due."""
        return self._work(lambda: _take(most, now, lease, pace, now + ahead, self._renewals))

    def begin(self, lease: Lease, now: float) -> bool:
        """Note that a job is about to be sent."""
        return self._work(lambda: _leased(lease).filter(leased_until__gt=now).update(sent_at=now) == 1)

    def renew(self, leases: Collection[Lease], until: float) -> None:
        """Keep jobs for longer."""
        if leases:
            self._work(lambda: _leased(*leases).update(leased_until=until))

    def release(self, leases: Collection[Lease]) -> None:
        """Give back jobs that were not sent."""
        if leases:
            self._work(lambda: _leased(*leases).update(token=None, leased_until=0))
            self._changed()

    def delivered(self, lease: Lease) -> None:
        """A job is done, whoever has it now."""
        self._work(lambda: _jobs().filter(job_id=lease.job.id).delete())
        self._line_moved(lease.job)

    def put_back(self, lease: Lease, job: Job) -> bool:
        """A job is to be sent later, or never."""
        changed = self._work(
            lambda: _leased(lease).update(
                state="waiting" if job.stopped is None else "dead",
                due=job.due,
                attempts=job.attempts,
                deliveries=job.deliveries,
                ambiguous_since=job.ambiguous_since,
                verdict=dict(job.verdict),
                stopped=job.stopped,
                stopped_at=job.stopped_at,
                token=None,
                leased_until=0,
                sent_at=None,
            )
        )
        self._line_moved(job)
        return changed == 1

    def hold_pool(self, pool: str, until: float) -> None:
        """Take no job of a pool before a moment."""
        self._work(lambda: _hold(pool, until))

    def change(self) -> tuple[int, float]:
        """Something that differs if this process has put a job, and once a second: others may have."""
        return self._changes, self._clock() // _LOOK_EVERY

    def jobs(self, state: JobState | None = None, *, most: int = 100) -> Sequence[Job]:
        """Jobs, the oldest first."""
        with _own_connection():
            return [row.job() for row in _in_state(state).order_by("number")[:most]]

    def ids(self, state: JobState | None = None, *, beginning: str = "") -> Sequence[str]:
        """The names of jobs, the oldest first."""
        with _own_connection():
            rows = _in_state(state).filter(job_id__startswith=beginning).order_by("number")
            # To some databases small letters and capitals are the same.
            return [name for name in rows.values_list("job_id", flat=True) if name.startswith(beginning)]

    def job(self, job_id: str) -> Job | None:
        """One job."""
        with _own_connection():
            row = _jobs().filter(job_id=job_id).first()
            return None if row is None else row.job()

    def retry(self, job_id: str, *, now: float, expires: float) -> bool:
        """Have a job sent now; who asks for it has seen what may have become of it, so that is forgotten."""
        with _own_connection():
            changed = (
                _jobs()
                .filter(job_id=job_id, leased_until__lte=now)
                .update(
                    state="waiting",
                    due=now,
                    expires=Greatest("expires", Value(expires, output_field=FloatField())),
                    ambiguous_since=None,
                    sent_at=None,
                    stopped=None,
                    stopped_at=None,
                    token=None,
                    leased_until=0,
                )
            )
            self._changed_on_commit()
        return changed == 1

    def discard(self, job_id: str) -> bool:
        """Forget a job."""
        with _own_connection():
            deleted, _ = _jobs().filter(job_id=job_id, leased_until__lte=time.time()).delete()
            self._changed_on_commit()
        return bool(deleted)

    def purge(self, now: float, *, retention: float, most: int) -> Mapping[str, int]:
        """Forget dead letters that were kept for long enough; in a transaction for each operation."""
        return self._work(lambda: _purge(now, retention, most))

    def stats(self) -> Stats:
        """How full it is."""
        leased = Count("number", filter=Q(leased_until__gt=time.time()))
        with _own_connection():
            waiting = _waiting().aggregate(count=Count("number"), oldest=Min("created"), leased=leased)
            dead = _in_state("dead").count()
        return Stats(waiting["count"], dead, waiting["oldest"], waiting["leased"])

    def close(self) -> None:
        """Close the workers' connection; whoever uses the outbox again opens another."""
        self._thread.close()

    def _work(self, task: Callable[[], _T]) -> _T:
        with _errors_told():
            if connections[_database()].in_atomic_block:
                # A worker has no transaction; a test that Django rolls back has, and its jobs are seen by no other.
                return task()
            return self._thread.run(task)

    def _changed(self) -> None:
        self._changes = next(self._count)

    def _changed_on_commit(self) -> None:
        transaction.on_commit(self._changed, using=_database())

    def _line_moved(self, job: Job) -> None:
        if job.line is not None:
            # The next one of its line may go.
            self._changed()


def _database() -> str:
    """The alias of the database; never that of a replica, which may be behind."""
    return router.db_for_write(OutboxJob)


def _jobs() -> QuerySet[OutboxJob]:
    return OutboxJob.objects.using(_database())


def _in_state(state: JobState | None) -> QuerySet[OutboxJob]:
    return _jobs() if state is None else _jobs().filter(state=state)


def _waiting() -> QuerySet[OutboxJob]:
    return _in_state("waiting")


def _pools() -> QuerySet[OutboxPool]:
    return OutboxPool.objects.using(_database())


def _leased(*leases: Lease) -> QuerySet[OutboxJob]:
    """What still belongs to some leases."""
    mine = {lease.job.id: lease.token for lease in leases}
    return _jobs().filter(job_id__in=mine, token__in=set(mine.values()))


def _take(most: int, now: float, lease: float, pace: Pace, due_by: float, renewals: Renewals) -> Taken:
    leases: list[Lease] = []
    wake: list[float] = []
    for pool in _pools_with_work(now, due_by):
        step = pace(pool.name)
        start = opens_at(pool.free_at, now, step, due_by - now)
        number = room(start - now, step, most - len(leases))
        due = _due(pool.name, now, due_by, number) if number > 0 else []
        starts = [start + place * step for place in range(len(due) + 1)]
        if due and not _reserve(pool, starts[-1]):
            # Another worker was quicker.
            wake.append(now)
            continue
        claimed = _claim(due, now, due_by, now + lease)
        leases.extend(Lease(job, token, at) for (job, token), at in zip(claimed, starts, strict=False))
        if len(due) == number:
            # There may be more.
            wake.append(max(starts[-1] - LOOK_AHEAD, now))
    if now not in wake:
        wake.extend(_next_moments(now, renewals))
    return Taken(leases, min(wake, default=None))


def _pools_with_work(now: float, due_by: float) -> list[OutboxPool]:
    """The pools of jobs that are due, those first that are free first."""
    due = _waiting().filter(due__lte=due_by, leased_until__lte=now).order_by()
    names = set(due.values_list("pool", flat=True).distinct())
    pools = {pool.name: pool for pool in _pools().filter(name__in=names)}
    new = [OutboxPool(name=name) for name in sorted(names - pools.keys())]
    if new:
        _pools().bulk_create(new, ignore_conflicts=True)
    return sorted([*pools.values(), *new], key=lambda pool: pool.free_at)


def _due(pool: str, now: float, due_by: float, most: int) -> list[int]:
    """The numbers of jobs to send.

    A job of a line waits until those before it are delivered or given up. One that was given up, and that somebody has
    sent again, also waits for a later one that is being sent.
    """
    is_before = Q(number__lt=OuterRef("number")) | Q(leased_until__gt=now)
    first = Q(line=None) | ~Exists(_waiting().filter(is_before, line=OuterRef("line")))
    due = _waiting().filter(first, pool=pool, due__lte=due_by, leased_until__lte=now)
    return list(due.order_by("due", "number").values_list("number", flat=True)[:most])


def _next_moments(now: float, renewals: Renewals) -> Generator[float]:
    """When another job is due, and when the lease ends of a worker that may be no more."""
    due = _waiting().filter(due__gt=now).aggregate(at=Min("due"))["at"]
    if due is not None:
        yield due
    leased = _waiting().filter(leased_until__gt=now)
    ends = leased.aggregate(first=Min("leased_until"), last=Max("leased_until"))
    if ends["last"] is not None:
        over_in = renewals.over_in(ends["last"])
        if over_in <= 0.0:
            _waiting().filter(leased_until=ends["last"]).update(token=None, leased_until=0)
        yield from (ends["first"], now + max(over_in, 0.0))


def _reserve(pool: OutboxPool, until: float) -> bool:
    """Keep others from starting deliveries of a pool before a moment."""
    unchanged = _pools().filter(name=pool.name, turn=pool.turn)
    return unchanged.update(free_at=until, turn=pool.turn + 1) == 1


def _hold(name: str, until: float) -> None:
    _pools().bulk_create([OutboxPool(name=name)], ignore_conflicts=True)
    _pools().filter(name=name, free_at__lt=until).update(free_at=until, turn=F("turn") + 1)


def _claim(numbers: Sequence[int], now: float, due_by: float, until: float) -> Generator[tuple[Job, str]]:
    """Take those of some jobs that nobody has taken since; each with the token that proves it."""
    if not numbers:
        return
    mark = secrets.token_hex(8)
    free = _waiting().filter(number__in=numbers, due__lte=due_by, leased_until__lte=now)
    free.update(token=Concat(Value(f"{mark}-"), Cast("number", CharField())), leased_until=until)
    # Read only now: before, another worker may have sent it and put it back.
    mine = _jobs().filter(number__in=numbers, token__in=[f"{mark}-{number}" for number in numbers])
    for row in mine.order_by("due", "number"):
        job = interrupted(row.job(), row.sent_at)
        if row.sent_at is not None:
            mine.filter(number=row.number).update(
                attempts=job.attempts, ambiguous_since=job.ambiguous_since, sent_at=None
            )
        assert row.token is not None, "it was found by it"
        yield job, row.token


def _purge(now: float, retention: float, most: int) -> Mapping[str, int]:
    dead = _in_state("dead")
    dead.filter(stopped_at=None).update(stopped_at=now)
    old = dead.filter(stopped_at__lte=now - retention)
    # Not in one statement: some databases delete nothing from a table that the statement also reads.
    numbers: dict[str, list[int]] = {}
    for number, operation in old.order_by("stopped_at").values_list("number", "operation")[:most]:
        numbers.setdefault(operation, []).append(number)
    # Another worker may have been quicker, or somebody has retried one.
    return +Counter({operation: old.filter(number__in=each).delete()[0] for operation, each in numbers.items()})


@contextmanager
def _own_connection() -> Generator[None]:
    """Use the calling thread's connection, in its transaction; and leave none open in a thread that had none."""
    connection = connections[_database()]
    was_open = connection.connection is not None
    try:
        with _errors_told():
            yield
    finally:
        if not was_open:
            connection.close()


@contextmanager
def _errors_told() -> Generator[None]:
    try:
        yield
    except SynchronousOnlyOperation as error:
        raise OutboxError("no event loop may wait for Django's database: use an async client") from error
    except Error as error:
        raise OutboxError(f"the outbox in Django's database: {_reason(error)}") from error


def _reason(error: Error) -> str:
    """What is wrong; of what the database says only why it cannot be reached, for it may repeat what it was to hold."""
    if isinstance(error, TransactionManagementError):
        return "an earlier error has ended the transaction, which can only be rolled back"
    if isinstance(error, ProgrammingError) or "no such" in str(error):
        return f"its tables are missing or of another version ({type(error).__name__}): run manage.py migrate"
    if isinstance(error, OperationalError | InterfaceError):
        return (str(error).strip().splitlines() or ["it does not answer"])[0]
    return f"it refuses the job ({type(error).__name__})"
