"""What a store in trouble could not be told: how calls with a content ended, and that Insider closed a pool."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from insider_otel.api.operations import Limit
from insider_otel.state.memory import MOST_POOLS
from insider_otel.state.protocol import ClaimEnd, ClaimReport, PoolKey, Report
from insider_otel.state.recent import Recent

_MOST_CLAIMS = 10_000
"""Of one pool; beyond them the oldest goes."""

_Claims = dict[bytes, tuple[ClaimReport, float]]
"""How the calls with a content ended, and until when that says something; those told last come last."""


@dataclass(slots=True)
class _Pool:
    """What is to be told of one pool.

    Attributes:
        closed_until: The moment from which it is open.
        learned: The limit that Insider named.
        learned_until: Until when to tell of it; after one of its windows another may have been named to others.
        claims: How calls with a content ended.
    """

    closed_until: float = 0.0
    learned: Limit | None = None
    learned_until: float = 0.0
    claims: _Claims = field(default_factory=_Claims)

    @property
    def is_told(self) -> bool:
        """Whether there is nothing to tell."""
        return not self.claims and not self.closed_until and self.learned is None

    def forget_old(self, now: float) -> None:
        """Forget what is over, and the first of too many claims."""
        if self.closed_until <= now:
            self.closed_until = 0.0
        if self.learned_until <= now:
            self.learned = None
        while self.claims:
            first = next(iter(self.claims))
            if len(self.claims) <= _MOST_CLAIMS and self.claims[first][1] > now:
                break
            del self.claims[first]


class Untold:
    """Reports that did not reach a store. Each ask is preceded by one report, so that no call tells all.

    Safe between threads. To tell a report twice does no harm. But what it says lasts from when it is done: a server
    that was frozen when it was told that a pool is closed keeps it closed for longer than Insider has said.

    Args:
        clock: Returns seconds; only differences matter.
    """

    __slots__ = ("_clock", "_lock", "_pools")

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._pools: Recent[PoolKey, _Pool] = Recent(_Pool, MOST_POOLS)

    def keep(self, report: Report) -> None:
        """Keep a report, all but its corrections: those are the ledger's."""
        now = self._clock()
        with self._lock:
            pool = self._pools.get(report.pool, self._is_idle)
            if report.closed_for is not None:
                pool.closed_until = max(pool.closed_until, now + report.closed_for)
            if report.learned is not None:
                pool.learned, pool.learned_until = report.learned, now + report.learned.window
            if report.claim is not None:
                _keep_claim(pool, report.claim, now)

    def next(self, key: PoolKey, content: bytes | None) -> Report | None:
        """What to tell of a pool now: its closing, its limit, and how one call ended; None if there is nothing.

        Args:
            key: The pool.
            content: The content that is about to be asked for: what is known of it is told first.
        """
        # Mostly a store has missed nothing, and it takes no lock to see that.
        pool = self._pools.peek(key)
        if pool is None or pool.is_told:
            return None
        with self._lock:
            now = self._clock()
            pool.forget_old(now)
            claim: ClaimReport | None = None
            if pool.claims:
                chosen = content if content in pool.claims else next(iter(pool.claims))
                # To the end: asks that are made at once tell of different ones.
                claim, until = pool.claims[chosen] = pool.claims.pop(chosen)
                claim = claim._replace(lasts=until - now) if until > now else None
            closed_for = pool.closed_until - now if pool.closed_until else None
            if claim is None and closed_for is None and pool.learned is None:
                return None
            return Report(key, closed_for=closed_for, learned=pool.learned, claim=claim)

    def told(self, report: Report) -> None:
        """The store knows what ``next`` gave to be told; what was kept since is yet to be."""
        with self._lock:
            pool, now = self._pools.peek(report.pool), self._clock()
            if pool is None:
                return
            if report.closed_for is not None and pool.closed_until <= now + report.closed_for:
                pool.closed_until = 0.0
            if pool.learned == report.learned:
                pool.learned = None
            if report.claim is not None:
                kept, _ = pool.claims.get(report.claim.key, (None, 0.0))
                if kept is not None and (kept.token, kept.end) == (report.claim.token, report.claim.end):
                    del pool.claims[report.claim.key]

    def _is_idle(self, pool: _Pool) -> bool:
        pool.forget_old(self._clock())
        return pool.is_told


def _keep_claim(pool: _Pool, claim: ClaimReport, now: float) -> None:
    # Without the store's own token nothing but a success says anything to it.
    if claim.end is ClaimEnd.DONE or claim.token is not None:
        before, until = pool.claims.get(claim.key, (claim, now))
        # What was sent stays sent, however another call with it ended.
        if claim.end is ClaimEnd.DONE or before.end is not ClaimEnd.DONE or until <= now:
            pool.claims.pop(claim.key, None)
            pool.claims[claim.key] = claim, now + claim.lasts
    pool.forget_old(now)
