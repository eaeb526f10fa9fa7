"""What this process has found out about pools: limits that Insider named, what calls cost, how quickly it answers."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import PoolKey

logger = logging.getLogger("insider_otel")

_EPOCH = 60.0
"""Seconds after which what was quick before begins to be forgotten: the way to Insider may have become longer for good."""


@dataclass(slots=True)
class _Quickest:
    """How quickly Insider has answered at best, in the present epoch and in the one before; 0 before it is known.

    Attributes:
        since: The moment the present epoch began.
        before: Seconds, in the epoch before.
        now: Seconds, in the present one.
    """

    since: float
    before: float = 0.0
    now: float = math.inf

    def after(self, took: float, moment: float) -> float:
        """The quickest answer, now that one took so long."""
        if moment - self.since > _EPOCH:
            self.since, self.before, self.now = moment, self.now, took
        self.now = min(self.now, took)
        return min(self.before, self.now)


class Experience:
    """What this process has found out about pools. Each entry is one assignment, so that it needs no lock."""

    __slots__ = ("_costs", "_quickest", "_limits")

    def __init__(self) -> None:
        self._limits: dict[PoolKey, Limit] = {}
        self._costs: dict[tuple[PoolKey, str], int] = {}
        self._quickest: dict[PoolKey, _Quickest] = {}

    def limit(self, pool: PoolKey) -> Limit | None:
        """The limit that Insider named; None if it has not."""
        return self._limits.get(pool)

    def learn_limit(self, pool: PoolKey, named: Limit, believed: Limit | None) -> bool:
        """Insider named a limit.

        Args:
            pool: The pool.
            named: The limit.
            believed: The limit that the pool was held to.

        Returns:
            Whether that is news.
        """
        if self._limits.get(pool) == named:
            return False
        self._limits[pool] = named
        logger.warning(
            "Insider names a limit of %s for %s, where %s was believed", named, pool.pool, believed or "none"
        )
        return True

    def cost(self, pool: PoolKey, operation: str) -> int:
        """What a call of an operation is likely to cost: as much as the last one."""
        return self._costs.get((pool, operation), 1)

    def learn_cost(self, pool: PoolKey, operation: str, cost: int) -> None:
        """A call of an operation cost so much."""
        self._costs[pool, operation] = max(cost, 1)

    def late(self, pool: PoolKey, due: float, sent_at: float, answered_at: float) -> float:
        """Seconds after its slot at which a request may have reached Insider at the latest.

        Another request may be as quick as the quickest so far. If this one took longer, it may have arrived as much
        later, and what follows it has to be a whole window after that.

        Args:
            pool: The pool.
            due: The moment of the slot.
            sent_at: The moment it was sent.
            answered_at: The moment of the answer.
        """
        quickest = self._quickest.get(pool)
        if quickest is None:
            quickest = self._quickest[pool] = _Quickest(sent_at)
        return max(answered_at - due - quickest.after(answered_at - sent_at, answered_at), 0.0)
