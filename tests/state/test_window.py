"""The rolling window, against a slow and obviously right model of it: a list of all uses."""

from __future__ import annotations

import math
import sys
import tracemalloc
from bisect import insort
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import MICROSECONDS, Correction
from insider_otel.state.window import DAY, MIDNIGHT_GUARD, MomentsInMemory, RollingWindow, window_end

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


LIMITS = st.builds(rolling, st.integers(1, 6), st.integers(1, 30))
DAYS = st.builds(Limit, st.integers(1, 4), st.just(86_400.0), st.just(True))
GAPS = st.integers(0, 12)
LONG_GAPS = st.integers(0, 30 * HOUR)


@dataclass(frozen=True)
class Ask:
    """One who asks for a slot, some time after the one before."""

    gap: int
    cost: int
    longest_wait: int


def asks(gaps: st.SearchStrategy[int]) -> st.SearchStrategy[list[Ask]]:
    patience = st.one_of(st.just(FOREVER), gaps)
    return st.lists(st.builds(Ask, gaps, st.integers(1, 3), patience), max_size=30)


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


# --------------------------------------------------------------------------------------------- where slots are given back


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

    @rule(cost=st.integers(1, 3), patience=st.one_of(st.just(FOREVER), GAPS))
    def ask(self, cost: int, patience: int) -> None:
        cost = min(cost, self.limit.count)
        first = self.model.earliest(self.limit, self.now, cost)
        in_line = self.model.earliest(self.limit, max(self.now, *self.model.uses, self.now), cost)
        slot, taken = self.window.reserve(self.limit, self.now, cost=cost, longest_wait=patience)
        # What was given back stands in nobody's way, ...
        assert first <= slot <= in_line
        if not self.waiting:
            # ... and unless somebody waits it is as if it had never been asked for.
            assert slot == first
        assert taken == (slot - self.now <= patience)
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
            self.window.correct(Correction(slot, 1, 0))
            self.model.give_back(slot, 1)

    @invariant()
    def no_window_is_too_full(self) -> None:
        assert self.model.fullest(self.limit) <= self.limit.count

    @invariant()
    def used_is_what_the_window_that_ends_now_holds(self) -> None:
        uses = [use for use in self.model.uses if use <= self.now < window_end(use, self.limit)]
        assert self.window.used(self.limit, self.now) == len(uses)


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=300, stateful_step_count=40, deadline=None)
