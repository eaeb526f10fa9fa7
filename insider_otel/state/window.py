"""The exact rolling window, by reservation: ask, get a slot now or in the future, come back at that moment.

A limit of N in W seconds means that a use comes at least W after the N-th use before it. So the moments of use, in
ascending order, are all there is to know, and the next slot is one look N places back: constant time whatever the limit,
eight bytes for each use.

A slot that is given back stays in its place, marked free: whoever holds a later slot was promised it beside this one. The
next to ask gets it. A slot that was used late is moved to when it was used, and whoever waited for a slot confirms it on
waking, so that what came before was really W ago.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right, insort
from collections import Counter
from typing import Protocol

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import MICROSECONDS, Correction

DAY = 86_400 * MICROSECONDS

MIDNIGHT_GUARD = 2 * MICROSECONDS
"""Added to the end of a calendar day: Insider's clock may be a little behind ours."""


def window_end(moment: int, limit: Limit) -> int:
    """When a use no longer counts.

    Args:
        moment: The moment of use; since 1970 if the limit is one of calendar days.
        limit: The limit.
    """
    if limit.calendar:
        return (moment // DAY + 1) * DAY + MIDNIGHT_GUARD
    return moment + round(limit.window * MICROSECONDS)


def _last_expired(now: int, limit: Limit) -> int:
    """The latest moment whose use no longer counts."""
    if limit.calendar:
        return (now - MIDNIGHT_GUARD) // DAY * DAY - 1
    return now - round(limit.window * MICROSECONDS)


class Moments(Protocol):
    """Moments in ascending order, wherever they are kept."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> int: ...

    def append(self, moment: int, times: int, /) -> None:
        """Add a moment, which is not before the last, a number of times."""
        ...

    def overwrite(self, index: int, moments: list[int], /) -> None:
        """Put other moments in place of as many from ``index`` on."""
        ...

    def drop_first(self, number: int, /) -> None: ...

    def drop_last(self) -> None: ...


class MomentsInMemory:
    """Moments in one array: eight bytes each."""

    __slots__ = ("_array", "_first")

    def __init__(self) -> None:
        self._array = array("q")
        self._first = 0

    def __len__(self) -> int:
        return len(self._array) - self._first

    def __getitem__(self, index: int, /) -> int:
        return self._array[index if index < 0 else self._first + index]

    def append(self, moment: int, times: int, /) -> None:
        self._array.extend([moment] * times)

    def overwrite(self, index: int, moments: list[int], /) -> None:
        start = self._first + index
        self._array[start : start + len(moments)] = array("q", moments)

    def drop_first(self, number: int, /) -> None:
        self._first += number
        # Moving the rest to the front once for as many as were dropped costs each of them one step.
        if self._first * 2 > len(self._array):
            del self._array[: self._first]
            self._first = 0

    def drop_last(self) -> None:
        self._array.pop()


class RollingWindow:
    """The uses of one limit. Not safe between threads: its store sees to that.

    Args:
        moments: The moments of use.
        free: Those of them that were given back, in ascending order.
    """

    __slots__ = ("_free", "_moments")

    def __init__(self, moments: Moments, free: list[int]) -> None:
        self._moments = moments
        self._free = free

    def reserve(
        self, limit: Limit, now: int, *, cost: int = 1, not_before: int = 0, longest_wait: int = 0
    ) -> tuple[int, bool]:
        """The earliest slot that is left.

        Args:
            limit: The limit.
            now: The present moment.
            cost: What the use takes of the limit; more than the limit counts as all of it.
            not_before: The moment from which the pool is open.
            longest_wait: Microseconds. A slot further away is named, but not taken.

        Returns:
            The slot, and whether it was taken.
        """
        self._forget(limit, now)
        cost = min(cost, limit.count)
        start = max(now, not_before)
        freed = self._freed_slot(limit, now, start, cost)
        slot = self._next_slot(limit, start, cost) if freed is None else max(freed, start)
        if slot - now > longest_wait:
            return slot, False
        if freed is None:
            self._moments.append(slot, cost)
        else:
            first = bisect_left(self._free, freed)
            del self._free[first : first + cost]
            self._move(freed, slot, cost)
        return slot, True

    def confirm(
        self, limit: Limit, slot: int, now: int, *, cost: int = 1, not_before: int = 0, longest_wait: int = 0
    ) -> tuple[int, bool]:
        """Whether a slot that was waited for still holds: what came before it may have been used late.

        Args:
            limit: The limit.
            slot: The slot.
            now: The present moment.
            cost: What was taken for it.
            not_before: The moment from which the pool is open.
            longest_wait: Microseconds. A later slot further away is named, but not taken; the old one is given back.

        Returns:
            The slot, or the later one in its place, and whether it was taken.
        """
        cost = min(cost, limit.count)
        now = max(now, slot)
        if not_before > now:
            self.give_back(slot, cost)
            return self.reserve(limit, now, cost=cost, not_before=not_before, longest_wait=longest_wait)
        before = bisect_right(self._moments, now) - limit.count - 1
        later = window_end(self._moments[before], limit) if before >= 0 else now
        if later <= now:
            return slot, True
        if later - now > longest_wait:
            self.give_back(slot, cost)
            return later, False
        self._move(slot, later, cost)
        return later, True

    def give_back(self, slot: int, cost: int = 1) -> None:
        """A slot will not be used.

        Args:
            slot: The slot.
            cost: What of it is given back.
        """
        for _ in range(min(cost, self._count(slot))):
            insort(self._free, slot)
        # Nothing was promised on the strength of what comes last.
        while self._free and self._free[-1] == self._moments[-1]:
            self._free.pop()
            self._moments.drop_last()

    def correct(self, correction: Correction) -> None:
        """A slot was used late, or at another cost, or not at all."""
        kept = min(correction.actual, correction.cost)
        self.give_back(correction.slot, correction.cost - kept)
        used = correction.slot + correction.late
        if correction.late and kept:
            self._move(correction.slot, used, kept)
        if correction.actual > correction.cost:
            self.add((used, correction.actual - correction.cost))

    def add(self, *uses: tuple[int, int]) -> None:
        """Count uses that were made without asking.

        Args:
            *uses: Moment and cost of each.
        """
        added = sorted(moment for moment, cost in uses for _ in range(cost))
        if added:
            index = bisect_left(self._moments, added[0])
            merged = sorted([*(self._moments[i] for i in range(index, len(self._moments))), *added])
            self._moments.append(merged[-1], len(added))
            self._moments.overwrite(index, merged)

    def used(self, limit: Limit, now: int) -> int:
        """What is used of the limit in the window that ends now.

        Args:
            limit: The limit.
            now: The present moment.
        """
        self._forget(limit, now)
        return bisect_right(self._moments, now) - bisect_right(self._free, now)

    def uses(self) -> Counter[int]:
        """Every moment that is not forgotten, and what is used at it."""
        return Counter(self._moments[index] for index in range(len(self._moments))) - Counter(self._free)

    def _next_slot(self, limit: Limit, start: int, cost: int) -> int:
        """A slot after all others: who came earlier is served earlier."""
        slot = max(start, self._moments[-1]) if self._moments else start
        before = len(self._moments) - (limit.count - cost) - 1
        return max(slot, window_end(self._moments[before], limit)) if before >= 0 else slot

    def _freed_slot(self, limit: Limit, now: int, start: int, cost: int) -> int | None:
        """The earliest slot that was given back and can be used at its moment, or at ``start`` if that is past."""
        free = self._free
        # One whose moment is past can be used later only if nobody was promised a slot at its distance.
        while free and free[0] < now and self._moments[-1] >= window_end(free[0], limit):
            free.pop(0)
        for index, moment in enumerate(free):
            usable = moment >= start or self._moments[-1] < window_end(moment, limit)
            if usable and free[index : index + cost].count(moment) == cost:
                return moment
        return None

    def _forget(self, limit: Limit, now: int) -> None:
        """Drop what no longer counts."""
        expired = bisect_right(self._moments, _last_expired(now, limit))
        if expired:
            del self._free[: bisect_right(self._free, self._moments[expired - 1])]
            self._moments.drop_first(expired)

    def _count(self, moment: int) -> int:
        """How many uses of a moment are neither forgotten nor free."""
        held = bisect_right(self._moments, moment) - bisect_left(self._moments, moment)
        return held - (bisect_right(self._free, moment) - bisect_left(self._free, moment))

    def _move(self, moment: int, to: int, cost: int) -> None:
        """Let uses of one moment be uses of a later one."""
        first = bisect_left(self._moments, moment)
        held = min(cost, bisect_right(self._moments, moment) - first)
        after = bisect_right(self._moments, to)
        if to > moment and held:
            passed = [self._moments[i] for i in range(first + held, after)]
            self._moments.overwrite(first, [*passed, *[to] * held])
