"""The rolling window, against a slow and obviously right model of it: a list of all uses."""

from __future__ import annotations

import math
import sys
import tracemalloc
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import MICROSECONDS, Correction
from insider_otel.state.window import DAY, MIDNIGHT_GUARD, Moments, MomentsInMemory, RollingWindow, window_end

FOREVER = 10**18
HOUR = 3600 * MICROSECONDS


def rolling(count: int, window: int) -> Limit:
    """A limit with a window in microseconds."""
    return Limit(count, window / MICROSECONDS)


def new_window() -> RollingWindow:
    return RollingWindow(MomentsInMemory(), [])


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

    def reserve(self, limit: Limit, start: int, cost: int) -> int:
        """The slot of one who stands in line behind all others."""
        slot = self.earliest(limit, max(start, *self.uses, start), cost)
        self.uses += [slot] * cost
        return slot

    def give_back(self, slot: int, cost: int) -> None:
        for _ in range(cost):
            self.uses.remove(slot)


LIMITS = st.builds(rolling, st.integers(1, 5), st.integers(2, 20))
DAYS = st.builds(Limit, st.integers(1, 4), st.just(86_400.0), st.just(True))
GAPS = st.integers(0, 8)
COSTS = st.sampled_from([1, 1, 2, 3])
LONG_GAPS = st.integers(0, 30 * HOUR)


@dataclass(frozen=True)
class Ask:
    """One who asks for a slot, some time after the one before."""

    gap: int
    cost: int
    longest_wait: int


def asks(gaps: st.SearchStrategy[int]) -> st.SearchStrategy[list[Ask]]:
    patience = st.one_of(st.just(FOREVER), gaps)
    return st.lists(st.builds(Ask, gaps, COSTS, patience), max_size=30)


# ------------------------------------------------------------------------------------------ where nothing is given back


def assert_slots_are_the_models(limit: Limit, line: list[Ask]) -> None:
    window, model, now = new_window(), Model(), 20_000 * DAY
    for ask in line:
        now += ask.gap
        cost = min(ask.cost, limit.count)
        slot, taken = window.reserve(limit, now, cost=ask.cost, longest_wait=ask.longest_wait)
        right = model.reserve(limit, now, cost)
        assert (slot, taken) == (right, right - now <= ask.longest_wait)
        if not taken:
            model.give_back(right, cost)


@given(LIMITS, asks(GAPS))
def test_a_slot_is_the_earliest_that_breaks_no_window_first_come_first_served(limit: Limit, line: list[Ask]) -> None:
    assert_slots_are_the_models(limit, line)


@given(DAYS, asks(LONG_GAPS))
def test_a_slot_of_a_calendar_day_is_the_earliest_that_breaks_no_day(limit: Limit, line: list[Ask]) -> None:
    assert_slots_are_the_models(limit, line)


@given(LIMITS, asks(GAPS))
def test_whoever_comes_first_is_served_first(limit: Limit, line: list[Ask]) -> None:
    window, now, slots = new_window(), 0, []
    for ask in line:
        now += ask.gap
        slots.append(window.reserve(limit, now, cost=ask.cost, longest_wait=FOREVER)[0])
    assert slots == sorted(slots)


@given(LIMITS, st.integers(0, 50), st.integers(1, 50))
def test_a_closed_pool_has_no_slot_before_it_opens_and_the_full_limit_then(limit: Limit, now: int, closed: int) -> None:
    window = new_window()
    opens = now + closed
    slots = [window.reserve(limit, now, not_before=opens, longest_wait=FOREVER)[0] for _ in range(limit.count + 1)]
    assert slots == [opens] * limit.count + [window_end(opens, limit)]


def test_a_calendar_day_ends_a_little_after_midnight() -> None:
    limit, evening = Limit(1, 86_400.0, calendar=True), 3 * DAY - HOUR
    window = new_window()
    assert window.reserve(limit, evening) == (evening, True)
    assert window.reserve(limit, evening) == (3 * DAY + MIDNIGHT_GUARD, False)
    assert window.reserve(limit, 3 * DAY + MIDNIGHT_GUARD - 1)[1] is False
    assert window.reserve(limit, 3 * DAY + MIDNIGHT_GUARD)[1] is True


def test_a_use_that_costs_more_than_the_limit_takes_all_of_it() -> None:
    window, limit = new_window(), rolling(3, 10)
    assert window.reserve(limit, 0, cost=7) == (0, True)
    assert window.reserve(limit, 0) == (10, False)


def test_a_slot_that_is_too_far_away_is_named_and_not_taken() -> None:
    window, limit = new_window(), rolling(1, 10)
    window.reserve(limit, 0)
    assert [window.reserve(limit, 1, longest_wait=8) for _ in range(3)] == [(10, False)] * 3
    assert window.reserve(limit, 1, longest_wait=9) == (10, True)


@given(LIMITS, LIMITS, asks(GAPS))
def test_a_changed_limit_holds_for_all_that_is_remembered(before: Limit, after: Limit, line: list[Ask]) -> None:
    window, model, now = new_window(), Model(), 0
    for ask in line:
        now += ask.gap
        slot, _ = window.reserve(before, now, cost=ask.cost, longest_wait=FOREVER)
        model.uses += [slot] * min(ask.cost, before.count)
    # What the old limit had no use for any more is forgotten.
    model.uses = [use for use in model.uses if window_end(use, before) > now]
    last = max(model.uses, default=now)
    slot, _ = window.reserve(after, now, longest_wait=FOREVER)
    behind = [use for use in model.uses if use <= slot < window_end(use, after)]
    assert slot >= last
    assert len(behind) < after.count
    assert slot == last or any(window_end(use, after) == slot for use in model.uses)


# ------------------------------------------------------------------------------------------- where slots are given back


@dataclass
class Waiter:
    slot: int
    cost: int


class Queue(RuleBasedStateMachine):
    """Callers who ask, wait, and go: everybody is punctual, so that every promise can be kept to the microsecond."""

    @initialize(limit=st.one_of(LIMITS, DAYS))
    def start(self, limit: Limit) -> None:
        self.limit = limit
        self.unit = HOUR if limit.calendar else 1
        self.now = 20_000 * DAY
        self.window = new_window()
        self.model = Model()
        self.waiting: list[Waiter] = []

    def confirm(self, waiter: Waiter) -> tuple[int, bool]:
        self.waiting.remove(waiter)
        return self.window.confirm(self.limit, waiter.slot, self.now, cost=waiter.cost)

    @rule(gap=GAPS)
    def time_passes(self, gap: int) -> None:
        until = self.now + gap * self.unit
        for waiter in sorted(self.waiting, key=lambda waiter: waiter.slot):
            if waiter.slot <= until:
                self.now = waiter.slot
                assert self.confirm(waiter) == (waiter.slot, True)
        self.now = until

    @rule(cost=COSTS, patience=st.one_of(st.just(FOREVER), GAPS))
    def ask(self, cost: int, patience: int) -> None:
        cost = min(cost, self.limit.count)
        first = self.model.earliest(self.limit, self.now, cost)
        in_line = self.model.earliest(self.limit, max(self.now, *self.model.uses, self.now), cost)
        slot, taken = self.window.reserve(self.limit, self.now, cost=cost, longest_wait=patience * self.unit)
        # What was given back stands in nobody's way, ...
        assert first <= slot <= in_line
        if not self.waiting:
            # ... and unless somebody waits it is as if it had never been asked for.
            assert slot == first
        assert taken == (slot - self.now <= patience * self.unit)
        if taken:
            self.model.uses += [slot] * cost
            if slot > self.now:
                self.waiting.append(Waiter(slot, cost))

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.waiting:
            waiter = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
            self.window.give_back(waiter.slot, waiter.cost)
            self.model.give_back(waiter.slot, waiter.cost)

    @rule(data=st.data())
    def cancel_and_ask_again(self, data: st.DataObject) -> None:
        """A slot that was given back is the next one's, unless that finds an earlier one."""
        if self.waiting:
            waiter = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
            self.window.give_back(waiter.slot, waiter.cost)
            slot, taken = self.window.reserve(self.limit, self.now, cost=waiter.cost, longest_wait=FOREVER)
            assert taken
            assert slot <= waiter.slot
            self.model.give_back(waiter.slot, waiter.cost)
            self.model.uses += [slot] * waiter.cost
            if slot > self.now:
                self.waiting.append(Waiter(slot, waiter.cost))

    @rule(data=st.data())
    def turn_out_unused(self, data: st.DataObject) -> None:
        """A use that Insider did not count."""
        if used := [use for use in self.model.uses if use <= self.now < window_end(use, self.limit)]:
            slot = data.draw(st.sampled_from(used))
            self.window.correct(Correction(slot, 1, 0), self.now)
            self.model.give_back(slot, 1)

    @invariant()
    def no_window_is_too_full(self) -> None:
        assert self.model.fullest(self.limit) <= self.limit.count

    @invariant()
    def used_is_what_the_window_that_ends_now_holds(self) -> None:
        uses = [use for use in self.model.uses if use <= self.now < window_end(use, self.limit)]
        assert self.window.used(self.limit, self.now) == len(uses)


class Crowd(RuleBasedStateMachine):
    """Callers who oversleep, dawdle, lose patience, and find the pool closed: the limit holds all the same."""

    @initialize(limit=st.one_of(LIMITS, DAYS))
    def start(self, limit: Limit) -> None:
        self.limit = limit
        self.unit = HOUR if limit.calendar else 1
        self.now = 20_000 * DAY
        self.opens = 0
        self.window = new_window()
        self.sent = Model()
        self.waiting: list[Waiter] = []
        self.sending: list[Waiter] = []

    def answer(self, slot: int, cost: int, taken: bool, dawdles: bool) -> None:
        if taken and slot <= self.now:
            assert slot == self.now
            assert self.now >= self.opens
            if dawdles:
                self.sending.append(Waiter(slot, cost))
            else:
                self.sent.uses += [slot] * cost
        elif taken:
            self.waiting.append(Waiter(slot, cost))

    @rule(gap=GAPS)
    def time_passes(self, gap: int) -> None:
        self.now += gap * self.unit

    @rule(cost=COSTS, patience=st.one_of(st.just(FOREVER), GAPS), dawdles=st.booleans())
    def ask(self, cost: int, patience: int, dawdles: bool) -> None:
        cost = min(cost, self.limit.count)
        patience *= self.unit
        answer = self.window.reserve(self.limit, self.now, cost=cost, not_before=self.opens, longest_wait=patience)
        self.answer(answer[0], cost, answer[1], dawdles)

    @rule(data=st.data(), patience=st.one_of(st.just(FOREVER), GAPS), dawdles=st.booleans())
    def wake(self, data: st.DataObject, patience: int, dawdles: bool) -> None:
        """Too early or too late, and in any order."""
        if self.waiting:
            waiter = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
            slot, taken = self.window.confirm(
                self.limit,
                waiter.slot,
                self.now,
                cost=waiter.cost,
                not_before=self.opens,
                longest_wait=patience * self.unit,
            )
            self.answer(slot, waiter.cost, taken, dawdles)

    @rule(data=st.data())
    def send(self, data: st.DataObject) -> None:
        """What dawdled is sent, and said to be late; or, if that took longer than the window, never sent."""
        if self.sending:
            sender = self.sending.pop(data.draw(st.integers(0, len(self.sending) - 1)))
            is_in_time = self.now < window_end(sender.slot, self.limit)
            actual = data.draw(st.integers(0, sender.cost)) if is_in_time else 0
            self.window.correct(Correction(sender.slot, sender.cost, actual, self.now - sender.slot), self.now)
            self.sent.uses += [self.now] * actual

    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        if self.waiting:
            waiter = self.waiting.pop(data.draw(st.integers(0, len(self.waiting) - 1)))
            self.window.give_back(waiter.slot, waiter.cost)

    @rule(gap=GAPS)
    def close(self, gap: int) -> None:
        self.opens = max(self.opens, self.now + gap * self.unit)

    @invariant()
    def no_window_is_too_full(self) -> None:
        assert self.sent.fullest(self.limit) <= self.limit.count

    def teardown(self) -> None:
        """When all who wait have gone, the next slot is as if they had never been: none is lost."""
        if hasattr(self, "window"):
            for waiter in self.waiting:
                self.window.give_back(waiter.slot, waiter.cost)
            for sender in self.sending:
                self.window.correct(Correction(sender.slot, sender.cost, 0), self.now)
            for _ in range(self.limit.count + 1):
                slot = self.sent.reserve(self.limit, max(self.now, self.opens), 1)
                assert self.window.reserve(self.limit, self.now, not_before=self.opens, longest_wait=FOREVER) == (
                    slot,
                    True,
                )


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


# ------------------------------------------------------------------------------------------------------- one at a time


def taken(window: RollingWindow, limit: Limit, *moments: int, cost: int = 1) -> list[int]:
    """The slots of those who ask at these moments and wait however long it takes."""
    return [window.reserve(limit, moment, cost=cost, longest_wait=FOREVER)[0] for moment in moments]


def test_a_slot_given_back_unused_is_had_at_once_while_others_wait() -> None:
    window, limit = new_window(), rolling(3, 10)
    assert taken(window, limit, 0, 5, 5, 6) == [0, 5, 5, 10]
    window.correct(Correction(5, 1, 0), 7)
    assert taken(window, limit, 7) == [7]
    assert taken(window, limit, 7) == [15]


def test_a_slot_given_back_is_not_had_later_where_that_would_break_a_promise() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0, 0) == [0, 10, 20]
    window.give_back(10)
    assert taken(window, limit, 11) == [30]
    assert window.confirm(limit, 20, 20) == (20, True)


def test_a_slot_given_back_is_had_again_when_the_promise_is_given_back_too() -> None:
    window, limit = new_window(), rolling(2, 10)
    assert taken(window, limit, 0, 0, 0, 0) == [0, 0, 10, 10]
    window.correct(Correction(0, 1, 0), 1)
    assert window.reserve(limit, 1) == (20, False)
    window.give_back(10)
    window.give_back(10)
    assert window.reserve(limit, 1) == (1, True)


def test_small_slots_given_back_make_room_for_one_large_use() -> None:
    window, limit = new_window(), rolling(4, 10)
    assert taken(window, limit, 0, 1, 2, 3, 4, 4, 4, 4) == [0, 1, 2, 3, 10, 11, 12, 13]
    window.give_back(10)
    window.give_back(11)
    assert taken(window, limit, 5, cost=2) == [11]
    assert [window.confirm(limit, slot, slot) for slot in (12, 13)] == [(12, True), (13, True)]


def test_a_slot_given_back_is_taken_into_a_larger_use_and_is_gone() -> None:
    window, limit = new_window(), rolling(4, 10)
    assert taken(window, limit, 0, 1, 1, 1, 2, 2) == [0, 1, 1, 1, 10, 11]
    window.give_back(10)
    assert taken(window, limit, 2, cost=3) == [11]
    assert taken(window, limit, 2) == [21]


@pytest.mark.parametrize("unused", [1, 2])
def test_a_part_of_a_slot_is_given_back(unused: int) -> None:
    window, limit = new_window(), rolling(3, 10)
    window.reserve(limit, 0, cost=3)
    window.correct(Correction(0, 3, 3 - unused), 1)
    assert taken(window, limit, *[1] * (unused + 1)) == [1] * unused + [10]


def test_a_use_that_cost_more_than_was_taken_counts_with_all_of_it() -> None:
    window, limit = new_window(), rolling(5, 10)
    window.reserve(limit, 0, cost=1)
    window.correct(Correction(0, 1, 4, late=2), 3)
    assert taken(window, limit, 3, 3) == [3, 12]


def test_a_slot_that_was_used_in_part_and_late_counts_in_part_and_late() -> None:
    window, limit = new_window(), rolling(3, 10)
    window.reserve(limit, 0, cost=3)
    window.correct(Correction(0, 3, 2, late=4), 5)
    assert taken(window, limit, 5, 5) == [5, 14]


def test_a_use_so_late_that_its_slot_is_forgotten_counts() -> None:
    window, limit = new_window(), rolling(1, 10)
    window.reserve(limit, 0)
    window.reserve(limit, 12)
    window.correct(Correction(0, 1, 1, late=11), 13)
    assert window.used(limit, 13) == 2


def test_what_is_given_back_twice_is_had_once() -> None:
    window, limit = new_window(), rolling(3, 10)
    assert taken(window, limit, 0, 1, 1) == [0, 1, 1]
    for _ in range(2):
        window.give_back(0)
    assert taken(window, limit, 2, 2) == [2, 11]


def test_uses_made_without_asking_count_wherever_they_fall() -> None:
    window, limit = new_window(), rolling(4, 10)
    assert taken(window, limit, 5) == [5]
    window.add((3, 1), (6, 2))
    assert window.used(limit, 7) == 4
    assert taken(window, limit, 7, 7) == [13, 15]


def test_a_waiter_finds_its_slot_later_by_as_much_as_those_before_it_were() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0, 0) == [0, 10, 20]
    window.correct(Correction(0, 1, 1, late=3), 4)
    assert window.confirm(limit, 10, 10, longest_wait=FOREVER) == (13, True)
    assert window.confirm(limit, 13, 13, longest_wait=FOREVER) == (13, True)
    assert window.confirm(limit, 20, 20, longest_wait=FOREVER) == (23, True)


def test_a_waiter_who_oversleeps_is_counted_when_it_wakes() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0, 0) == [0, 10, 20]
    assert window.confirm(limit, 10, 16) == (16, True)
    assert window.confirm(limit, 20, 20, longest_wait=FOREVER) == (26, True)


def test_a_waiter_who_sleeps_through_its_window_is_counted_when_it_wakes() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0) == [0, 10]
    assert window.used(limit, 25) == 0
    assert window.confirm(limit, 10, 25) == (25, True)
    assert window.used(limit, 25) == 1


def test_a_waiter_who_was_overtaken_by_as_many_as_the_limit_allows_stands_in_line_again() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0, 0, 0) == [0, 10, 20, 30]
    assert window.confirm(limit, 20, 20) == (20, True)
    assert window.confirm(limit, 10, 22, longest_wait=FOREVER) == (40, True)
    assert window.confirm(limit, 30, 30) == (30, True)


def test_a_waiter_who_wakes_early_has_its_slot_still() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0) == [0, 10]
    assert window.confirm(limit, 10, 9) == (10, True)
    assert window.confirm(limit, 10, 10) == (10, True)


def test_a_slot_that_has_moved_too_far_away_is_given_back() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0) == [0, 10]
    window.correct(Correction(0, 1, 1, late=3), 4)
    assert window.confirm(limit, 10, 10, longest_wait=2) == (13, False)
    assert taken(window, limit, 10) == [13]


def test_those_who_wait_when_the_pool_closes_have_the_full_limit_when_it_opens() -> None:
    window, limit = new_window(), rolling(2, 10)
    assert taken(window, limit, 0, 0, 1, 1, 1, 1) == [0, 0, 10, 10, 20, 20]
    moved = [window.confirm(limit, slot, slot, not_before=25, longest_wait=FOREVER)[0] for slot in (10, 10, 20, 20)]
    assert moved == [25, 25, 35, 35]


def test_a_waiter_whose_slot_was_revoked_by_a_closing_asks_anew_even_if_it_wakes_after_it() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0) == [0, 10]
    assert window.reserve(limit, 1, not_before=12, longest_wait=FOREVER) == (12, True)
    assert window.confirm(limit, 10, 13, longest_wait=FOREVER) == (22, True)


# -------------------------------------------------------------------------------------------------------- what it costs


class CountingMoments(MomentsInMemory):
    """Counts the moments that are looked at or moved."""

    __slots__ = ("touched",)

    def __init__(self) -> None:
        super().__init__()
        self.touched = 0

    def __getitem__(self, index: int, /) -> int:
        self.touched += 1
        return super().__getitem__(index)

    def append(self, moment: int, times: int, /) -> None:
        self.touched += times
        super().append(moment, times)

    def overwrite(self, index: int, moments: list[int], /) -> None:
        self.touched += len(moments)
        super().overwrite(index, moments)


@pytest.mark.parametrize("count", [100, 1_000, 25_000])
def test_a_reservation_and_its_confirmation_look_at_as_much_whatever_the_limit(count: int) -> None:
    """Binary searches: a few more looks for a limit that is ten times as high, not ten times as many."""
    moments = CountingMoments()
    window, limit = RollingWindow(moments, []), rolling(count, 60 * MICROSECONDS)
    # Three full windows: the second and third wait.
    for _ in range(3 * count - 200):
        window.reserve(limit, 0, longest_wait=FOREVER)
    most = 0
    for _ in range(200):
        moments.touched = 0
        slot, _ = window.reserve(limit, 0, longest_wait=FOREVER)
        window.confirm(limit, slot, slot)
        most = max(most, moments.touched)
    assert most <= 15 * math.log2(3 * count)


def test_what_is_given_back_is_cleared_away_once_for_all() -> None:
    moments, count = CountingMoments(), 10_000
    window, limit = RollingWindow(moments, []), rolling(count, 60 * MICROSECONDS)
    taken(window, limit, *range(count))
    for moment in range(0, count, 10):
        window.correct(Correction(moment, 1, 0), count)
    moments.touched = 0
    assert taken(window, limit, *[count] * (count // 10)) == [count] * (count // 10)
    assert moments.touched < 10 * count


def test_a_use_takes_eight_bytes_and_idle_time_frees_them() -> None:
    limit, uses = rolling(25_000, 60 * MICROSECONDS), 25_000
    tracemalloc.start()
    try:
        window = new_window()
        for moment in range(uses):
            window.reserve(limit, moment)
        full = tracemalloc.get_traced_memory()[0]
        window.used(limit, HOUR)
        idle = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    assert full < 8 * uses * 1.25
    assert idle < 2_000


def test_a_window_in_steady_use_does_not_grow() -> None:
    moments, limit = MomentsInMemory(), rolling(100, 1_000)
    window = RollingWindow(moments, [])
    sizes = []
    for now in range(0, 100_000, 10):
        assert window.reserve(limit, now) == (now, True)
        sizes.append(sys.getsizeof(moments._array))
    assert len(moments) == 100
    assert max(sizes[:1_000]) == max(sizes)


@given(st.permutations(range(60)), st.integers(0, 59))
def test_waiters_who_cancel_in_any_order_leave_no_trace(order: list[int], stay: int) -> None:
    moments: Moments = MomentsInMemory()
    free: list[int] = []
    window, limit = RollingWindow(moments, free), rolling(7, 100)
    taken(window, limit, *range(7))
    slots = taken(window, limit, *[10] * 60)
    for number in order:
        if number != stay:
            window.give_back(slots[number])
    # Whoever stays has its slot; the others are the next ones', in order.
    again = taken(window, limit, *[11] * 59)
    assert sorted([*again, slots[stay]]) == slots
    assert again == sorted(again)
    for slot in slots:
        window.give_back(slot)
    assert (len(moments), free) == (7, [])


def test_a_thousand_waiters_who_cancel_leave_no_trace() -> None:
    moments: Moments = MomentsInMemory()
    free: list[int] = []
    window, limit = RollingWindow(moments, free), rolling(10, MICROSECONDS)
    used = taken(window, limit, *[0] * 10)
    slots = taken(window, limit, *range(1_000))
    for slot in slots[::2] + slots[1::2]:
        window.give_back(slot)
    assert window.uses() == Counter(used)
    assert (len(moments), free) == (10, [])
