"""The exact rolling window, by reservation: ask, get a slot now or in the future, come back at that moment.

A limit of N in W seconds means that a use comes at least W after the N-th use before it. So the moments of use, in
ascending order, are all there is to know, and the next slot is one look N places back: the same time whatever the
limit, eight bytes for each use.

A slot that is given back stays in its place, marked free: whoever holds a later slot was promised it beside this one.
The next to ask gets it; when nobody waits any more, what is free goes. A slot that was used late is moved to when it
was used, and whoever waited for a slot confirms it on waking, so that what came before was really W ago.

When Insider closes the pool, a place is kept, from the moment it opens on, for each slot that was promised. Its holder
comes back to it on waking; who asks meanwhile stands behind them all. A slot says whose it is: no two who wait have the
same, were it for a microsecond.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import Counter
from collections.abc import Collection
from operator import itemgetter

from insider_otel.api.operations import Limit
from insider_otel.state.expiry import last_expired, line_up, window_end, window_length
from insider_otel.state.moments import Moments
from insider_otel.state.protocol import Correction

_GRAIN = 16
"""A closing that grows by less than this part of what is left of it, or of a window, moves nobody before it must: many
replies tell of it, each a little later."""

_LONGEST_LINE = 500
"""A longer line is not moved for each who slept through its window: that takes a millisecond, and they are many."""


class RollingWindow:
    """The uses of one limit. Not safe between threads: its store sees to that.

    Args:
        moments: The moments of use.
        free: Those of them that were given back, in ascending order.
        gone: The slots of those whom a closing of the pool made wait anew, first come first.
        kept: Those of the moments that are kept for them, one for one, in ascending order.
    """

    __slots__ = ("_free", "_gone", "_kept", "_moments")

    def __init__(self, moments: Moments, free: list[int], gone: list[int], kept: list[int]) -> None:
        self._moments = moments
        self._free = free
        self._gone = gone
        self._kept = kept

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
        cost = min(cost, limit.count)
        self._forget(limit, now)
        moments = self._moments
        room = limit.count - cost - len(moments)
        if room >= 0 and now >= not_before and not (self._free or self._kept) and (not moments or moments[-1] <= now):
            # Nobody waits, and all that is counted leaves room: a seventh less time for most calls.
            moments.extend([now] * cost)
            return now, True
        self._prepare(limit, now, now, not_before)
        return self._grant(limit, now, max(now, not_before), cost, longest_wait)

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
        if slot not in self._gone:
            is_forgotten = slot <= last_expired(now, limit)
            if is_held := not is_forgotten and self._count(slot) >= cost:
                # Its own place does not stand in its way.
                self._mark_free(slot, cost)
                later = self._room(limit, due, cost)
                if not_before <= due and later - due <= window_length(limit) // 2:
                    later = self._to_wait_for(later, now)
                    if later <= max(due, now + longest_wait):
                        self._take(slot, later, cost)
                        return later, True
                    self._trim()
                    return later, False
                self._trim()
            if is_held or (is_forgotten and len(self._moments) - self._moments.until(now) <= _LONGEST_LINE):
                # It finds the pool closed or the limit lowered, or has slept so long that others have come before it or
                # its slot no longer counts: all who wait are moved, so that it keeps its rank.
                self._forget(limit, now)
                self._keep(limit, now, due, max(not_before, due), [slot] * cost)
        self._forget(limit, now)
        self._prepare(limit, now, due, not_before)
        rank, end = self._find(slot, cost)
        if rank < end and not_before > now:
            # Its place may be a little before the pool opens: then the line is moved, as a whole.
            place = self._kept[end - 1]
            if place - now > longest_wait:
                self.give_back(slot, cost)
                return place, False
            self._gone[rank:end] = [place] * (end - rank)
            return place, True
        rank, places = self._leave(slot, cost)
        slot, taken = self._grant(limit, now, max(now, not_before), cost, longest_wait, places)
        if not taken:
            self._move_up(rank, places)
        elif places and slot > now:
            # It stays in line until it is served, and keeps its rank if the pool is closed once more.
            rank = max(rank, bisect_left(self._kept, slot))
            self._gone[rank:rank] = self._kept[rank:rank] = [slot] * cost
        self._trim()
        return slot, taken

    def give_back(self, slot: int, cost: int = 1) -> None:
        """A slot will not be used.

        Args:
            slot: The slot.
            cost: What of it is given back.
        """
        rank, places = self._leave(slot, cost)
        self._move_up(rank, places)
        self._mark_free(slot, cost - len(places))
        self._trim()

    def correct(self, correction: Correction, now: int, limit: Limit | None) -> None:
        """A slot was used late, or at another cost, or not at all.

        Args:
            correction: What became of the slot.
            now: The present moment: what is told of was used before it.
            limit: The limit, by which slots are forgotten; None if it is not known.
        """
        if correction.actual and correction.slot > now:
            return  # a moment of another clock: the pool was held by another kind of limit then
        used = min(correction.slot + correction.late, max(now, correction.slot))
        counted = min(correction.actual, correction.cost)
        is_forgotten = limit is None or correction.slot <= last_expired(now, limit)
        is_gone = correction.slot in self._gone
        if counted < correction.cost:
            held = correction.cost if limit is None else min(correction.cost, limit.count)
            if counted and not (is_forgotten or is_gone) and self._count(correction.slot) < held:
                return  # a part was given back already: this is told once more, by one who had no answer in time
            self.give_back(correction.slot, correction.cost - counted)
        if counted and is_gone:
            # Whoever used it could not ask whether it still holds.
            self.give_back(correction.slot, counted)
            is_forgotten = True
        if counted and not self._move(correction.slot, used, counted):
            if not is_forgotten:
                return  # it was moved: this, too, is told once more
            # Its slot is forgotten, but its use may still count.
            self.add((used, counted))
        if correction.actual > correction.cost:
            self.add((used, correction.actual - correction.cost))

    def add(self, *uses: tuple[int, int]) -> None:
        """Count uses that were made without asking.

        Args:
            *uses: Moment and cost of each.
        """
        added = sorted(moment for moment, cost in uses for _ in range(cost))
        if added:
            later = self._cut(self._moments.before(added[0]))
            self._moments.extend(sorted([*later, *added]))

    def used(self, limit: Limit, now: int) -> int:
        """What is used of the limit in the window that ends now.

        Args:
            limit: The limit.
            now: The present moment.
        """
        self._forget(limit, now)
        return self._moments.until(now) - bisect_right(self._free, now)

    def uses(self) -> Counter[int]:
        """Every moment that is not forgotten, and what is used at it."""
        moments = Counter(self._moments.part(0, len(self._moments)))
        return moments - Counter(self._free) - Counter(self._kept)

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

    def _prepare(self, limit: Limit, now: int, due: int, opens: int) -> None:
        """Keep the places of those who wait for the pool while it is closed, and drop what nobody waits beside."""
        if opens > now:
            self._keep(limit, now, due, opens, [])
        self._drop_free(now)

    def _keep(self, limit: Limit, now: int, due: int, opens: int, first: list[int]) -> None:
        """Keep a place for each who waits, in their order, if somebody waits for a slot before the pool opens.

        Args:
            limit: The limit.
            now: The present moment.
            due: The same or, for one who wakes a little early, the moment for which it does.
            opens: The moment from which the pool is open.
            first: The slot of one who wakes, as often as it costs: it is in no place.
        """
        moments, free, kept = self._moments, self._free, self._kept
        freed, overdue = bisect_right(free, now), bisect_right(kept, now)
        early = opens - min(opens - now, window_length(limit)) // _GRAIN
        is_early = moments.before(early) - moments.until(now) > bisect_left(free, early) - freed
        is_due = kept and kept[0] <= due and kept[0] < opens
        if not is_early and not is_due and not first:
            return

        waiting = Counter(self._cut(moments.until(now))) - Counter(free[freed:]) - Counter(kept[overdue:])
        # A place that is its holder's own slot is one that its holder was told of.
        line = [*zip(kept, self._gone, strict=True), *((slot + 1, slot) for slot in waiting.elements())]
        line.sort(key=itemgetter(0))
        if first:
            # Who was told of a place has asked before it, and stays before it.
            before = (rank for rank, (place, slot) in enumerate(line, 1) if place == slot or slot < first[0])
            rank = max(before, default=0)
            line[rank:rank] = [(max(first[0], line[rank - 1][0] if rank else 0), slot) for slot in first]
        free[:] = sorted([*free[:freed], *kept[:overdue]])
        # What is promised from here on is not promised beside them.
        self._drop_free(now)
        self._gone[:] = [slot for _, slot in line]
        kept[:] = line_up(moments, limit, opens, line)
        moments.extend(kept)

    def _find(self, slot: int, cost: int) -> tuple[int, int]:
        """The rank of who waits with a slot that is gone, and that after it; the same twice if nobody does."""
        if slot not in self._gone:
            return 0, 0
        rank = end = self._gone.index(slot)
        while end < rank + cost and self._gone[end : end + 1] == [slot]:
            end += 1
        return rank, end

    def _leave(self, slot: int, cost: int) -> tuple[int, list[int]]:
        """Take out of the line who waits with a slot that is gone: its rank and its places, now free; none if it is not
        in line.
        """
        rank, end = self._find(slot, cost)
        if rank == end:
            return 0, []
        places = self._kept[rank:end]
        del self._gone[rank:end], self._kept[rank:end]
        self._free[:] = sorted([*self._free, *places])
        return rank, places

    def _move_up(self, rank: int, places: list[int]) -> None:
        """Let those behind one who left for good have its places, one after the other, so that a later one is free.

        A place goes no further than to those who are awake by then: who comes later would find that it has passed.
        """
        if not places:
            return
        gone, cost = self._gone, len(places)
        for place in places:
            self._free.remove(place)
        # A place for one is none for two: it stays before one who costs more, or less.
        while rank < len(gone) and gone[rank] <= places[0] and gone[rank : rank + cost + 1].count(gone[rank]) == cost:
            self._kept[rank : rank + cost], places = places, self._kept[rank : rank + cost]
            rank += cost
        self._free[:] = sorted([*self._free, *places])

    def _grant(
        self, limit: Limit, now: int, start: int, cost: int, longest_wait: int, own: list[int] | None = None
    ) -> tuple[int, bool]:
        """The earliest slot from ``start`` on, made of one's own places, or of free ones if there are enough."""
        freed = own or self._freed(limit, start, cost)
        if freed and len(freed) == cost:
            slot = self._to_wait_for(self._room(limit, max(start, freed[-1]), cost), now)
        else:
            # After all others: who came earlier is served earlier. And no two who wait have the same slot.
            last = self._moments[-1] if self._moments else now
            slot = self._room(limit, max(start, last + (last > now)), cost)
        if slot - now > longest_wait:
            return slot, False
        for moment in freed:
            self._take(moment, slot, 1)
        if cost > len(freed):
            self._moments.extend([slot] * (cost - len(freed)))
        return slot, True

    def _to_wait_for(self, moment: int, now: int) -> int:
        """A moment to come, or the first after it that nobody else waits for: a slot says whose it is."""
        gone: Collection[int] = self._gone
        while moment > now and (moment in gone or self._count(moment, self._free)):
            gone = gone if isinstance(gone, frozenset) else frozenset(gone)
            moment += 1
        return moment

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
            self._moments.drop_last(1)

    def _drop_free(self, now: int) -> None:
        """Drop what was given back if nobody waits: nothing was promised beside it."""
        if not self._free or self._moments[-1] > now:
            return
        held = self._cut(self._moments.before(self._free[0]))
        for moment in reversed(self._free):
            del held[bisect_left(held, moment)]
        self._moments.extend(held)
        self._free.clear()

    def _forget(self, limit: Limit, now: int) -> None:
        """Drop what no longer counts."""
        expired = self._moments.until(last_expired(now, limit))
        if expired:
            last = self._moments[expired - 1]
            del self._free[: bisect_right(self._free, last)]
            unclaimed = bisect_right(self._kept, last)
            del self._gone[:unclaimed], self._kept[:unclaimed]
            self._moments.drop_first(expired)

    def _cut(self, index: int) -> list[int]:
        """Take out the moments from an index on."""
        last = self._moments.part(index, len(self._moments))
        self._moments.drop_last(len(last))
        return last

    def _count(self, moment: int, *but: list[int]) -> int:
        """How many uses of a moment are not forgotten, and not among these: neither free nor kept if none are named."""
        held = self._moments.until(moment) - self._moments.before(moment)
        for others in but or (self._free, self._kept):
            if others:
                held -= bisect_right(others, moment) - bisect_left(others, moment)
        return held

    def _move(self, moment: int, to: int, cost: int) -> int:
        """Let uses of one moment be uses of a later one, or the same; returns how many of them there are."""
        held = min(cost, self._count(moment))
        if to > moment and held:
            self._moments.move(self._moments.before(moment), held, self._moments.until(to), to)
        return held
