"""What this process has found out about pools: limits that Insider named, what calls cost, how quickly it answers."""

from __future__ import annotations

import logging
import math
import threading
from dataclasses import dataclass, field

from insider_otel.api.operations import Limit
from insider_otel.state.memory import MOST_POOLS
from insider_otel.state.protocol import PoolKey
from insider_otel.state.recent import Recent

_log = logging.getLogger("insider_otel")

_EPOCH = 60.0
"""Seconds. What was quick two epochs ago is forgotten: the way to Insider may have become longer for good."""

_FIRST_ANSWERS = 5.0
"""Seconds from the first answer on in which none is taken to be quick: connections are still being made."""

_MOST_LOGGED = 8
"""Limits of a pool that are logged, each once: Insider may name two of them in turn for ever."""


@dataclass(slots=True)
class _Pool:
    """What was found out about one pool.

    Attributes:
        limit: The limit that Insider named.
        costs: What the last call of each operation cost, where it was not 1.
        logged: The limits that were logged.
        first: The moment of the first answer; None before it.
        epoch: The moment the present epoch began.
        quickest_before: How quickly Insider answered at best in the epoch before, in seconds.
        quickest: The same in the present epoch.
    """

    limit: Limit | None = None
    costs: dict[str, int] = field(default_factory=dict[str, int])
    logged: list[Limit] = field(default_factory=list[Limit])
    first: float | None = None
    epoch: float = 0.0
    quickest_before: float = math.inf
    quickest: float = math.inf


class Experience:
    """What this process has found out about pools. Safe between threads."""

    __slots__ = ("_lock", "_pools")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._pools: Recent[PoolKey, _Pool] = Recent(_Pool, MOST_POOLS)

    def limit(self, pool: PoolKey) -> Limit | None:
        """The limit that Insider named; None if it has not."""
        known = self._pools.peek(pool)
        return None if known is None else known.limit

    def learn_limit(self, pool: PoolKey, named: Limit, believed: Limit | None) -> bool:
        """Insider named a limit.

        Args:
            pool: The pool.
            named: The limit.
            believed: The limit that the pool was held to.

        Returns:
            Whether that is news.
        """
        with self._lock:
            known = self._pools.get(pool, _is_idle)
            is_news = known.limit != named
            known.limit = named
            is_to_log = named not in known.logged and len(known.logged) < _MOST_LOGGED
            if is_to_log:
                known.logged.append(named)
        if is_to_log:
            _log.warning(
                "Insider names a limit of %s for %s, where %s was believed", named, pool.pool, believed or "none"
            )
        return is_news

    def cost(self, pool: PoolKey, operation: str) -> int:
        """What a call of an operation is likely to cost: as much as the last one."""
        known = self._pools.peek(pool)
        return 1 if known is None else known.costs.get(operation, 1)

    def learn_cost(self, pool: PoolKey, operation: str, cost: int) -> None:
        """A call of an operation cost so much."""
        with self._lock:
            self._pools.get(pool, _is_idle).costs[operation] = max(cost, 1)

    def learn_speed(self, pool: PoolKey, took: float, now: float) -> None:
        """Insider answered a request.

        Args:
            pool: The pool.
            took: Seconds from its sending to the answer.
            now: The moment of the answer.
        """
        with self._lock:
            known = self._pools.get(pool, _is_idle)
            if known.first is None:
                known.first = known.epoch = now
            elif now - known.epoch > _EPOCH:
                known.epoch, known.quickest_before, known.quickest = now, known.quickest, took
            known.quickest = min(known.quickest, took)

    def late(self, pool: PoolKey, due: float, now: float) -> float:
        """Seconds after its slot at which a request may have reached Insider at the latest.

        Another request, of another process, may be quicker than this one's quickest: half of that is believed of all.
        What took longer may have arrived as much later, and what follows it has to be a whole window after that.

        Args:
            pool: The pool.
            due: The moment of the slot.
            now: The moment at which it was answered, or given up.
        """
        known = self._pools.peek(pool)
        quickest = 0.0
        if known is not None and known.first is not None and now - known.first >= _FIRST_ANSWERS:
            quickest = min(known.quickest_before, known.quickest) / 2
        return max(now - due - quickest, 0.0)


def _is_idle(known: _Pool) -> bool:
    """Whether what was found out can be found out again at no cost but a little caution."""
    return known.limit is None and not known.costs
