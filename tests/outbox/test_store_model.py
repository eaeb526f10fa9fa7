"""A store against a list of jobs that is obviously right: whatever is done in whatever order, both say the same."""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import JobStore, Lease
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox

from .jobs import job, unlimited

_LINES = st.sampled_from([None, None, "jane", "john"])
_POOLS = st.sampled_from(["user.upsert", "mail.send"])
_SECONDS = st.sampled_from([0.0, 0.5, 5.0, 10.0, 30.0])
_PICKS = st.integers(0, 1000)


@dataclass
class _Row:
    """A job as the model keeps it."""

    job: Job
    token: str | None = None
    leased_until: float = 0.0
    sent_at: float | None = None


class AnyOutbox(RuleBasedStateMachine):
    """Random work on a store and on the model."""

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[_Row] = []
        self.leases: list[Lease] = []
        self.now = time.time()

    def open(self, directory: Path) -> JobStore:
        """The store that is tested."""
        return SQLiteOutbox(directory / "outbox.db", timeout=20.0)

    @initialize()
    def begin_empty(self) -> None:
        self.directory = tempfile.TemporaryDirectory()
        self.store = self.open(Path(self.directory.name))

    def teardown(self) -> None:
        self.store.close()
        self.directory.cleanup()

    # ------------------------------------------------------------------------------------------------------- rules

    @rule(seconds=_SECONDS)
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(line=_LINES, pool=_POOLS, later=_SECONDS)
    def put(self, line: str | None, pool: str, later: float) -> None:
        one = job(line=line, pool=pool, created=self.now, due=self.now + later, expires=self.now + 1000)
        self.store.put(one)
        self.rows.append(_Row(one))

    @rule(most=st.integers(1, 4), lease=st.sampled_from([5.0, 30.0]))
    def take(self, most: int, lease: float) -> None:
        taken = self.store.take(most, self.now, lease=lease, pace=unlimited)
        free = [row for row in self.rows if self._is_free(row)]
        assert len(taken.leases) == min(most, len(free))
        for pool in ("user.upsert", "mail.send"):
            wanted = sorted((row for row in free if row.job.pool == pool), key=lambda row: row.job.due)
            got = [lease for lease in taken.leases if lease.job.pool == pool]
            assert [lease.job.id for lease in got] == [row.job.id for row in wanted[: len(got)]]
        for one in taken.leases:
            row = self._row(one.job.id)
            if row.sent_at is not None:
                since = row.job.ambiguous_since
                row.job = replace(
                    row.job,
                    attempts=row.job.attempts + 1,
                    ambiguous_since=row.sent_at if since is None else since,
                )
            assert one.job == row.job
            row.token, row.leased_until, row.sent_at = one.token, self.now + lease, None
            self.leases.append(one)
        self._wakes_in_time(taken.wake_at)

    def _wakes_in_time(self, wake_at: float | None) -> None:
        """A store may wake its worker too often, but never too late."""
        moments = [row.leased_until for row in self.rows if row.leased_until > self.now]
        moments += [max(row.job.due, self.now) for row in self.rows if self._is_first(row) and not self._is_leased(row)]
        assert not moments or (wake_at is not None and wake_at <= min(moments))

    @precondition(lambda self: self.leases)
    @rule(pick=_PICKS)
    def begin(self, pick: int) -> None:
        lease = self.leases[pick % len(self.leases)]
        row = self._held_by(lease)
        may = row is not None and row.leased_until > self.now
        assert self.store.begin(lease, self.now) == may
        if may:
            assert row is not None
            row.sent_at = self.now

    @precondition(lambda self: self.leases)
    @rule(pick=_PICKS, seconds=st.sampled_from([5.0, 60.0]))
    def renew(self, pick: int, seconds: float) -> None:
        lease = self.leases[pick % len(self.leases)]
        self.store.renew([lease], self.now + seconds)
        row = self._held_by(lease)
        if row is not None:
            row.leased_until = self.now + seconds

    @precondition(lambda self: self.leases)
    @rule(pick=_PICKS)
    def release(self, pick: int) -> None:
        lease = self.leases[pick % len(self.leases)]
        row = self._held_by(lease)
        self.store.release([lease])
        if row is not None:
            row.token, row.leased_until = None, 0.0

    @precondition(lambda self: self.leases)
    @rule(pick=_PICKS)
    def delivered(self, pick: int) -> None:
        lease = self.leases[pick % len(self.leases)]
        self.store.delivered(lease)
        self.rows = [row for row in self.rows if row.job.id != lease.job.id]

    @precondition(lambda self: self.leases)
    @rule(pick=_PICKS, later=_SECONDS, stopped=st.sampled_from([None, None, "failed"]))
    def put_back(self, pick: int, later: float, stopped: str | None) -> None:
        lease = self.leases[pick % len(self.leases)]
        changed = replace(
            lease.job,
            due=self.now + later,
            attempts=lease.job.attempts + 1,
            deliveries=lease.job.deliveries + 1,
            verdict={"category": "server"},
            stopped=stopped,
            stopped_at=None if stopped is None else self.now,
        )
        row = self._held_by(lease)
        self.store.put_back(lease, changed)
        if row is not None:
            row.job, row.token, row.leased_until, row.sent_at = changed, None, 0.0, None

    @precondition(lambda self: self.rows)
    @rule(pick=_PICKS)
    def retry(self, pick: int) -> None:
        row = self.rows[pick % len(self.rows)]
        done = self.store.retry(row.job.id, now=self.now, expires=self.now + 500)
        assert done == (not self._is_leased(row))
        if done:
            expires = max(row.job.expires, self.now + 500)
            waiting = replace(row.job, ambiguous_since=None, stopped=None, stopped_at=None)
            row.job = replace(waiting, due=self.now, expires=expires)
            row.token, row.leased_until, row.sent_at = None, 0.0, None

    @precondition(lambda self: self.rows)
    @rule(pick=_PICKS)
    def discard(self, pick: int) -> None:
        row = self.rows[pick % len(self.rows)]
        if row.token is not None:
            # Whether a lease has ended the store asks the real clock, which goes slower than this one.
            return
        assert self.store.discard(row.job.id)
        self.rows.remove(row)

    @rule(retention=_SECONDS, most=st.integers(1, 3))
    def purge(self, retention: float, most: int) -> None:
        purged = self.store.purge(self.now, retention=retention, most=most)
        left = {job.id for job in self.store.jobs(most=1000)}
        ends = {row.job.id: row.job.stopped_at for row in self.rows if row.job.stopped_at is not None}
        old = {name for name, moment in ends.items() if moment <= self.now - retention}
        gone = {row.job.id for row in self.rows} - left
        assert gone <= old
        assert len(gone) == sum(purged.values()) == min(most, len(old))
        # The oldest first; of those that were given up at the same moment any.
        assert all(ends[name] <= ends[other] for name in gone for other in old - gone)
        self.rows = [row for row in self.rows if row.job.id in left]

    # -------------------------------------------------------------------------------------------------- invariants

    @invariant()
    def both_hold_the_same(self) -> None:
        assert list(self.store.jobs(most=1000)) == [row.job for row in self.rows]
        stats = self.store.stats()
        waiting = [row.job.created for row in self.rows if row.job.stopped is None]
        assert (stats.waiting, stats.dead) == (len(waiting), len(self.rows) - len(waiting))
        assert stats.oldest == min(waiting, default=None)

    def _is_free(self, row: _Row) -> bool:
        return self._is_first(row) and not self._is_leased(row) and row.job.due <= self.now

    def _is_leased(self, row: _Row) -> bool:
        return row.leased_until > self.now

    def _is_first(self, row: _Row) -> bool:
        if row.job.stopped is not None:
            return False
        if row.job.line is None:
            return True
        before = self.rows[: self.rows.index(row)]
        # Behind it there may be one that is being sent, where somebody has had it sent again.
        return not any(
            each.job.line == row.job.line and each.job.stopped is None and (each in before or self._is_leased(each))
            for each in self.rows
            if each is not row
        )

    def _row(self, job_id: str) -> _Row:
        return next(row for row in self.rows if row.job.id == job_id)

    def _held_by(self, lease: Lease) -> _Row | None:
        own = (row for row in self.rows if (row.job.id, row.token) == (lease.job.id, lease.token))
        return next(own, None)


AnyOutbox.TestCase.settings = settings(max_examples=60, stateful_step_count=40)
test_any_work_leaves_what_the_list_says = AnyOutbox.TestCase
