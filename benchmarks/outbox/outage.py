"""An outage of a minute on a fake clock: every piece is the real one but the worker's loop, which waits in no time."""

from __future__ import annotations

import tempfile
from collections import Counter
from pathlib import Path

import httpx

from benchmarks.common.calls import UPSERT
from benchmarks.outbox.shop import Curve, curve, settings_for, users
from insider_otel.delivery.deliverer import Deliverer
from insider_otel.http.engine import Engine
from insider_otel.http.transport import EngineTransport
from insider_otel.outbox.protocol import JobStore, Lease
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.policy.deferral import LEASE, pace
from insider_otel.testing import FakeClock, FakeInsider
from insider_otel.testing._wire import Plan, Request

CALLS = 10_000
OUTAGE = 60.0
LIMIT = "1200/60s"
_WINDOW = 60.0
_LAST_TOGETHER = 5.0
_AT_A_TIME = 16
_HAIR = 1e-6
"""Seconds by which a wait is longer than asked for, as real ones are: what is due by a rounding is due."""


class BrokenInsider(FakeInsider):
    """Answers 503 for the length of an outage, and notes when each request came."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock, limits={UPSERT.operation.pool: LIMIT})
        self.began = clock()
        self.moments: list[float] = []
        self.script("user.upsert", "503", repeat=True)

    def handle(self, request: Request) -> Plan:
        """Decide what happens to a request."""
        age = self.clock() - self.began
        if age >= OUTAGE:
            self.script("user.upsert")
        self.moments.append(age)
        return super().handle(request)


class Worker:
    """What ``insider_otel.delivery.worker`` does, one thing after another, by the clock of the simulation."""

    def __init__(self, engine: Engine, client: httpx.Client, clock: FakeClock) -> None:
        assert engine.desk is not None
        assert isinstance(engine.desk.outbox, SQLiteOutbox)
        self.store: JobStore = engine.desk.outbox
        self._deliverer = Deliverer(engine, lambda: client)
        self._pace = pace(engine.settings.pool_limits[UPSERT.operation.pool])
        self._clock = clock

    def work(self, until: float) -> None:
        """Work until a moment, or until nothing is left."""
        while self._clock() < until:
            taken = self.store.take(_AT_A_TIME, self._clock(), lease=LEASE, pace=lambda pool: self._pace)
            for lease in taken.leases:
                self._wait(lease.start)
                self._deliver(lease)
            if not taken.leases:
                if taken.wake_at is None and until == float("inf"):
                    return
                self._wait(min(taken.wake_at or until, until))

    def _wait(self, moment: float) -> None:
        self._clock.advance(max(moment - self._clock(), 0.0) + _HAIR)

    def _deliver(self, lease: Lease) -> None:
        assert self.store.begin(lease, self._clock())
        job, opens_at = self._deliverer.deliver(lease.job)
        if job is None:
            self.store.delivered(lease)
        else:
            self.store.put_back(lease, job)
        if opens_at is not None:
            self.store.hold_pool(lease.job.pool, opens_at)


def suffer(calls: int = CALLS) -> Curve:
    """Have calls come evenly during an outage, and work off what became of them.

    Args:
        calls: How many.
    """
    # From 0: the moments of a limit's window are told apart to the microsecond.
    clock = FakeClock(0.0)
    fake = BrokenInsider(clock)
    with tempfile.TemporaryDirectory() as directory:
        engine = Engine(settings_for(Path(directory, "outbox.db"), LIMIT), clock=clock)
        transport = EngineTransport(engine, fake.transport(), lambda seconds: clock.sleep(seconds + _HAIR))
        with httpx.Client(transport=transport) as client:
            worker = Worker(engine, client, clock)
            for number in range(calls):
                worker.work(fake.began + number * OUTAGE / calls)
                client.post(UPSERT.url, headers=UPSERT.headers, json=users(number))
            worker.work(float("inf"))
        stats = worker.store.stats()
        worker.store.close()
    taken = Counter(str(each.json) for each in fake.accepted("user.upsert"))
    seconds = curve(fake.moments)
    return Curve(
        seconds=seconds,
        # For a window's length the limit holds the requests of the outage, and those that waited for its end within
        # their deadline and came together. The last second is not a full one.
        drained=slice(int(OUTAGE + _LAST_TOGETHER + _WINDOW), len(seconds) - 1),
        refused=sum(each.status == 429 for each in fake.requests),
        delivered=len(taken),
        twice=sum(count > 1 for count in taken.values()),
        left=stats.waiting + stats.dead,
    )
