"""What calls share, driven by hand: a store that fails when it is told to, and a clock that stands still."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, TypeVar

import pytest

from insider_otel.api.operations import Limit
from insider_otel.http.performing import perform_async
from insider_otel.state.experience import Experience
from insider_otel.state.memory import MOST_POOLS, MemoryStore
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Correction,
    Perform,
    PoolKey,
    Report,
    Request,
    StoreEffects,
    StoreError,
)
from insider_otel.state.recent import Recent
from insider_otel.state.shared import RETRY_EVERY, Grant, SharedState
from insider_otel.testing import FakeClock

T = TypeVar("T")

POOL = PoolKey("catalog.ingest", b"o" * 16)
LIMIT = Limit(4, 10.0)
CONTENT = b"c" * 16


class FakeStore:
    """A memory store that others could share; it fails when told to, and remembers what it was asked.

    Args:
        clock: Its clock, which need not be that of those who ask.
    """

    name = "redis"
    address = "redis://example.com:6379/0"

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.asked: list[Request] = []
        self.fails = False
        self.workers = 1
        self.born = 1
        self.lose_memory()

    def lose_memory(self) -> None:
        self._memory = MemoryStore(self._clock, self._clock)
        self.born += 1

    def perform(self, request: Request) -> Any:
        self.asked.append(request)
        if self.fails:
            raise StoreError(f"{self.address}: no answer within 0.05 s")
        reply = self._memory.perform(request)
        if isinstance(reply, Admission):
            return replace(reply, workers=self.workers, born=self.born)
        return reply

    async def perform_async(self, request: Request) -> Any:
        return self.perform(request)

    def close(self) -> None:
        pass

    @property
    def last_ask(self) -> Admit:
        return next(request for request in reversed(self.asked) if isinstance(request, Admit))


def drive(effects: StoreEffects[T]) -> T:
    """Carry out a course of effects, as the drivers of calls do."""
    try:
        effect = next(effects)
        while True:
            try:
                effect.reply = effect.store.perform(effect.request)
            except StoreError as error:
                effect = effects.throw(error)
            else:
                effect = effects.send(effect.reply)
    except StopIteration as end:
        result: T = end.value
        return result


class Process:
    """One process that shares a store: its state, on the tests' clock."""

    def __init__(self, store: FakeStore | None, clock: FakeClock) -> None:
        self.state = SharedState(store, clock, clock)
        self.clock = clock

    def ask(self, *, wait: float = 0.0, held: Grant | None = None, limit: Limit = LIMIT, **more: Any) -> Grant:
        return drive(self.state.admit(Admit(POOL, limit, longest_wait=wait, **more), held))

    def take(self, number: int) -> list[bool]:
        """Ask for a number of slots at once; returns which of them are granted for now."""
        return [self.ask().admission.slot is not None for _ in range(number)]

    def settle(self, grant: Grant, *, late: float = 0.0, actual: int = 1) -> None:
        self.state.settle(grant, now=grant.due + late, actual=actual)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> FakeStore:
    return FakeStore(lambda: clock() + 1000)


@pytest.fixture
def process(store: FakeStore, clock: FakeClock) -> Process:
    return Process(store, clock)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is logged as a warning."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Keep(logging.WARNING)
    logging.getLogger("insider_otel").addHandler(handler)
    yield messages
    logging.getLogger("insider_otel").removeHandler(handler)


class TestWhileTheStoreIsAway:
    def test_a_process_alone_holds_the_whole_limit_and_what_it_used_before_counts(
        self, process: Process, store: FakeStore
    ) -> None:
        assert process.take(1) == [True]
        store.fails = True
        assert process.take(4) == [True, True, True, False]

    def test_one_of_several_holds_its_share(self, process: Process, store: FakeStore, clock: FakeClock) -> None:
        store.workers = 2
        process.ask()
        store.fails = True
        assert process.take(2) == [True, False]
        clock.advance(LIMIT.window)
        assert process.take(3) == [True, True, False]

    def test_one_of_several_takes_no_more_than_the_others_have_left(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.workers = 2
        assert Process(store, clock).take(3) + process.take(1) == [True] * 4
        store.fails = True
        assert process.take(1) == [False]
        clock.advance(LIMIT.window)
        assert process.take(3) == [True, True, False]

    def test_where_there_are_more_processes_than_slots_each_waits_for_its_turn(
        self, process: Process, store: FakeStore
    ) -> None:
        store.workers = 8
        process.ask()
        store.fails = True
        assert process.ask(wait=99).admission.wait == pytest.approx(2 * LIMIT.window)

    def test_one_call_asks_it_now_and_then_and_the_others_do_not_wait_for_it(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        for times in range(1, 4):
            process.take(5)
            assert len(store.asked) == times
            clock.advance(RETRY_EVERY)

    def test_while_one_call_tries_it_again_the_others_go_on(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        process.ask()
        clock.advance(RETRY_EVERY)
        trying = process.state.admit(Admit(POOL, LIMIT))
        assert isinstance(next(trying), Perform)
        assert process.ask().local
        assert len(store.asked) == 1
        trying.close()

    def test_a_slot_that_was_waited_for_is_as_good_as_it_was(self, process: Process, store: FakeStore) -> None:
        process.take(LIMIT.count)
        held = process.ask(wait=99)
        store.fails = True
        woken = process.ask(wait=99, held=held)
        assert (woken.admission.slot, woken.admission.wait) == (held.admission.slot, 0.0)
        assert not woken.local

    def test_a_slot_that_was_waited_for_is_later_if_what_came_before_it_was(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        grants = [process.ask() for _ in range(LIMIT.count)]
        held = process.ask(wait=99)
        clock.advance(0.5)
        for grant in grants:
            process.settle(grant, late=0.5)
        clock.advance(LIMIT.window - 0.5)
        store.fails = True
        woken = process.ask(wait=99, held=held)
        assert woken.admission.wait == pytest.approx(0.5)
        clock.advance(woken.admission.wait)
        assert process.ask(wait=99, held=woken).admission.wait == 0.0
        clock.advance(RETRY_EVERY)
        assert process.ask(wait=0.1, held=woken).admission.slot is not None

    def test_waiters_keep_their_places_though_one_of_them_tries_the_store(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        process.take(LIMIT.count)
        first, second = process.ask(wait=99), process.ask(wait=99)
        assert first.admission.wait == second.admission.wait == 10.0
        for _ in range(LIMIT.count - 2):
            process.ask(wait=99)
        clock.advance(10)
        trying = process.state.admit(Admit(POOL, LIMIT, longest_wait=99), first)
        next(trying)
        assert process.ask(wait=99).admission.wait == 10.0
        with pytest.raises(StopIteration) as woken:
            trying.throw(StoreError("still away"))
        assert woken.value.value.admission.wait == 0.0

    def test_claims_go_on(self, process: Process, store: FakeStore) -> None:
        store.fails = True
        first = process.ask(claim=ClaimAsk(CONTENT, 60))
        assert first.admission.claim is ClaimState.CLAIMED
        assert process.ask(claim=ClaimAsk(CONTENT, 60)).admission.claim is ClaimState.IN_FLIGHT
        done = ClaimReport(CONTENT, first.admission.token, ClaimEnd.DONE, 900)
        drive(process.state.report(Report(POOL, claim=done), local=True))
        assert process.ask(claim=ClaimAsk(CONTENT, 60)).admission.claim is ClaimState.DONE

    def test_what_was_done_before_is_held_back(self, process: Process, store: FakeStore) -> None:
        token = process.ask(claim=ClaimAsk(CONTENT, 60)).admission.token
        drive(process.state.report(Report(POOL, claim=ClaimReport(CONTENT, token, ClaimEnd.DONE, 900))))
        store.fails = True
        assert process.ask(claim=ClaimAsk(CONTENT, 60)).admission.claim is ClaimState.DONE

    def test_a_pool_that_was_closed_stays_closed(self, process: Process, store: FakeStore) -> None:
        drive(process.state.report(Report(POOL, closed_for=7.0)))
        store.fails = True
        grant = process.ask()
        assert (grant.admission.closed, grant.admission.wait) == (True, 7.0)

    def test_utilization_is_of_the_share(self, process: Process, store: FakeStore) -> None:
        store.workers = 2
        process.ask()
        assert dict(process.state.utilization()) == {POOL.pool: 0.25}
        store.fails = True
        process.ask()
        assert dict(process.state.utilization()) == {POOL.pool: 1.0}


class TestWhenTheStoreIsBack:
    def test_it_is_told_what_it_missed_and_not_twice(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        process.take(2)
        clock.advance(3)
        store.fails = False
        process.ask()
        assert [(use.age, use.cost) for use in store.last_ask.past] == [(3 * MICROSECONDS, 2)]
        assert process.take(2) == [True, False]
        assert store.last_ask.past == ()

    def test_what_it_missed_is_kept_until_it_is_really_back(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        process.take(2)
        for _ in range(3):
            clock.advance(RETRY_EVERY)
            process.take(1)
        clock.advance(RETRY_EVERY)
        store.fails = False
        assert process.take(1) == [False]
        assert sum(use.cost for use in store.last_ask.past) == LIMIT.count

    def test_what_no_longer_counts_is_not_told(self, process: Process, store: FakeStore, clock: FakeClock) -> None:
        store.fails = True
        process.take(2)
        clock.advance(LIMIT.window)
        store.fails = False
        process.ask()
        assert store.last_ask.past == ()

    def test_many_uses_are_told_as_few_none_of_them_earlier_or_yet_to_come(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        many = Limit(5000, 10.0)
        store.fails = True
        process.ask(limit=many)
        for _ in range(2000):
            clock.advance(0.001)
            process.ask(limit=many)
        store.fails = False
        clock.advance(RETRY_EVERY)
        process.ask(limit=many)
        past = store.last_ask.past
        assert len(past) <= 200
        assert sum(use.cost for use in past) == 2001
        oldest = max(use.age for use in past)
        assert 3 * MICROSECONDS - many.window / 200 * MICROSECONDS <= oldest <= 3 * MICROSECONDS
        assert min(use.age for use in past) >= 0

    def test_a_slot_that_this_process_gave_is_given_up(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        """Its waiter asks the store; the slot itself is not told, as if it had been used."""
        store.fails = True
        process.take(LIMIT.count)
        held = process.ask(wait=99)
        clock.advance(LIMIT.window)
        store.fails = False
        woken = process.ask(wait=99, held=held)
        assert (woken.local, woken.admission.wait) == (False, 0.0)
        assert store.last_ask.past == ()
        assert store.last_ask.holding is None
        assert process.take(4) == [True, True, True, False]

    def test_slots_that_are_still_waited_for_are_not_told(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        process.take(LIMIT.count)
        held = [process.ask(wait=99) for _ in range(3)]
        clock.advance(5)
        store.fails = False
        assert process.ask(wait=99).admission.wait == 5.0
        assert sum(use.cost for use in store.last_ask.past) == LIMIT.count
        clock.advance(5)
        assert [process.ask(wait=99, held=each).admission.wait for each in held] == [0.0] * 3

    def test_a_local_slot_that_was_cancelled_is_not_told(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        drive(process.state.give_back(process.ask()))
        clock.advance(RETRY_EVERY)
        store.fails = False
        process.ask()
        assert store.last_ask.past == ()

    def test_slots_are_not_given_twice_while_one_call_asks_and_others_go_on_alone(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        """The store cannot know what is granted here while it is asked."""
        store.fails = True
        process.take(LIMIT.count - 1)
        clock.advance(RETRY_EVERY)
        store.fails = False
        trying = process.state.admit(Admit(POOL, LIMIT, longest_wait=99))
        question = next(trying)
        answer = store.perform(question.request)
        assert answer.wait == 0.0
        assert process.ask().local
        with pytest.raises(StopIteration) as granted:
            trying.send(answer)
        assert granted.value.value.admission.wait == pytest.approx(9.0)

    def test_who_asks_beside_the_one_that_tells_waits_for_what_was_not_told_yet(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        process.take(LIMIT.count)
        other = PoolKey("mail.send", POOL.owner)
        clock.advance(RETRY_EVERY)
        store.fails = False
        drive(process.state.admit(Admit(other, LIMIT)))
        telling = process.state.admit(Admit(POOL, LIMIT))
        next(telling)
        assert process.take(1) == [False]
        # And what the store granted it meanwhile is given back.
        given_back = [each for each in store.asked if isinstance(each, Report)]
        assert [correction.actual for report in given_back for correction in report.corrections] == [0]
        telling.close()

    def test_what_became_of_a_slot_meanwhile_is_told_as_it_was(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        process.settle(process.ask(), actual=0)
        process.settle(process.ask(), late=0.5)
        clock.advance(RETRY_EVERY)
        store.fails = False
        process.ask()
        assert [(use.age, use.cost) for use in store.last_ask.past] == [(MICROSECONDS // 2, 1)]

    def test_a_claim_made_meanwhile_is_done_for_all_since_now(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        """The moment of its beginning is one of this process's clock; another would take it for an age."""
        store.fails = True
        claimed = process.ask(claim=ClaimAsk(CONTENT, 60))
        clock.advance(RETRY_EVERY)
        store.fails = False
        done = ClaimReport(CONTENT, claimed.admission.token, ClaimEnd.DONE, 900)
        drive(process.state.report(Report(POOL, claim=done), local=claimed.local))
        clock.advance(5)
        repeat = Process(store, clock).ask(claim=ClaimAsk(CONTENT, 60))
        assert (repeat.admission.claim, repeat.admission.claim_age) == (ClaimState.DONE, 5.0)


class TestAStoreThatLostItsMemory:
    def test_is_taught_what_this_process_used(self, process: Process, store: FakeStore, clock: FakeClock) -> None:
        process.take(2)
        clock.advance(1)
        store.lose_memory()
        assert process.ask().admission.wait == 0.0
        assert process.take(2) == [True, False]
        assert [(use.age, use.cost) for request in store.asked for use in getattr(request, "past", ())] == [
            (1 * MICROSECONDS, 2)
        ]

    def test_does_not_let_the_very_call_through_that_finds_out(self, process: Process, store: FakeStore) -> None:
        process.take(LIMIT.count)
        store.lose_memory()
        assert process.take(2) == [False, False]

    def test_does_not_let_those_through_that_ask_at_the_same_time(self, process: Process, store: FakeStore) -> None:
        process.take(LIMIT.count)
        store.lose_memory()
        asking = [process.state.admit(Admit(POOL, LIMIT, longest_wait=99)) for _ in range(3)]
        answers = [store.perform(next(effects).request) for effects in asking]
        assert [answer.wait for answer in answers] == [0.0] * 3
        waits: list[float] = []
        for effects, answer in zip(asking, answers, strict=True):
            with pytest.raises(StopIteration) as granted:
                effects.send(answer)
            waits.append(granted.value.value.admission.wait)
        assert waits == [10.0] * 3

    def test_an_answer_from_before_is_not_taken_for_another_loss(self, process: Process, store: FakeStore) -> None:
        process.ask()
        late = process.state.admit(Admit(POOL, LIMIT))
        answer = store.perform(next(late).request)
        store.lose_memory()
        process.ask()
        with pytest.raises(StopIteration):
            late.send(answer)
        process.ask()
        past = [use for request in store.asked for use in getattr(request, "past", ())]
        assert sum(use.cost for use in past) == 1

    def test_grants_no_more_than_a_share_until_it_was_taught(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        other = Process(store, clock)
        store.workers = 2
        assert process.take(2) + other.take(2) == [True] * 4
        store.lose_memory()
        assert process.take(1) + other.take(1) == [False] * 2


class TestCorrections:
    def test_are_told_with_the_next_ask(self, process: Process, store: FakeStore) -> None:
        grant = process.ask()
        process.settle(grant, actual=0)
        assert len(store.asked) == 1
        process.ask()
        assert store.last_ask.corrections == (Correction(grant.admission.slot or 0, 1, 0),)
        process.ask()
        assert not store.last_ask.corrections

    def test_are_kept_if_it_fails(self, process: Process, store: FakeStore, clock: FakeClock) -> None:
        grant = process.ask()
        process.settle(grant, late=2.0)
        store.fails = True
        process.ask()
        clock.advance(RETRY_EVERY)
        store.fails = False
        process.ask()
        late = Correction(grant.admission.slot or 0, 1, 1, 2 * MICROSECONDS)
        assert store.last_ask.corrections == (late,)

    def test_count_here_too(self, process: Process, store: FakeStore) -> None:
        for _ in range(3):
            process.settle(process.ask(), actual=0)
        store.fails = True
        assert process.take(5) == [True, True, True, True, False]

    def test_what_went_as_planned_is_not_told(self, process: Process, store: FakeStore) -> None:
        process.settle(process.ask())
        process.ask()
        assert not store.last_ask.corrections

    def test_a_slot_given_back_is_the_next_ones_at_once(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        process.take(LIMIT.count)
        drive(process.state.give_back(process.ask(wait=99)))
        assert Process(store, clock).ask(wait=99).admission.wait == 10.0

    def test_a_slot_given_back_while_the_store_is_away_is_told_with_the_next_ask(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        grants = [process.ask(), process.ask()]
        store.fails = True
        for grant in grants:
            drive(process.state.give_back(grant))
        clock.advance(RETRY_EVERY)
        store.fails = False
        process.ask()
        assert sorted(each.slot for each in store.last_ask.corrections) == sorted(
            grant.admission.slot or 0 for grant in grants
        )

    def test_of_many_that_give_back_at_once_one_tells_for_all(self, process: Process, store: FakeStore) -> None:
        grants = [process.ask(limit=Limit(1000, 10.0)) for _ in range(150)]
        asked = len(store.asked)
        telling = process.state.give_back(grants[0])
        question = next(telling)
        for grant in grants[1:]:
            drive(process.state.give_back(grant))
        assert len(store.asked) == asked
        for _ in range(2):
            question = telling.send(store.perform(question.request))
        with pytest.raises(StopIteration):
            telling.send(store.perform(question.request))
        assert len(store.asked) == asked + 3
        assert store.perform(Admit(POOL, Limit(1000, 10.0))).used == 1


class TestCancelledWhileTheStoreIsAsked:
    def test_what_it_granted_meanwhile_is_given_back(self, process: Process, store: FakeStore) -> None:
        asking = process.state.admit(Admit(POOL, LIMIT, claim=ClaimAsk(CONTENT, 60)))
        question = next(asking)
        question.reply = store.perform(question.request)
        given_back = asking.throw(asyncio.CancelledError())
        store.perform(given_back.request)
        with pytest.raises(asyncio.CancelledError):
            asking.send(None)
        after = process.ask(claim=ClaimAsk(CONTENT, 60))
        assert after.admission.claim is ClaimState.CLAIMED
        assert after.admission.used == 1

    def test_a_slot_that_was_waited_for_is_given_back(self, process: Process, store: FakeStore) -> None:
        process.take(LIMIT.count)
        held = process.ask(wait=99)
        asking = process.state.admit(Admit(POOL, LIMIT, longest_wait=99), held)
        next(asking)  # and is cancelled before it was asked
        with pytest.raises(asyncio.CancelledError):
            asking.throw(asyncio.CancelledError())
        assert process.ask(wait=99).admission.wait == 10.0
        assert process.ask(wait=99).admission.wait == 10.0

    def test_what_the_store_was_to_be_told_is_kept(self, process: Process, store: FakeStore, clock: FakeClock) -> None:
        store.fails = True
        process.take(2)
        clock.advance(RETRY_EVERY)
        store.fails = False
        asking = process.state.admit(Admit(POOL, LIMIT))
        next(asking)
        with pytest.raises(asyncio.CancelledError):
            asking.throw(asyncio.CancelledError())
        clock.advance(RETRY_EVERY)
        assert process.take(3) == [True, True, False]

    def test_a_store_is_asked_to_the_end_however_often_the_task_is_cancelled(self, clock: FakeClock) -> None:
        class SlowStore(FakeStore):
            async def perform_async(self, request: Request) -> Any:
                for _ in range(20):
                    await asyncio.sleep(0)
                return self.perform(request)

        async def run() -> Any:
            effect = Perform(SlowStore(clock), Admit(POOL, LIMIT))
            task = asyncio.create_task(perform_async(effect))
            for _ in range(4):
                await asyncio.sleep(0)
                task.cancel()
            await asyncio.wait([task])
            assert task.cancelled()
            return effect.reply

        assert asyncio.run(run()).slot is not None


class TestWhatIsSaid:
    def test_one_warning_at_the_loss_and_one_at_the_return_without_credentials(
        self, store: FakeStore, clock: FakeClock, warnings: list[str]
    ) -> None:
        process = Process(store, clock)
        for _ in range(2):
            store.fails = True
            for _ in range(3):
                process.take(3)
                clock.advance(RETRY_EVERY)
            store.fails = False
            process.take(3)
        assert [("cannot be used" in warning) for warning in warnings] == [True, False] * 2
        assert warnings[1] == "the redis store redis://example.com:6379/0 is back"
        assert all("redis store redis://example.com:6379/0" in warning for warning in warnings)
        assert warnings[0] == (
            "the redis store redis://example.com:6379/0 cannot be used (no answer within 0.05 s); "
            "this process holds its share of each limit until it is back"
        )

    def test_answers_from_before_are_no_news(self, store: FakeStore, clock: FakeClock, warnings: list[str]) -> None:
        """Neither one that came through before the store was lost, nor one that failed before it was back."""
        process = Process(store, clock)
        early, late = (process.state.admit(Admit(POOL, LIMIT)) for _ in range(2))
        answer = store.perform(next(early).request)
        next(late)
        store.fails = True
        process.ask()
        with pytest.raises(StopIteration):
            early.send(answer)
        assert len(warnings) == 1
        clock.advance(RETRY_EVERY)
        store.fails = False
        process.ask()
        with pytest.raises(StopIteration):
            late.throw(StoreError("no answer"))
        assert len(warnings) == 2
        assert not process.state.is_away

    def test_one_call_of_each_outage_says_so_whoever_found_out(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        drive(process.state.report(Report(POOL, closed_for=0.5)))
        clock.advance(RETRY_EVERY)
        assert [process.ask().lost for _ in range(3)] == [True, False, False]
        clock.advance(RETRY_EVERY)
        store.fails = False
        assert process.ask().lost is False
        store.fails = True
        assert [process.ask().lost for _ in range(3)] == [True, False, False]

    def test_utilization_is_what_the_store_said_as_long_as_it_counts(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        Process(store, clock).take(1)
        process.ask()
        assert dict(process.state.utilization()) == {POOL.pool: 0.5}
        clock.advance(LIMIT.window)
        assert dict(process.state.utilization()) == {POOL.pool: 0.0}


class TestLearned:
    def test_a_limit_that_another_process_learned_comes_from_the_store_and_is_logged_once(
        self, process: Process, store: FakeStore, clock: FakeClock, warnings: list[str]
    ) -> None:
        drive(Process(store, clock).state.report(Report(POOL, learned=Limit(2, 10.0))))
        process.ask()
        process.ask()
        assert process.state.experience.limit(POOL) == Limit(2, 10.0)
        assert warnings == ["Insider names a limit of 2/10s for catalog.ingest, where 4/10s was believed"]

    @pytest.mark.parametrize("fails", [False, True])
    def test_utilization_is_of_the_lower_limit_as_soon_as_that_is_known(
        self, process: Process, store: FakeStore, fails: bool
    ) -> None:
        process.take(3)
        store.fails = fails
        process.take(1)
        assert dict(process.state.utilization()) == {POOL.pool: 1.0}
        process.state.experience.learn_limit(POOL, Limit(2, 10.0), LIMIT)
        assert dict(process.state.utilization()) == {POOL.pool: 2.0}

    def test_utilization_while_the_store_is_away_is_of_the_share_of_the_lower_limit(
        self, process: Process, store: FakeStore
    ) -> None:
        store.workers = 2
        process.ask()
        store.fails = True
        process.ask()
        process.state.experience.learn_limit(POOL, Limit(2, 10.0), LIMIT)
        assert dict(process.state.utilization()) == {POOL.pool: 2.0}

    @pytest.mark.parametrize("named", [Limit(9, 10.0), Limit(1, 60.0), Limit(1, 86_400.0, calendar=True)])
    def test_utilization_is_of_the_limit_it_was_counted_for_where_another_says_nothing_of_it(
        self, process: Process, named: Limit
    ) -> None:
        """A higher one may not be the app's; what was used in another window is known with the next ask."""
        process.take(4)
        process.state.experience.learn_limit(POOL, named, LIMIT)
        assert dict(process.state.utilization()) == {POOL.pool: 1.0}


class TestBounds:
    """Who has a key for each of ever so many shops does not keep them all for good."""

    @pytest.mark.parametrize("fails", [False, True])
    def test_pools_that_nobody_asks_for_any_more_are_forgotten(
        self, process: Process, store: FakeStore, clock: FakeClock, fails: bool
    ) -> None:
        store.fails = fails
        for number in range(3000):
            drive(process.state.admit(Admit(PoolKey("user.upsert", b"%16d" % number), Limit(9, 1.0))))
            clock.advance(0.01)
        # Those of the last second are kept, and a few that are on their way out.
        assert len(process.state._ledger._accounts) < 200
        assert len(process.state._local._pools) < 200

    def test_what_is_missed_in_a_long_outage_is_forgotten_when_it_no_longer_counts(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        process.ask()
        limit = Limit(1000, 1.0)
        other = PoolKey("mail.send", POOL.owner)
        for _ in range(20_000):
            clock.advance(0.01)
            if process.state._may_ask() is not None:
                continue  # this pool's calls are never the ones that try the store
            drive(process.state.admit(Admit(other, limit)))
        account = process.state._ledger._accounts.peek(other)
        assert account is not None
        assert len(account.missed) < 2500

    def test_the_record_asked_for_longest_ago_goes_first(self) -> None:
        records: Recent[int, list[int]] = Recent(list, most=3)
        for key in (1, 2, 3, 1, 4):
            records.get(key, lambda record: False)
        assert 2 not in dict(records.items())
        assert {1, 4} <= dict(records.items()).keys()

    def test_keys_that_are_all_in_use_are_bounded_too(self) -> None:
        records: Recent[int, list[int]] = Recent(list, MOST_POOLS)
        for key in range(MOST_POOLS + 500):
            records.get(key, lambda record: False)
        assert len(records) == MOST_POOLS


class TestExperience:
    def test_at_first_nothing_is_assumed_so_that_a_use_counts_until_its_answer(self) -> None:
        """The first answers may have been slow ones, of connections that had to be made."""
        experience = Experience()
        assert experience.late(POOL, due=0.0, now=1.0) == 1.0
        experience.learn_speed(POOL, took=1.0, now=1.0)
        assert experience.late(POOL, due=2.0, now=2.1) == pytest.approx(0.1)

    def test_after_the_first_seconds_only_what_was_slower_than_the_quickest_is_late(self) -> None:
        experience = Experience()
        for second in range(7):
            experience.learn_speed(POOL, took=0.1 if second else 0.5, now=second)
        assert experience.late(POOL, due=7, now=7.1) == pytest.approx(0.0)
        assert experience.late(POOL, due=8, now=8.5) == pytest.approx(0.4)

    def test_what_was_not_answered_says_nothing_of_how_quickly_insider_answers(self) -> None:
        experience = Experience()
        for second in range(7):
            experience.learn_speed(POOL, took=0.3, now=second)
        experience.late(POOL, due=7, now=7.0)
        assert experience.late(POOL, due=8, now=8.3) == pytest.approx(0.0)

    def test_a_way_that_became_longer_is_taken_for_the_rule_two_epochs_later(self) -> None:
        experience = Experience()
        for second in range(62):
            experience.learn_speed(POOL, took=0.1, now=second)
        for second in range(62, 200):
            experience.learn_speed(POOL, took=0.5, now=second)
            if second == 100:
                assert experience.late(POOL, due=100, now=100.5) == pytest.approx(0.4)
        assert experience.late(POOL, due=201, now=201.5) == pytest.approx(0.0)

    def test_each_limit_that_insider_names_is_logged_once(self, caplog: pytest.LogCaptureFixture) -> None:
        """Two of them, named in turn for ever, are two lines."""
        experience = Experience()
        with caplog.at_level("WARNING", "insider_otel"):
            for _ in range(10):
                assert experience.learn_limit(POOL, Limit(100, 60.0), LIMIT)
                assert experience.learn_limit(POOL, Limit(200, 60.0), LIMIT)
        assert len(caplog.records) == 2

    def test_a_call_is_likely_to_cost_as_much_as_the_last_one(self) -> None:
        experience = Experience()
        assert experience.cost(POOL, "user.profile") == 1
        experience.learn_cost(POOL, "user.profile", 4)
        assert experience.cost(POOL, "user.profile") == 4
        experience.learn_cost(POOL, "user.profile", 0)
        assert experience.cost(POOL, "user.profile") == 1
