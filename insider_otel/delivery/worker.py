"""The worker: takes jobs out of an outbox as they fall due, and sends them, several at a time."""

from __future__ import annotations

import atexit
import heapq
import itertools
import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast

import httpx
from opentelemetry.trace import Link, SpanKind

from insider_otel.api.operations import Limit, operations_by_name
from insider_otel.delivery.deliverer import Deliverer
from insider_otel.delivery.thread_pool import DaemonThreadPool
from insider_otel.http.engine import Engine
from insider_otel.http.instrumentor import cover_client
from insider_otel.http.redelivery import LeaseLost
from insider_otel.outbox.job import Job, pool_of
from insider_otel.outbox.protocol import JobStore, Lease, OutboxError
from insider_otel.outbox.rules import LONGEST_HOLD, LONGEST_LEASE, given_up_text, purged_text
from insider_otel.policy.deferral import DELIVERY_DEADLINE, LEASE, LONGEST_WAIT, pace
from insider_otel.policy.limits import limit_of
from insider_otel.policy.settings import Mode, SettingsError

DEFAULT_CONCURRENCY = 16
"""Deliveries at a time."""

_RENEWALS = 3
"""How often a lease is renewed while it would last."""

_LONGEST_END = DELIVERY_DEADLINE + LEASE
"""Seconds. A delivery that takes longer than it may is not waited for by a worker that stops."""

_PATIENCE_AT_EXIT = 10.0
"""Seconds. An answer that takes longer is not waited for when the process ends."""

_PURGE_EVERY = 3600.0
_PURGED_AT_ONCE = 100
"""Dead letters that are deleted in one transaction: calls that are to be kept wait for it."""

_TROUBLE_PAUSE = 1.0
_TRIES = 5
"""How often the outbox is told what became of a job; and asked for jobs, by a worker that is to drain it."""

_log = logging.getLogger("insider_otel.outbox")


_Planned = tuple[float, int, Lease, Link]
"""When by the monotonic clock a job is to be sent, a number that nothing else has, the job, the worker's own span."""


class Worker:
    """Sends what an outbox holds, until it is stopped. Any number of workers, in any number of processes, share one.

    Args:
        engine: What its calls share with those of the app; its settings name an outbox that workers take jobs from.
        client: Returns the client to send with; by default one of its own.
        concurrency: Deliveries at a time.
        lease: Seconds after which others may take the jobs of a worker that was killed.

    Attributes:
        sent: How many jobs it has sent so far that are done with.
        given_up: How many it has made dead letters of.

    Raises:
        SettingsError: There is no outbox, or one whose jobs others send; or the mode is ``observe``.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        client: Callable[[], Any] | None = None,
        concurrency: int = DEFAULT_CONCURRENCY,
        lease: float = LEASE,
    ) -> None:
        self.sent = self.given_up = 0
        self._own_client: httpx.Client | None = None
        self._client = client or self._make_client
        self._deliverer = Deliverer(engine, self._client)
        assert engine.desk is not None, "the deliverer has looked"
        if not hasattr(engine.desk.outbox, "take"):
            raise SettingsError(f"outbox: the jobs of {engine.desk.url.display} are sent by its own workers")
        if engine.settings.mode is Mode.OBSERVE:
            raise SettingsError("mode is 'observe', which changes nothing: deferred calls are sent in 'enforce'")
        self._engine = engine
        self._store = cast("JobStore", engine.desk.outbox)
        self._clock = engine.desk.wall_clock
        self._concurrency = concurrency
        self._lease = lease
        self._renew_every = min(lease, LONGEST_LEASE) / _RENEWALS
        # What it plans goes by the monotonic clock, which nobody sets; an outbox knows the wall clock.
        self._ask_at = self._renew_at = self._purge_at = 0.0
        self._clocks_apart = 0.0
        self._client_lock = threading.Lock()
        self._wake = threading.Condition()
        self._stopping = False
        self._held: dict[tuple[str, str], Lease] = {}
        self._numbers = itertools.count()
        self._thread: threading.Thread | None = None
        self._limit_of = lru_cache(maxsize=None)(self._documented_limit)

    def start(self) -> None:
        """Work in a thread of its own, which does not keep the process alive. One that works already works on."""
        if self.is_alive and not self._stopping:
            return
        if self._thread is not None:
            # One that was told to stop sees through what it began.
            self._thread.join()
        self._stopping = False
        with suppress(OutboxError):
            # Opened before that is registered, so that it is closed after.
            self._store.change()
        # The pool is made here: an interpreter that ends makes no more threads, and it may come to run only then.
        threads = self._threads()
        thread = threading.Thread(target=self._run, args=(threads,), name="insider-otel outbox", daemon=True)
        try:
            thread.start()
        except RuntimeError:
            threads.shutdown()
            raise
        self._thread = thread
        # What is being sent when the process ends is seen through, if that does not take long.
        atexit.register(self.stop, _PATIENCE_AT_EXIT)

    @property
    def is_alive(self) -> bool:
        """Whether its thread works."""
        return self._thread is not None and self._thread.is_alive()

    def stop(self, patience: float | None = None) -> None:
        """Take no more jobs, see those through that are being sent, and give the others back.

        Args:
            patience: Seconds to wait for that; None for as long as it takes.
        """
        atexit.unregister(self.stop)
        with self._wake:
            self._stopping = True
            self._wake.notify_all()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(patience)

    def run(self, *, drain: bool = False) -> None:
        """Work in this thread, until ``stop`` is called from another or from a signal handler.

        Args:
            drain: End also when nothing is left that may be sent now, or in a moment.

        Raises:
            OutboxError: The outbox to be drained is in trouble, and stays so for several tries.
        """
        self._run(self._threads(), drain=drain)

    def _threads(self) -> DaemonThreadPool:
        return DaemonThreadPool(self._concurrency, "insider-otel delivery")

    def _run(self, threads: DaemonThreadPool, *, drain: bool = False) -> None:
        planned: list[_Planned] = []
        try:
            with suppress(Exception):
                # Made before the first jobs are taken: it takes the time in which they are to start. What is wrong with
                # it is said of each job.
                self._client()
            self._work(threads, planned, drain)
        finally:
            self._see_through([lease for _, _, lease, _ in planned])
            threads.shutdown()
            with self._client_lock:
                client, self._own_client = self._own_client, None
            if client is not None:
                client.close()

    def deliver_due(self, ahead: float = 0.0) -> int:
        """Send what is due, each job once, in this thread and at no pace: for tests.

        Args:
            ahead: Seconds; what is due within that time is sent too.

        Returns:
            How many jobs were sent.
        """
        seen: set[str] = set()
        again: list[Lease] = []
        while True:
            taken = self._store.take(
                self._concurrency, self._clock(), lease=self._lease, pace=lambda pool: 0.0, ahead=ahead
            )
            # Kept until the end, or they would be taken in the place of others.
            again += [lease for lease in taken.leases if lease.job.id in seen]
            fresh = [lease for lease in taken.leases if lease.job.id not in seen]
            if not taken.leases:
                self._give_back(again)
                return len(seen)
            link = self._link()
            for lease in fresh:
                seen.add(lease.job.id)
                self._deliver_now(lease, link)

    def _work(self, threads: DaemonThreadPool, planned: list[_Planned], drain: bool) -> None:
        self._ask_at, seen, failed = 0.0, object(), 0
        while not self._stopping:
            monotonic, now, was_idle = time.monotonic(), self._clock(), not self._held
            try:
                self._renew(monotonic, now)
                change: object = self._store.change()
                if (change != seen or monotonic >= self._ask_at) and len(self._held) < self._concurrency:
                    # Asked before, so that what comes meanwhile is seen the next time.
                    seen = change
                    self._ask_at = self._take(planned, monotonic, now)
                self._purge(monotonic, now)
            except Exception as error:
                failed += 1
                if drain and failed == _TRIES:
                    # Whoever waits for the end of it, such as cron, is to hear of it.
                    raise
                if isinstance(error, OutboxError):
                    _log.error("the outbox cannot be asked for jobs, which wait: %s", error)
                else:
                    # A fault of ours, after which the worker is still wanted.
                    _log.error("the worker stumbled, and goes on: %s", type(error).__name__)
                self._ask_at = 0.0
                self._pause(_TROUBLE_PAUSE)
                continue
            failed = 0
            monotonic = time.monotonic()
            while planned and planned[0][0] <= monotonic:
                _, _, lease, link = heapq.heappop(planned)
                threads.submit(self._deliver, lease, link)
            if drain and not self._held and self._ask_at > monotonic + LONGEST_WAIT and monotonic < self._purge_at:
                if was_idle:
                    return
                # What ended meanwhile may have made way for more.
                self._ask_at = 0.0
            self._pause(self._until_next(monotonic, planned))

    def _see_through(self, planned: list[Lease]) -> None:
        """Give back what was not begun, and wait for the rest, which nobody else is to take meanwhile.

        But not for an answer that never ends: its job is nobody's when its lease ends, and may have arrived.
        """
        self._give_back(planned)
        with self._wake:
            for lease in planned:
                del self._held[_key(lease)]
        until = time.monotonic() + _LONGEST_END
        while self._held and time.monotonic() < until:
            try:
                self._renew(time.monotonic(), self._clock())
            except OutboxError as error:
                _log.error("the outbox does not say that deliveries go on: %s", error)
            with self._wake:
                if self._held:
                    self._wake.wait(self._renew_every)

    def _renew(self, monotonic: float, now: float) -> None:
        apart, self._clocks_apart = self._clocks_apart, now - monotonic
        # If the wall clock was set, or the machine slept, leases may have ended that nobody else should take, and what
        # was to be done later may be due.
        if abs(self._clocks_apart - apart) > self._renew_every:
            self._ask_at = self._renew_at = self._purge_at = 0.0
        if self._held and monotonic >= self._renew_at:
            self._store.renew(list(self._held.values()), now + self._lease)
            self._renew_at = monotonic + self._renew_every

    def _take(self, planned: list[_Planned], monotonic: float, now: float) -> float:
        """Take jobs, and say when to ask again."""
        room = self._concurrency - len(self._held)
        taken = self._store.take(room, now, lease=self._lease, pace=self._pace)
        if taken.leases:
            link = self._link()
            for lease in taken.leases:
                self._held[_key(lease)] = lease
                heapq.heappush(planned, (monotonic + (lease.start - now), next(self._numbers), lease, link))
        if len(taken.leases) == room:
            return monotonic
        return float("inf") if taken.wake_at is None else monotonic + (taken.wake_at - now)

    def _purge(self, monotonic: float, now: float) -> None:
        """Delete what of the dead letters was kept for long enough: at the start, and then about once an hour."""
        retention = self._engine.settings.outbox_retention
        if monotonic < self._purge_at:
            return
        self._purge_at = monotonic + _PURGE_EVERY
        if retention is None:
            return
        purged = self._store.purge(now, retention=retention, most=_PURGED_AT_ONCE)
        if purged:
            _log.warning("%s", purged_text(purged))
        if sum(purged.values()) == _PURGED_AT_ONCE:
            # The others at the next turn: jobs that are due do not wait for all of it.
            self._purge_at = monotonic

    def _link(self) -> Link:
        """A link to the worker's own span of what it has just taken."""
        tracer = self._engine.telemetry.tracer
        with tracer.start_as_current_span("insider outbox", kind=SpanKind.INTERNAL) as span:
            return Link(span.get_span_context())

    def _until_next(self, monotonic: float, planned: list[_Planned]) -> float:
        """Seconds until there is something to do, unless a delivery ends or a job comes before."""
        moments = [lease[0] for lease in planned[:1]]
        if len(self._held) < self._concurrency:
            moments.append(self._ask_at)
        return min([self._store.poll, *(max(moment - monotonic, 0.0) for moment in moments)])

    def _pause(self, seconds: float) -> None:
        with self._wake:
            if not self._stopping:
                self._wake.wait(seconds)

    def _deliver(self, lease: Lease, link: Link) -> None:
        try:
            if self._stopping:
                self._give_back([lease])
            else:
                self._deliver_now(lease, link)
        except BaseException as error:  # noqa: BLE001  (a SystemExit or a cancellation would end this thread unheard)
            # The job waits until its lease ends; the worker works on.
            _log.error("a delivery of %s broke off: %s", lease.job.operation, type(error).__name__)
        finally:
            with self._wake:
                del self._held[_key(lease)]
                self._wake.notify_all()

    def _deliver_now(self, lease: Lease, link: Link) -> None:
        try:
            ending = self._deliverer.deliver(lease.job, [link], lambda: self._store.begin(lease, self._clock()))
        except LeaseLost:
            # It took too long to get there: it is another worker's.
            return
        job = ending.job
        if self._tell(lambda: self._settle(lease, job)):
            self._note(job)
        if ending.pool_opens_at is not None:
            self._store.hold_pool(lease.job.pool, min(ending.pool_opens_at, self._clock() + LONGEST_HOLD))

    def _settle(self, lease: Lease, job: Job | None) -> bool:
        """Say what becomes of a job. Returns whether that was still this worker's to say."""
        if job is not None:
            return self._store.put_back(lease, job)
        self._store.delivered(lease)
        return True

    def _note(self, job: Job | None) -> None:
        """Count a job that is done with or given up, and tell of the latter."""
        if job is not None and job.stopped is not None:
            _log.warning("%s", given_up_text(job))
        with self._wake:
            self.sent += job is None
            self.given_up += job is not None and job.stopped is not None

    def _tell(self, act: Callable[[], bool]) -> bool:
        """Have the outbox know what became of a job, while its lease lives. Returns whether it may have heard it."""
        for tries_left in reversed(range(_TRIES)):
            try:
                # One whose connection broke may have heard it before: better a word too many than none.
                return act() or tries_left < _TRIES - 1
            except OutboxError as error:
                if not tries_left:
                    raise
                _log.warning("the outbox does not take what became of a job; it is told again: %s", error)
                time.sleep(_TROUBLE_PAUSE)
        return False

    def _give_back(self, leases: list[Lease]) -> None:
        if leases:
            try:
                self._store.release(leases)
            except OutboxError as error:
                _log.warning("%d jobs wait until their lease ends: %s", len(leases), error)

    def _pace(self, pool: str) -> float:
        return pace(self._limit_of(pool_of(pool)))

    def _documented_limit(self, pool: str) -> Limit | None:
        listed = operations_by_name().get(pool)
        return None if listed is None else limit_of(listed, self._engine.settings.pool_limits, None)

    def _make_client(self) -> httpx.Client:
        with self._client_lock:
            if self._own_client is None:
                client = httpx.Client(limits=httpx.Limits(max_connections=None))
                cover_client(client, self._engine)
                self._own_client = client
            return self._own_client


def _key(lease: Lease) -> tuple[str, str]:
    # Not the job alone: of one whose lease ended in the worker's own hands it may have another.
    return lease.job.id, lease.token
