"""Limits and claims in the memory of one process."""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable
from typing import Any

from insider_otel.api.operations import Limit
from insider_otel.state import rules
from insider_otel.state.claims import MOST_CLAIMS, MemoryClaims
from insider_otel.state.expiry import window_end
from insider_otel.state.moments import MomentsInMemory
from insider_otel.state.protocol import MICROSECONDS, Admit, Correction, ListPools, PoolKey, Report, Request
from insider_otel.state.recent import Recent
from insider_otel.state.window import RollingWindow

MOST_POOLS = 10_000
"""Pools, times credentials, that are kept; beyond them the one asked for longest ago goes."""


class _Pool:
    """What is known of one pool.

    Attributes:
        longest: The limit with the longest window, of those it was held to since it forgot its uses.
    """

    __slots__ = ("calendar_clock", "closed_until", "free", "learned", "limit", "longest", "moments", "window")

    def __init__(self) -> None:
        self.limit: Limit | None = None
        self.calendar_clock = 0
        self.learned: Limit | None = None
        self.closed_until = 0
        self.forget_uses()

    def forget_uses(self) -> None:
        """Let go of all moments."""
        self.moments = MomentsInMemory()
        self.free: list[int] = []
        self.window = RollingWindow(self.moments, self.free, gone=[], kept=[])
        self.longest: Limit | None = None

    def count_by(self, limit: Limit) -> None:
        """Keep the uses for as long as this limit counts them, if no other does for longer."""
        if self.longest is None or limit.window > self.longest.window:
            self.longest = limit

    def is_idle(self, now: int, wall: int) -> bool:
        """Whether a new one would say the same."""
        if self.learned is not None or self.closed_until > now:
            return False
        if not self.moments or self.longest is None:
            return True
        return window_end(self.moments[-1], self.longest) <= (
            max(self.calendar_clock, wall) if self.calendar_clock else now
        )


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
            now, wall = self._now(), self._wall_now()
            match request:
                case Admit():
                    pool = self._pool(request.pool)
                    admission = rules.admit(pool, self._claims, request, now, wall)
                    if request.limit is not None:
                        pool.count_by(request.limit)
                    return admission
                case Report():
                    return rules.report(self._pool(request.pool), self._claims, request, now, wall)
                case ListPools():
                    return tuple(rules.use_of(pool, key, 1, now, wall) for key, pool in self._pools.items())

    async def perform_async(self, request: Request) -> Any:
        """``perform``: it does not hold up the event loop."""
        return self.perform(request)

    def close(self) -> None:
        """There is nothing to let go of."""

    def now(self, limit: Limit) -> int:
        """The present moment, by the clock that the windows of a limit go by."""
        return self._wall_now() if limit.calendar else self._now()

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
            rules.hold(held, limit)
            held.count_by(limit)
            held.window.used(limit, now)  # forgets what no longer counts
            held.window.add((moment, cost))
        return moment

    def correct(self, pool: PoolKey, correction: Correction) -> None:
        """What became of a slot: a ``Report`` of nothing else, without making one."""
        with self._lock:
            held = self._pool(pool)
            now = rules.window_now(held, self._now(), self._wall_now())
            held.window.correct(correction, now, held.limit)

    def closed_for(self, pool: PoolKey) -> float:
        """Seconds until a pool that Insider closed is open again; 0 if it is open."""
        with self._lock:
            return max(self._pool(pool).closed_until - self._now(), 0) / MICROSECONDS

    def uses(self, pool: PoolKey) -> Counter[int]:
        """The uses of a pool's limit that still count, by their moment."""
        with self._lock:
            return self._pool(pool).window.uses()

    def _pool(self, key: PoolKey) -> _Pool:
        return self._pools.get(key, self._is_idle)

    def _is_idle(self, pool: _Pool) -> bool:
        return pool.is_idle(self._now(), self._wall_now())

    def _now(self) -> int:
        return round(self._clock() * MICROSECONDS)

    def _wall_now(self) -> int:
        return round(self._wall_clock() * MICROSECONDS)
