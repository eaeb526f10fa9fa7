"""A slow and obviously right model of the rolling window: a list of all uses."""

from __future__ import annotations

from collections.abc import Iterable

from insider_otel.api.operations import Limit
from insider_otel.state.expiry import window_end
from insider_otel.state.moments import MomentsInMemory
from insider_otel.state.protocol import MICROSECONDS
from insider_otel.state.window import RollingWindow

FOREVER = 10**18
HOUR = 3600 * MICROSECONDS


def rolling(count: int, window: int) -> Limit:
    """A limit with a window in microseconds."""
    return Limit(count, window / MICROSECONDS)


def new_window() -> RollingWindow:
    return RollingWindow(MomentsInMemory(), [], [], [])


class Model:
    """Every use there ever was, each by itself. A slot is right if no window holds more than the limit allows."""

    def __init__(self) -> None:
        self.uses: list[int] = []

    def fullest(self, limit: Limit, more: Iterable[int] = ()) -> int:
        """The most uses that any window holds; each window ends with some use."""
        uses = sorted([*self.uses, *more])
        return max((sum(u <= end < window_end(u, limit) for u in uses) for end in set(uses)), default=0)

    def earliest(self, limit: Limit, start: int, cost: int) -> int:
        """The earliest moment from ``start`` on at which a use of ``cost`` breaks no window, its own or a later one."""
        moments = {start, *(window_end(use, limit) for use in self.uses)}
        return min(m for m in moments if m >= start and self.fullest(limit, [m] * cost) <= limit.count)

    def behind(self, now: int) -> int:
        """The earliest moment of one who stands in line behind all others: no two wait for the same."""
        last = max(self.uses, default=now)
        return last + 1 if last > now else now

    def reserve(self, limit: Limit, now: int, cost: int, opens: int = 0) -> int:
        """The slot of one who stands in line behind all others."""
        slot = self.earliest(limit, max(self.behind(now), opens), cost)
        self.uses += [slot] * cost
        return slot

    def give_back(self, slot: int, cost: int) -> None:
        for _ in range(cost):
            self.uses.remove(slot)
