"""What a process does while its store is away, and when it is back."""

from __future__ import annotations

import pytest

from insider_otel.api.operations import Limit
from insider_otel.state.availability import RETRY_EVERY, Caller
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Perform,
    PoolKey,
    Report,
    StoreError,
)
from insider_otel.testing import FakeClock

from .help import CONTENT, LIMIT, POOL, FakeStore, Process, drive


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

    def test_a_call_waits_for_it_once_in_each_outage(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        caller, other = Caller(), Caller()

        def waits(who: Caller) -> bool:
            asked = len(store.asked)
            clock.advance(RETRY_EVERY)
            drive(process.state.admit(Admit(POOL, LIMIT), who))
            return len(store.asked) > asked

        store.fails = True
        assert [waits(caller) for _ in range(3)] == [True, False, False]
        assert [waits(other) for _ in range(3)] == [True, False, False]
        store.fails = False
        assert waits(Caller())
        assert waits(caller)
        store.fails = True
        assert [waits(caller) for _ in range(3)] == [True, False, False]

    def test_while_one_call_tries_it_again_the_others_go_on(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        process.ask()
        clock.advance(RETRY_EVERY)
        trying = process.state.admit(Admit(POOL, LIMIT), Caller())
        assert isinstance(next(trying), Perform)
        assert process.ask().local
        assert len(store.asked) == 1
        trying.close()

    def test_a_slot_that_was_waited_for_is_as_good_as_it_was(self, process: Process, store: FakeStore) -> None:
        process.take(LIMIT.count)
        held = process.ask(wait=99)
        store.fails = True
        woken = process.ask(wait=99, held=held)
        assert woken.admission.slot is not None
        assert woken.admission.wait == 0.0

    def test_a_slot_that_was_waited_for_is_counted_once_when_the_store_is_back(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        """Where the store has lost its memory meanwhile, too."""
        process.take(LIMIT.count)
        held = [process.ask(wait=99) for _ in range(LIMIT.count)]
        store.lose_memory()
        process.ask()
        clock.advance(LIMIT.window)
        store.fails = True
        woken = [process.ask(wait=99, held=grant) for grant in held]
        assert [grant.admission.wait for grant in woken] == [0.0] * LIMIT.count
        clock.advance(RETRY_EVERY)
        store.fails = False
        assert process.take(LIMIT.count) == [False] * LIMIT.count
        clock.advance(LIMIT.window)
        assert process.take(LIMIT.count + 1) == [True] * LIMIT.count + [False]

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
        assert [first.admission.wait, second.admission.wait] == pytest.approx([10.0] * 2)
        for _ in range(LIMIT.count - 2):
            process.ask(wait=99)
        clock.advance(10)
        trying = process.state.admit(Admit(POOL, LIMIT, longest_wait=99), Caller(), first)
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
        drive(process.state.report(Report(POOL, claim=done), Caller(), local=True))
        assert process.ask(claim=ClaimAsk(CONTENT, 60)).admission.claim is ClaimState.DONE

    def test_what_was_done_before_is_held_back(self, process: Process, store: FakeStore) -> None:
        token = process.ask(claim=ClaimAsk(CONTENT, 60)).admission.token
        drive(process.state.report(Report(POOL, claim=ClaimReport(CONTENT, token, ClaimEnd.DONE, 900)), Caller()))
        store.fails = True
        assert process.ask(claim=ClaimAsk(CONTENT, 60)).admission.claim is ClaimState.DONE

    def test_a_pool_that_was_closed_stays_closed(self, process: Process, store: FakeStore) -> None:
        drive(process.state.report(Report(POOL, closed_for=7.0), Caller()))
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


class TestAStoreThatAnswersTooLate:
    """It does all the same what it is asked: one that is frozen when it thaws, one that is far away each time."""

    MANY = Limit(100, 60.0)

    def used(self, store: FakeStore, clock: FakeClock) -> int:
        """What another process is told to be used, its own ask included."""
        return Process(store, clock).ask(limit=self.MANY).admission.used

    def test_is_not_told_the_same_uses_and_asked_for_one_more_each_time_it_is_tried(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.is_late = True
        for _ in range(10):
            process.ask(limit=self.MANY)
            clock.advance(RETRY_EVERY)
        store.is_late = False
        process.ask(limit=self.MANY)
        # One more was granted to the call that found out, which did not hear it.
        assert self.used(store, clock) == 10 + 1 + 1 + 1

    def test_takes_no_content_for_a_call_that_does_not_hear_it(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        process.ask()
        store.is_late = True
        process.ask()
        clock.advance(RETRY_EVERY)
        process.ask(claim=ClaimAsk(CONTENT, 60))
        store.is_late = False
        assert Process(store, clock).ask(claim=ClaimAsk(CONTENT, 60)).admission.claim is ClaimState.CLAIMED

    def test_counts_late_uses_once_though_it_is_told_of_them_twice(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        grants = [process.ask(limit=self.MANY) for _ in range(30)]
        clock.advance(0.5)
        for grant in grants:
            process.settle(grant, late=0.5)
        store.is_late = True
        process.ask(limit=self.MANY)
        store.is_late = False
        clock.advance(RETRY_EVERY)
        process.ask(limit=self.MANY)
        assert self.used(store, clock) == 30 + 1 + 1 + 1 + 1


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
        assert process.ask(wait=99).admission.wait == pytest.approx(5.0)
        assert sum(use.cost for use in store.last_ask.past) == LIMIT.count
        clock.advance(5)
        assert [process.ask(wait=99, held=each).admission.wait for each in held] == [0.0] * 3

    def test_a_local_slot_that_was_cancelled_is_not_told(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        drive(process.state.give_back(process.ask(), Caller()))
        clock.advance(RETRY_EVERY)
        store.fails = False
        process.ask()
        assert store.last_ask.past == ()

    def test_slots_are_not_given_twice_while_one_call_asks_and_others_go_on_alone(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        process.take(LIMIT.count - 1)
        clock.advance(RETRY_EVERY)
        store.fails = False
        trying = process.state.admit(Admit(POOL, LIMIT, longest_wait=99), Caller())
        store.perform(next(trying).request)
        assert process.ask().local
        question = trying.send(None)
        with pytest.raises(StopIteration) as granted:
            trying.send(store.perform(question.request))
        assert granted.value.value.admission.wait == pytest.approx(9.0)

    def test_who_asks_beside_the_one_that_tells_waits_for_what_was_not_told_yet(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        process.take(LIMIT.count)
        other = PoolKey("mail.send", POOL.owner)
        clock.advance(RETRY_EVERY)
        store.fails = False
        drive(process.state.admit(Admit(other, LIMIT), Caller()))
        telling = process.state.admit(Admit(POOL, LIMIT), Caller())
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
        drive(process.state.report(Report(POOL, claim=done), Caller(), local=claimed.local))
        clock.advance(5)
        repeat = Process(store, clock).ask(claim=ClaimAsk(CONTENT, 60))
        assert (repeat.admission.claim, repeat.admission.claim_age) == (ClaimState.DONE, 5.0)
