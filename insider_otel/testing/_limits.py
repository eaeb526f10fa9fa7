"""Insider's side of the rate limits: exact windows, by pool and credentials."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from itertools import accumulate

from insider_otel.api.operations import Limit

DAY = 86_400.0


@dataclass(slots=True)
class Windows:
    """What was used of every limit, and when."""

    _used: dict[tuple[str, str], deque[tuple[float, float]]] = field(
        default_factory=dict[tuple[str, str], deque[tuple[float, float]]]
    )

    def used(self, pool: str, credentials: str, limit: Limit, now: float) -> float:
        """Requests, or quota units, used in the present window.

        Args:
            pool: Name of the pool.
            credentials: Whose limit it is.
            limit: The limit.
            now: The present moment, in seconds.
        """
        entries = self._used.get((pool, credentials))
        if not entries:
            return 0.0
        start = now // DAY * DAY if limit.calendar else now - limit.window
        # A request leaves a rolling window at the moment it is as old as the window is long.
        while entries and (entries[0][0] < start or (not limit.calendar and entries[0][0] == start)):
            entries.popleft()
        return sum(cost for _, cost in entries) if limit.unit == "quota" else float(len(entries))

    def wait(self, pool: str, credentials: str, limit: Limit, now: float) -> float | None:
        """Seconds until one more is allowed; None if it is allowed now.

        Args:
            pool: Name of the pool.
            credentials: Whose limit it is.
            limit: The limit.
            now: The present moment, in seconds.
        """
        excess = self.used(pool, credentials, limit, now) - limit.count
        if excess < 0:
            return None
        if limit.calendar:
            return DAY - now % DAY
        entries = self._used[pool, credentials]
        freed = accumulate(cost if limit.unit == "quota" else 1.0 for _, cost in entries)
        leaves = next(moment for (moment, _), so_far in zip(entries, freed, strict=True) if so_far > excess)
        return leaves + limit.window - now

    def use(self, pool: str, credentials: str, now: float, cost: float) -> None:
        """Count one request.

        Args:
            pool: Name of the pool.
            credentials: Whose limit it is.
            now: The present moment, in seconds.
            cost: Its quota units.
        """
        self._used.setdefault((pool, credentials), deque()).append((now, cost))
