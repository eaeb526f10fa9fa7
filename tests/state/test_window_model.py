"""The rolling window against its model, by hypothesis: what it grants, and what it never does."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from heapq import heapify, heappop, heappush

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from insider_otel.api.operations import Limit
from insider_otel.state.expiry import DAY, GUARD, window_end
from insider_otel.state.protocol import Correction

from .window_model import FOREVER, HOUR, Model, new_window, rolling

LIMITS = st.builds(rolling, st.integers(1, 5), st.integers(2, 20))
DAYS = st.builds(Limit, st.integers(1, 4), st.just(86_400.0), st.just(True))
GAPS = st.integers(0, 8)
COSTS = st.sampled_from([1, 1, 2, 3])
LONG_GAPS = st.one_of(st.integers(0, 30 * HOUR), st.sampled_from([0, 1, GUARD - 1, GUARD, DAY - GUARD, DAY]))
STARTS = st.sampled_from([20_000 * DAY, 20_000 * DAY - 1, 20_000 * DAY - GUARD])


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


@settings(max_examples=300)
@given(
    limit=DAYS,
    ahead=st.integers(-GUARD, GUARD),
    arrivals=st.lists(
        st.tuples(
            st.integers(20_000, 20_003),
            st.one_of(st.integers(-3 * GUARD, 3 * GUARD), st.integers(0, DAY)),
            COSTS,
            st.sampled_from([0, 0, 1, GUARD, 2 * GUARD]),
        ),
        max_size=20,
    ),
)
def test_no_day_is_too_full_where_insiders_clock_is_ahead_of_ours_or_behind(
    limit: Limit, ahead: int, arrivals: list[tuple[int, int, int, int]]
) -> None:
    """Also where a request is on its way for a while, and told of as late."""
    window, days = new_window(), Counter[int]()
    events = [
        (day * DAY + at, number, -1, min(cost, limit.count), late)
        for number, (day, at, cost, late) in enumerate(arrivals)
    ]
    sent: list[tuple[int, int, int, int, int]] = []
    heapify(events)
    while events or sent:
        if sent and (not events or sent[0][0] <= events[0][0]):
            now, number, slot, cost, late = heappop(sent)
            window.correct(Correction(slot, cost, cost, late), now, limit)
            days[(now + ahead) // DAY] += cost
            continue
        now, number, held, cost, late = heappop(events)
        if held < 0:
            slot, taken = window.reserve(limit, now, cost=cost, longest_wait=FOREVER)
        else:
            slot, taken = window.confirm(limit, held, now, cost=cost, longest_wait=FOREVER)
        assert taken
        if slot == now:
            heappush(sent, (now + late, number, slot, cost, late))
        else:
            heappush(events, (slot, number, slot, cost, late))
    assert all(used <= limit.count for used in days.values())


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
    assert slots[:-1] == [opens + place for place in range(limit.count)]
    assert slots[-1] == max(window_end(opens, limit), opens + limit.count)


@given(LIMITS, LIMITS, asks(GAPS))
def test_a_changed_limit_holds_for_all_that_is_remembered(before: Limit, after: Limit, line: list[Ask]) -> None:
    window, model, now = new_window(), Model(), 0
    for ask in line:
        now += ask.gap
        slot, _ = window.reserve(before, now, cost=ask.cost, longest_wait=FOREVER)
        model.uses += [slot] * min(ask.cost, before.count)
    # What the old limit had no use for any more is forgotten.
    model.uses = [use for use in model.uses if window_end(use, before) > now]
    earliest = model.behind(now)
    slot, _ = window.reserve(after, now, longest_wait=FOREVER)
    behind = [use for use in model.uses if use <= slot < window_end(use, after)]
    assert slot >= earliest
    assert len(behind) < after.count
    assert slot == earliest or any(window_end(use, after) == slot for use in model.uses)


# ------------------------------------------------------------------------------------------- where slots are given back


@dataclass
class Waiter:
    slot: int
    cost: int


class Queue(RuleBasedStateMachine):
    """Callers who ask, wait, and go: everybody is punctual, so that every promise can be kept to the microsecond."""

    @initialize(limit=st.one_of(LIMITS, DAYS), now=STARTS)
    def start(self, limit: Limit, now: int) -> None:
        self.limit = limit
        self.unit = HOUR if limit.calendar else 1
        self.now = now
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
        in_line = self.model.earliest(self.limit, self.model.behind(self.now), cost)
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
            self.window.correct(Correction(slot, 1, 0), self.now, self.limit)
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

    @initialize(limit=st.one_of(LIMITS, DAYS), now=STARTS)
    def start(self, limit: Limit, now: int) -> None:
        self.limit = limit
        self.unit = HOUR if limit.calendar else 1
        self.now = now
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
            self.window.correct(
                Correction(sender.slot, sender.cost, actual, self.now - sender.slot), self.now, self.limit
            )
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
                self.window.correct(Correction(sender.slot, sender.cost, 0), self.now, self.limit)
            for _ in range(self.limit.count + 1):
                slot = self.sent.reserve(self.limit, self.now, 1, self.opens)
                assert self.window.reserve(self.limit, self.now, not_before=self.opens, longest_wait=FOREVER) == (
                    slot,
                    True,
                )


class Line:
    """Waiters who wake when they were told to, of a pool that Insider closes now and then.

    Args:
        limit: The limit.
        arrivals: When each of them comes, in ascending order, and its cost.
        closings: From when to when the pool is closed.
        leaves: When some of them lose patience, if they still wait.
    """

    def __init__(
        self, limit: Limit, arrivals: list[tuple[int, int]], closings: list[tuple[int, int]], leaves: dict[int, int]
    ) -> None:
        self._closings = closings
        self.served: dict[int, int] = {}
        window, slots = new_window(), dict[int, int]()
        costs = [min(cost, limit.count) for _, cost in arrivals]
        events = [(came, rank, -1) for rank, (came, _) in enumerate(arrivals)]
        events += [(moment, rank, -2) for rank, moment in leaves.items()]
        events.sort()
        while events:
            now, rank, slot = heappop(events)
            if slot == -2:
                if rank in slots:
                    window.give_back(slots.pop(rank), costs[rank])
                continue
            if slot >= 0 and slots.pop(rank, None) != slot:
                continue  # it has left
            opens, cost = self.opens(now), costs[rank]
            if slot < 0:
                slot, taken = window.reserve(limit, now, cost=cost, not_before=opens, longest_wait=FOREVER)
            else:
                slot, taken = window.confirm(limit, slot, now, cost=cost, not_before=opens, longest_wait=FOREVER)
            assert taken
            if slot == now:
                self.served[rank] = now
            else:
                slots[rank] = slot
                heappush(events, (slot, rank, slot))

    def opens(self, now: int) -> int:
        """When the pool is open, as far as is known at a moment."""
        return max((end for start, end in self._closings if start <= now), default=0)


def closings(drawn: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """No closing begins or ends at the moment of anything else, so that it is clear what was first."""
    return sorted((at * 1_000 + 500, (at + length) * 1_000 + 7 + n) for n, (at, length) in enumerate(drawn))


ARRIVAL = st.tuples(st.integers(0, 60).map(lambda at: at * 1_000), COSTS)
ARRIVALS = st.lists(ARRIVAL, min_size=1, max_size=25).map(sorted)
CLOSINGS = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 60)), max_size=4).map(closings)


@given(count=st.integers(1, 4), arrivals=ARRIVALS, shut=CLOSINGS)
def test_first_come_first_served_however_often_the_pool_is_closed(
    count: int, arrivals: list[tuple[int, int]], shut: list[tuple[int, int]]
) -> None:
    """Everybody is served at the first moment that the pool is open and the limit and those before them allow; later by
    a microsecond for each who is told the same.
    """
    line = Line(rolling(count, 20_000), arrivals, shut, {})
    uses: list[int] = []
    for rank, (came, cost) in enumerate(arrivals):
        before = len(uses) + min(cost, count) - 1 - count
        moment = max(came, uses[before] + 20_000 if before >= 0 else 0, *uses[-1:])
        while line.opens(moment) > moment:
            moment = line.opens(moment)
        assert 0 <= line.served[rank] - moment < len(arrivals)
        uses += [moment] * min(cost, count)


@settings(max_examples=300)
@given(count=st.integers(1, 4), arrivals=ARRIVALS, shut=CLOSINGS, data=st.data())
def test_the_limit_holds_where_some_lose_patience_while_the_pool_is_closed(
    count: int, arrivals: list[tuple[int, int]], shut: list[tuple[int, int]], data: st.DataObject
) -> None:
    limit = rolling(count, 20_000)
    leaves = data.draw(st.dictionaries(st.integers(0, len(arrivals) - 1), st.integers(0, 150), max_size=10))
    line = Line(limit, arrivals, shut, {rank: at * 1_000 + 250 for rank, at in leaves.items()})
    model = Model()
    model.uses = [moment for rank, moment in line.served.items() for _ in range(min(arrivals[rank][1], count))]
    assert model.fullest(limit) <= count
    assert not [moment for moment in model.uses if line.opens(moment) > moment]
    assert set(range(len(arrivals))) - set(line.served) <= set(leaves)


TestQueue = Queue.TestCase
TestQueue.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
TestCrowd = Crowd.TestCase
TestCrowd.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)
