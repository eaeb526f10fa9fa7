"""Limits and claims in the memory of one process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from insider_otel.api.operations import Limit
from insider_otel.state.claims import MOST_CLAIMS, MemoryClaims
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Correction,
    ListPools,
    PoolKey,
    PoolUse,
    Report,
    Request,
)
from insider_otel.state.recent import Recent
from insider_otel.state.window import MomentsInMemory, RollingWindow

MOST_POOLS = 10_000
"""Pools, times credentials, that are kept; beyond them the one asked for longest ago goes."""


class _Pool:
    """What is known of one pool."""

    __slots__ = ("closed_until", "is_by_calendar", "learned", "limit", "window")

    def __init__(self) -> None:
        self.window = RollingWindow(MomentsInMemory(), [])
        self.closed_until = 0
        self.limit: Limit | None = None
        self.learned: Limit | None = None
        self.is_by_calendar = False

    def hold(self, limit: Limit | None) -> None:
        """Hold the pool to a limit from now on."""
        self.limit = limit
        if limit is not None and limit.calendar is not self.is_by_calendar:
            # Moments of one clock say nothing on the other.
            self.is_by_calendar = limit.calendar
            self.window = RollingWindow(MomentsInMemory(), [])


class MemoryStore:
    """Limits and claims of one process. Safe between threads, event loops and greenlets; bound to none of them.

    Args:
        clock: Returns seconds; only differences matter.
        wall_clock: Returns seconds since 1970, by which calendar days are told.
        most_claims: How many claims are kept.
    """

    name = "memory"
    address = "memory://"

    __slots__ = ("_claims", "_clock", "_lock", "_most_claims", "_pools", "_wall_clock")

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        *,
        most_claims: int = MOST_CLAIMS,
    ) -> None:
        self._clock = clock
        self._wall_clock = wall_clock
        self._most_claims = most_claims
        self.forget()

    def forget(self) -> None:
        """Start anew. A forked child must: what its parent has reserved and promised is not the child's."""
        self._lock = threading.Lock()
        self._pools: Recent[PoolKey, _Pool] = Recent(_Pool, MOST_POOLS)
        self._claims = MemoryClaims(self._most_claims)

    def perform(self, request: Request) -> Any:
        """Do what is asked; nothing here blocks."""
        with self._lock:
            match request:
                case Admit():
                    return self._admit(request)
                case Report():
                    return self._report(request)
                case ListPools():
                    return tuple(self._use(key, pool) for key, pool in self._pools.items())

    async def perform_async(self, request: Request) -> Any:
        """``perform``: it does not hold up the event loop."""
        return self.perform(request)

    def close(self) -> None:
        """There is nothing to let go of."""

    def now(self, limit: Limit) -> int:
        """The present moment, by the clock that the windows of a limit go by."""
        return self._window_now(limit, self._now())

    def note(self, pool: PoolKey, limit: Limit, wait: float, cost: int) -> int:
        """Count a use that another store granted.

        Args:
            pool: The pool.
            limit: Its limit.
            wait: Seconds until the use.
            cost: What it takes of the limit.

        Returns:
            Its moment.
        """
        now = self.now(limit)
        moment = now + round(wait * MICROSECONDS)
        with self._lock:
            held = self._pool(pool)
            held.hold(limit)
            held.window.used(limit, now)  # forgets what no longer counts
            held.window.add((moment, cost))
        return moment

    def uses(self, pool: PoolKey) -> Counter[int]:
        """The uses of a pool's limit that still count, by their moment."""
        with self._lock:
            return self._pool(pool).window.uses()

    def _admit(self, ask: Admit) -> Admission:
        now = self._now()
        claim, age, token = None, 0.0, None
        if ask.claim is not None:
            claim, age, token = self._claims.ask(ask.claim, now)
        pool = self._pool(ask.pool)
        admission = self._slot(pool, ask, now, takes=claim is not ClaimState.DONE)
        if admission.slot is None and ask.claim is not None and token is not None and ask.claim.token is None:
            self._claims.report(ClaimReport(ask.claim.key, token, ClaimEnd.RELEASE), now)
            return admission
        if ask.claim is None:
            return admission
        return replace(admission, claim=claim, claim_age=age, token=token)

    def _slot(self, pool: _Pool, ask: Admit, steady: int, *, takes: bool) -> Admission:
        closed_for = max(pool.closed_until - steady, 0)
        longest = round(ask.longest_wait * MICROSECONDS)
        limit = ask.limit
        pool.hold(limit)
        if limit is None:
            if not takes:
                return Admission(learned=pool.learned)
            fits = closed_for <= longest
            return Admission(
                wait=closed_for / MICROSECONDS,
                slot=steady + closed_for if fits else None,
                closed=closed_for > 0,
                learned=pool.learned,
            )
        now = self._window_now(limit, steady)
        self._correct(pool, ask.corrections)
        pool.window.add(*((now - use.age, use.cost) for use in ask.past))
        if not takes:
            return Admission(used=pool.window.used(limit, now), learned=pool.learned)
        opens = now + closed_for
        if ask.holding is None:
            slot, taken = pool.window.reserve(limit, now, cost=ask.cost, not_before=opens, longest_wait=longest)
        else:
            slot, taken = pool.window.confirm(
                limit, ask.holding, now, cost=ask.cost, not_before=opens, longest_wait=longest
            )
        return Admission(
            wait=max(slot - now, 0) / MICROSECONDS,
            slot=slot if taken else None,
            closed=closed_for > 0,
            used=pool.window.used(limit, now),
            learned=pool.learned,
        )

    def _report(self, report: Report) -> None:
        now = self._now()
        pool = self._pool(report.pool)
        self._correct(pool, report.corrections)
        if report.closed_for is not None:
            pool.closed_until = max(pool.closed_until, now + round(report.closed_for * MICROSECONDS))
        if report.learned is not None:
            pool.learned = report.learned
        if report.claim is not None:
            self._claims.report(report.claim, now)

    def _correct(self, pool: _Pool, corrections: tuple[Correction, ...]) -> None:
        now = self._wall_now() if pool.is_by_calendar else self._now()
        for correction in corrections:
            pool.window.correct(correction, now)

    def _use(self, key: PoolKey, pool: _Pool) -> PoolUse:
        now = self._now()
        used = 0 if pool.limit is None else pool.window.used(pool.limit, self._window_now(pool.limit, now))
        closed_for = max(pool.closed_until - now, 0) / MICROSECONDS
        return PoolUse(key, pool.limit, used, closed_for, 1, pool.learned)

    def _pool(self, key: PoolKey) -> _Pool:
        return self._pools.get(key, self._is_idle)

    def _is_idle(self, pool: _Pool) -> bool:
        now = self._now()
        if pool.learned is not None or pool.closed_until > now:
            return False
        return pool.limit is None or pool.window.is_empty(pool.limit, self._window_now(pool.limit, now))

    def _now(self) -> int:
        return round(self._clock() * MICROSECONDS)

    def _window_now(self, limit: Limit, steady: int) -> int:
        return self._wall_now() if limit.calendar else steady

    def _wall_now(self) -> int:
        return round(self._wall_clock() * MICROSECONDS)
