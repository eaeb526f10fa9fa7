"""The rolling window, one promise at a time; ``test_window_model.py`` proves it whole."""

from __future__ import annotations

import math
import sys
import tracemalloc
from bisect import bisect_left, bisect_right
from collections import Counter
from heapq import heapify, heappop, heappush

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel.api.operations import Limit
from insider_otel.state.expiry import DAY, GUARD
from insider_otel.state.moments import Moments, MomentsInMemory
from insider_otel.state.protocol import MICROSECONDS, Correction
from insider_otel.state.window import RollingWindow

from .window_model import FOREVER, HOUR, new_window, rolling


def taken(window: RollingWindow, limit: Limit, *moments: int, cost: int = 1) -> list[int]:
    """The slots of those who ask at these moments and wait however long it takes."""
    return [window.reserve(limit, moment, cost=cost, longest_wait=FOREVER)[0] for moment in moments]


def test_a_calendar_day_ends_a_little_after_midnight() -> None:
    limit, evening = Limit(1, 86_400.0, calendar=True), 3 * DAY - HOUR
    window = new_window()
    assert window.reserve(limit, evening) == (evening, True)
    assert window.reserve(limit, evening) == (3 * DAY + GUARD, False)
    assert window.reserve(limit, 3 * DAY + GUARD - 1)[1] is False
    assert window.reserve(limit, 3 * DAY + GUARD)[1] is True


def test_a_use_just_before_midnight_counts_for_the_next_day_too() -> None:
    limit, guarded = Limit(1, 86_400.0, calendar=True), 3 * DAY - GUARD
    for moment, ends in ((guarded - 1, 3 * DAY), (guarded, 4 * DAY), (3 * DAY, 4 * DAY)):
        window = new_window()
        assert window.reserve(limit, moment) == (moment, True)
        assert window.reserve(limit, moment + 1) == (ends + GUARD, False)
        assert window.used(limit, ends + GUARD - 1) == 1
        assert window.used(limit, ends + GUARD) == 0


def test_a_use_that_was_late_and_came_just_before_midnight_counts_for_the_next_day_too() -> None:
    window, limit, slot = new_window(), Limit(1, 86_400.0, calendar=True), 3 * DAY - 2 * GUARD
    assert window.reserve(limit, slot) == (slot, True)
    window.correct(Correction(slot, 1, 1, late=GUARD), 3 * DAY, limit)
    assert window.reserve(limit, 3 * DAY) == (4 * DAY + GUARD, False)


def test_a_use_that_costs_more_than_the_limit_takes_all_of_it() -> None:
    window, limit = new_window(), rolling(3, 10)
    assert window.reserve(limit, 0, cost=7) == (0, True)
    assert window.reserve(limit, 0) == (10, False)


def test_a_slot_that_is_too_far_away_is_named_and_not_taken() -> None:
    window, limit = new_window(), rolling(1, 10)
    window.reserve(limit, 0)
    assert [window.reserve(limit, 1, longest_wait=8) for _ in range(3)] == [(10, False)] * 3
    assert window.reserve(limit, 1, longest_wait=9) == (10, True)


def test_a_slot_given_back_unused_is_had_at_once_while_others_wait() -> None:
    window, limit = new_window(), rolling(3, 10)
    assert taken(window, limit, 0, 5, 5, 6) == [0, 5, 5, 10]
    window.correct(Correction(5, 1, 0), 7, limit)
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
    assert taken(window, limit, 0, 0, 0, 0) == [0, 0, 10, 11]
    window.correct(Correction(0, 1, 0), 1, limit)
    assert window.reserve(limit, 1) == (20, False)
    window.give_back(10)
    window.give_back(11)
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
    assert taken(window, limit, 2, cost=3) == [12]
    assert taken(window, limit, 2) == [21]


@pytest.mark.parametrize("unused", [1, 2])
def test_a_part_of_a_slot_is_given_back(unused: int) -> None:
    window, limit = new_window(), rolling(3, 10)
    window.reserve(limit, 0, cost=3)
    window.correct(Correction(0, 3, 3 - unused), 1, limit)
    assert taken(window, limit, *[1] * (unused + 1)) == [1] * unused + [10]


def test_a_use_that_cost_more_than_was_taken_counts_with_all_of_it() -> None:
    window, limit = new_window(), rolling(5, 10)
    window.reserve(limit, 0, cost=1)
    window.correct(Correction(0, 1, 4, late=2), 3, limit)
    assert taken(window, limit, 3, 3) == [3, 12]


def test_a_slot_that_was_used_in_part_and_late_counts_in_part_and_late() -> None:
    window, limit = new_window(), rolling(3, 10)
    window.reserve(limit, 0, cost=3)
    window.correct(Correction(0, 3, 2, late=4), 5, limit)
    assert taken(window, limit, 5, 5) == [5, 14]


def test_a_use_so_late_that_its_slot_is_forgotten_counts() -> None:
    window, limit = new_window(), rolling(1, 10)
    window.reserve(limit, 0)
    window.reserve(limit, 12)
    window.correct(Correction(0, 1, 1, late=11), 13, limit)
    assert window.used(limit, 13) == 2


@pytest.mark.parametrize("actual", [1, 2])
def test_a_late_use_that_is_told_of_twice_counts_once(actual: int) -> None:
    window, limit = new_window(), rolling(5, 10)
    window.reserve(limit, 0)
    for now in (4, 6):
        window.correct(Correction(0, 1, actual, late=3), now, limit)
    assert window.used(limit, 7) == actual


@pytest.mark.parametrize(("cost", "actual"), [(3, 1), (3, 2), (5, 3)])
def test_a_use_that_cost_less_and_is_told_of_twice_counts_once(cost: int, actual: int) -> None:
    window, limit = new_window(), rolling(5, 10)
    window.reserve(limit, 0, cost=cost)
    for now in (4, 6):
        window.correct(Correction(0, cost, actual), now, limit)
    assert window.used(limit, 7) == actual


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
    window.correct(Correction(0, 1, 1, late=3), 4, limit)
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


def test_a_waiter_who_was_overtaken_by_as_many_as_the_limit_allows_is_the_next() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0, 0, 0) == [0, 10, 20, 30]
    assert window.confirm(limit, 20, 20) == (20, True)
    assert window.confirm(limit, 10, 22, longest_wait=FOREVER) == (31, True), "30 is what the other was told"
    assert window.confirm(limit, 30, 30, longest_wait=FOREVER) == (41, True)
    assert window.confirm(limit, 31, 31) == (31, True)
    assert window.confirm(limit, 41, 41) == (41, True)


def test_a_waiter_who_slept_through_its_window_and_was_overtaken_is_the_next() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, *[0] * 5) == [0, 10, 20, 30, 40]
    assert window.confirm(limit, 20, 24) == (24, True)
    assert window.used(limit, 24) == 1
    assert window.confirm(limit, 10, 25, longest_wait=FOREVER) == (34, True)
    moved = [window.confirm(limit, slot, slot, longest_wait=FOREVER)[0] for slot in (30, 34, 40)]
    assert moved == [44, 34, 54]


def test_a_waiter_who_slept_through_its_window_is_told_when_there_is_room_and_loses_nobody_a_slot() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, *[0] * 3) == [0, 10, 20]
    assert window.confirm(limit, 20, 24) == (24, True)
    assert window.used(limit, 24) == 1
    assert window.confirm(limit, 10, 25, longest_wait=8) == (34, False)
    assert taken(window, limit, 26, 26) == [34, 44]


def test_those_who_oversleep_together_come_back_in_the_order_in_which_they_ask() -> None:
    window, limit = new_window(), rolling(1, 10)
    slots = taken(window, limit, *[0] * 7)[1:]
    assert slots == [10, 20, 30, 40, 50, 60]
    # All sleep until 45.
    moved = [window.confirm(limit, slot, 45, longest_wait=FOREVER)[0] for slot in slots[:4]]
    assert moved == [51, 61, 71, 45], "the last may go: its slot is the latest that was promised"
    waiting = [*zip(moved[:3], range(3), strict=True), (50, 4), (60, 5)]
    heapify(waiting)
    served: list[int] = []
    while waiting:
        slot, rank = heappop(waiting)
        moment, _ = window.confirm(limit, slot, slot, longest_wait=FOREVER)
        if moment == slot:
            served.append(rank)
        else:
            heappush(waiting, (moment, rank))
    assert served == [0, 1, 2, 4, 5]


def test_a_waiter_who_wakes_early_has_its_slot_still() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0) == [0, 10]
    assert window.confirm(limit, 10, 9) == (10, True)
    assert window.confirm(limit, 10, 10) == (10, True)


def test_a_slot_that_has_moved_too_far_away_is_given_back() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0) == [0, 10]
    window.correct(Correction(0, 1, 1, late=3), 4, limit)
    assert window.confirm(limit, 10, 10, longest_wait=2) == (13, False)
    assert taken(window, limit, 10) == [13]


def test_those_who_wait_when_the_pool_closes_have_the_full_limit_when_it_opens() -> None:
    window, limit = new_window(), rolling(2, 10)
    assert taken(window, limit, 0, 0, 1, 1, 1, 1) == [0, 0, 10, 11, 20, 21]
    moved = [window.confirm(limit, slot, slot, not_before=25, longest_wait=FOREVER)[0] for slot in (10, 11, 20, 21)]
    assert moved == [25, 26, 35, 36]


def test_who_comes_while_the_pool_is_closed_stands_behind_those_who_waited() -> None:
    window, limit = new_window(), rolling(2, 10)
    assert taken(window, limit, 0, 0, 1, 1, 1) == [0, 0, 10, 11, 20]
    assert window.reserve(limit, 2, not_before=25, longest_wait=FOREVER) == (36, True)
    back = [window.confirm(limit, slot, slot, not_before=25, longest_wait=FOREVER)[0] for slot in (10, 11, 20)]
    assert back == [25, 26, 35]
    assert window.reserve(limit, 26, longest_wait=FOREVER) == (45, True)


def test_one_who_costs_more_keeps_its_place_from_those_who_come_while_the_pool_is_closed() -> None:
    window, limit = new_window(), rolling(4, 10)
    assert [window.reserve(limit, 0, cost=cost, longest_wait=FOREVER)[0] for cost in (4, 3)] == [0, 10]
    come = [window.reserve(limit, 1, not_before=25, longest_wait=FOREVER)[0] for _ in range(2)]
    assert come == [26, 35]
    assert window.confirm(limit, 10, 10, cost=3, not_before=25, longest_wait=FOREVER) == (25, True)
    assert window.confirm(limit, 25, 25, cost=3, not_before=25) == (25, True)
    assert [window.confirm(limit, slot, slot) for slot in come] == [(26, True), (35, True)]


def test_when_the_limit_is_lowered_nobody_is_passed_by_more_than_are_served_in_a_window() -> None:
    window, high, low = new_window(), rolling(10, 1_000), rolling(2, 1_000)
    slots = taken(window, high, *range(0, 400, 10))[10:]
    served: list[int] = []
    waiting = [(slot, rank) for rank, slot in enumerate(slots)]
    while waiting:
        slot, rank = heappop(waiting)
        moment, _ = window.confirm(low, slot, slot, longest_wait=FOREVER)
        if moment == slot:
            served.append(rank)
        else:
            heappush(waiting, (moment, rank))
    assert max(place - rank for place, rank in enumerate(served)) <= low.count


def test_a_waiter_whose_slot_a_closing_took_comes_back_to_its_place_even_if_it_wakes_after_it() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0) == [0, 10]
    assert window.reserve(limit, 1, not_before=12, longest_wait=FOREVER) == (22, True)
    assert window.confirm(limit, 10, 13, longest_wait=FOREVER) == (13, True)
    assert window.confirm(limit, 22, 22, longest_wait=FOREVER) == (23, True)


def test_a_waiter_who_wakes_as_the_pool_closes_is_the_first_to_be_served() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0, 0) == [0, 10, 20]
    assert window.confirm(limit, 10, 10, not_before=25, longest_wait=FOREVER) == (25, True)
    assert window.confirm(limit, 20, 20, not_before=25, longest_wait=FOREVER) == (35, True)


@pytest.mark.parametrize("leaves", ["gives its slot back", "finds its place too far away"])
def test_the_others_move_up_when_a_waiter_leaves_while_the_pool_is_closed(leaves: str) -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0, 0) == [0, 10, 20]
    assert window.reserve(limit, 1, not_before=25) == (45, False)
    if leaves == "gives its slot back":
        window.give_back(10)
    else:
        assert window.confirm(limit, 10, 10, not_before=25) == (25, False)
    assert window.confirm(limit, 20, 20, not_before=25, longest_wait=FOREVER) == (25, True)
    assert window.reserve(limit, 21, not_before=25, longest_wait=FOREVER) == (35, True)


def test_a_pool_that_is_closed_once_more_keeps_everybodys_place_once_more() -> None:
    window, limit = new_window(), rolling(1, 10)
    assert taken(window, limit, 0, 0, 0) == [0, 10, 20]
    assert window.reserve(limit, 1, not_before=15, longest_wait=FOREVER) == (35, True)
    assert window.confirm(limit, 10, 10, not_before=15, longest_wait=FOREVER) == (15, True)
    assert window.reserve(limit, 11, not_before=60, longest_wait=FOREVER) == (90, True)
    back = [window.confirm(limit, slot, slot, not_before=60, longest_wait=FOREVER)[0] for slot in (15, 20, 35)]
    assert back == [60, 70, 80]


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

    def before(self, moment: int, /) -> int:
        return bisect_left(self, moment)

    def until(self, moment: int, /) -> int:
        return bisect_right(self, moment)

    def part(self, start: int, end: int, /) -> list[int]:
        self.touched += end - start
        return super().part(start, end)

    def extend(self, moments: list[int], /) -> None:
        self.touched += len(moments)
        super().extend(moments)


@pytest.mark.parametrize("count", [100, 1_000, 25_000])
def test_a_reservation_and_its_confirmation_look_at_as_much_whatever_the_limit(count: int) -> None:
    """Binary searches: a few more looks for a limit that is ten times as high, not ten times as many."""
    moments = CountingMoments()
    window, limit = RollingWindow(moments, [], [], []), rolling(count, 60 * MICROSECONDS)
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


def test_a_crowd_that_is_told_to_come_back_later_and_later_is_moved_once() -> None:
    """Each of many replies that arrive together closes the pool for a little longer than the one before."""
    moments, crowd, minute = CountingMoments(), 10_000, 60 * MICROSECONDS
    window, limit = RollingWindow(moments, [], [], []), rolling(500, minute)
    taken(window, limit, *[0] * (500 + crowd))
    moments.touched = 0
    for reply in range(1_000):
        window.reserve(limit, reply, not_before=minute + 1_000 * reply)
    assert moments.touched < 3 * crowd + 1_000 * 15 * math.log2(crowd)


def test_a_crowd_that_slept_through_its_window_is_not_moved_for_each_who_wakes() -> None:
    moments, crowd, limit = CountingMoments(), 3_000, rolling(100, MICROSECONDS)
    window = RollingWindow(moments, [], [], [])
    slots = taken(window, limit, *[0] * (100 + crowd))[100:]
    now, most = slots[1_000] + 2 * MICROSECONDS, 0
    for slot in slots[:1_000]:
        moments.touched = 0
        window.confirm(limit, slot, now, longest_wait=FOREVER)
        most = max(most, moments.touched)
    assert most <= 15 * math.log2(crowd)


def test_what_is_given_back_is_cleared_away_once_for_all() -> None:
    moments, count = CountingMoments(), 10_000
    window, limit = RollingWindow(moments, [], [], []), rolling(count, 60 * MICROSECONDS)
    taken(window, limit, *range(count))
    for moment in range(0, count, 10):
        window.correct(Correction(moment, 1, 0), count, limit)
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
    window = RollingWindow(moments, [], [], [])
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
    window, limit = RollingWindow(moments, free, [], []), rolling(7, 100)
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
    window, limit = RollingWindow(moments, free, [], []), rolling(10, MICROSECONDS)
    used = taken(window, limit, *[0] * 10)
    slots = taken(window, limit, *range(1_000))
    for slot in slots[::2] + slots[1::2]:
        window.give_back(slot)
    assert window.uses() == Counter(used)
    assert (len(moments), free) == (10, [])
