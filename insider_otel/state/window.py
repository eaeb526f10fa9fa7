"""The exact rolling window, by reservation: ask, get a slot now or in the future, come back at that moment.

A limit of N in W seconds means that a use comes at least W after the N-th use before it. So the moments of use, in
ascending order, are all there is to know, and the next slot is one look N places back: the same time whatever the
limit, eight bytes for each use.

A slot that is given back stays in its place, marked free: whoever holds a later slot was promised it beside this one.
The next to ask gets it; when nobody waits any more, what is free goes. A slot that was used late is moved to when it
was used, and whoever waited for a slot confirms it on waking, so that what came before was really W ago.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
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

    def before(self, moment: int, /) -> int:
        """How many there are before a moment."""
        ...

    def until(self, moment: int, /) -> int:
        """How many there are until a moment, itself included."""
        ...

    def append(self, moment: int, times: int, /) -> None:
        """Add a moment, which is not before the last, a number of times."""
        ...

    def overwrite(self, index: int, moments: list[int], /) -> None:
        """Put other moments in place of as many from ``index`` on."""
        ...

    def move(self, index: int, number: int, end: int, to: int, /) -> None:
        """Let a number of moments from ``index`` on be one that belongs before ``end``, and the others close up."""
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

    def before(self, moment: int, /) -> int:
        return bisect_left(self._array, moment, self._first) - self._first

    def until(self, moment: int, /) -> int:
        return bisect_right(self._array, moment, self._first) - self._first

    def append(self, moment: int, times: int, /) -> None:
        self._array.extend([moment] * times)

    def overwrite(self, index: int, moments: list[int], /) -> None:
        start = self._first + index
        self._array[start : start + len(moments)] = array("q", moments)

    def move(self, index: int, number: int, end: int, to: int, /) -> None:
        first, last = self._first + index, self._first + end
        self._array[first:last] = self._array[first + number : last] + array("q", [to]) * number

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
        self._revoke(now, not_before)
        self._drop_free(now)
        cost = min(cost, limit.count)
        start = max(now, not_before)
        freed = self._freed(limit, start, cost)
        if freed and len(freed) == cost:
            start = max(start, freed[-1])
        elif self._moments:
            # After all others: who came earlier is served earlier.
            start = max(start, self._moments[-1])
        slot = self._room(limit, start, cost)
        if slot - now > longest_wait:
            return slot, False
        for moment in freed:
            self._take(moment, slot, 1)
        if cost > len(freed):
            self._moments.append(slot, cost - len(freed))
        return slot, True

    def confirm(
        self, limit: Limit, slot: int, now: int, *, cost: int = 1, not_before: int = 0, longest_wait: int = 0
    ) -> tuple[int, bool]:
        """A slot that was waited for is to be used now, if it still holds: what came before it may have been used late.

        Args:
            limit: The limit.
            slot: The slot.
            now: The present moment.
            cost: What was taken for it.
            not_before: The moment from which the pool is open.
            longest_wait: Microseconds. A later slot further away is named, but not taken; the old one is given back.

        Returns:
            The moment of use, which is the present one for a slot that is past, or the later slot in its place; and
            whether it was taken.
        """
        cost = min(cost, limit.count)
        due = max(now, slot)
        is_held = self._count(slot) >= cost
        # Its own place does not stand in its way.
        self._mark_free(slot, cost)
        later = self._room(limit, due, cost)
        # A place is gone if it was forgotten, or if as many as the limit allows have come since.
        if is_held and not_before <= due and later < window_end(slot, limit):
            if later <= max(due, now + longest_wait):
                self._take(slot, later, cost)
                return later, True
            self._trim()
            return later, False
        self._trim()
        return self.reserve(limit, now, cost=cost, not_before=not_before, longest_wait=longest_wait)

    def give_back(self, slot: int, cost: int = 1) -> None:
        """A slot will not be used.

        Args:
            slot: The slot.
            cost: What of it is given back.
        """
        self._mark_free(slot, cost)
        self._trim()

    def correct(self, correction: Correction, now: int) -> None:
        """A slot was used late, or at another cost, or not at all.

        Args:
            correction: What became of the slot.
            now: The present moment: what is told of was used before it.
        """
        if correction.actual and correction.slot > now:
            return  # a moment of another clock: the pool was held by another kind of limit then
        kept = min(correction.actual, correction.cost)
        self.give_back(correction.slot, correction.cost - kept)
        used = min(correction.slot + correction.late, max(now, correction.slot))
        if used > correction.slot and kept:
            if self._count(correction.slot):
                self._move(correction.slot, used, kept)
            else:
                # Its slot is forgotten, but its use may still count.
                self.add((used, kept))
        if correction.actual > correction.cost:
            self.add((used, correction.actual - correction.cost))

    def add(self, *uses: tuple[int, int]) -> None:
        """Count uses that were made without asking.

        Args:
            *uses: Moment and cost of each.
        """
        added = sorted(moment for moment, cost in uses for _ in range(cost))
        if added:
            index = self._moments.before(added[0])
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
        return self._moments.until(now) - bisect_right(self._free, now)

    def is_empty(self, limit: Limit, now: int) -> bool:
        """Whether nothing is used or promised that still counts."""
        self._forget(limit, now)
        return not self._moments

    def uses(self) -> Counter[int]:
        """Every moment that is not forgotten, and what is used at it."""
        return Counter(self._moments[index] for index in range(len(self._moments))) - Counter(self._free)

    def _room(self, limit: Limit, at: int, cost: int) -> int:
        """The moment, ``at`` or later, at which a use fits after all that are not free and not after ``at``."""
        before = self._moments.until(at) - (limit.count - cost) - 1
        until, skipped = bisect_right(self._free, at), 0
        while before >= skipped:
            free = until - bisect_left(self._free, self._moments[before - skipped])
            if free == skipped:
                return max(at, window_end(self._moments[before - skipped], limit))
            skipped = free
        return at

    def _freed(self, limit: Limit, start: int, cost: int) -> list[int]:
        """The earliest slots that were given back and can be used as one; fewer than ``cost`` if there are no more."""
        free = self._free
        if not free:
            return []

        def is_movable(moment: int) -> bool:
            # Else somebody may have been promised a slot on the strength of its distance to this one.
            return self._moments[-1] < window_end(moment, limit)

        movable = bisect_left(free, True, key=is_movable)
        for index in range(min(bisect_left(free, start), movable), len(free) - cost + 1):
            if index >= movable or free[index] == free[index + cost - 1]:
                return free[index : index + cost]
        return free[movable:]

    def _revoke(self, now: int, opens: int) -> None:
        """Free what comes before the pool opens: whoever waits for it will find it closed, and ask anew."""
        if opens <= now:
            return
        first, end = bisect_right(self._free, now), bisect_left(self._free, opens)
        waiting = range(self._moments.until(now), self._moments.before(opens))
        if len(waiting) > end - first:
            self._free[first:end] = [self._moments[index] for index in waiting]
            self._trim()

    def _mark_free(self, slot: int, cost: int) -> None:
        at = bisect_left(self._free, slot)
        self._free[at:at] = [slot] * min(cost, self._count(slot))

    def _take(self, slot: int, to: int, cost: int) -> None:
        """Use at one moment what is free at another, which is not later."""
        at = bisect_left(self._free, slot)
        del self._free[at : at + cost]
        self._move(slot, to, cost)

    def _trim(self) -> None:
        """Drop what is free and comes last: nothing was promised on the strength of it."""
        while self._free and self._free[-1] == self._moments[-1]:
            self._free.pop()
            self._moments.drop_last()

    def _drop_free(self, now: int) -> None:
        """Drop what was given back if nobody waits: nothing was promised beside it."""
        if not self._free or self._moments[-1] > now:
            return
        first = self._moments.before(self._free[0])
        kept = [self._moments[i] for i in range(first, len(self._moments))]
        for moment in reversed(self._free):
            del kept[bisect_left(kept, moment)]
        self._moments.overwrite(first, kept)
        for _ in self._free:
            self._moments.drop_last()
        self._free.clear()

    def _forget(self, limit: Limit, now: int) -> None:
        """Drop what no longer counts."""
        expired = self._moments.until(_last_expired(now, limit))
        if expired:
            del self._free[: bisect_right(self._free, self._moments[expired - 1])]
            self._moments.drop_first(expired)

    def _count(self, moment: int) -> int:
        """How many uses of a moment are neither forgotten nor free."""
        held = self._moments.until(moment) - self._moments.before(moment)
        return held - (bisect_right(self._free, moment) - bisect_left(self._free, moment))

    def _move(self, moment: int, to: int, cost: int) -> None:
        """Let uses of one moment be uses of a later one."""
        held = min(cost, self._count(moment))
        if to > moment and held:
            self._moments.move(self._moments.before(moment), held, self._moments.until(to), to)
