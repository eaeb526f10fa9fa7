"""What a store did not hear, or has forgotten, and is told."""

from __future__ import annotations

import pytest

from insider_otel.api.operations import Limit
from insider_otel.state.availability import RETRY_EVERY, Caller
from insider_otel.state.dropped import finish_dropped
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Report,
    StoreEffects,
    StoreError,
)
from insider_otel.testing import FakeClock

from .help import CONTENT, LIMIT, POOL, FakeStore, Process, drive


class TestAReportThatDidNotReachTheStore:
    """It is told before the next ask: one that could not be told is not forgotten."""

    def done(self, process: Process, key: bytes = CONTENT) -> StoreEffects[None]:
        """The course of telling that the call with a content succeeded, which took no time."""
        token = process.ask(claim=ClaimAsk(key, 60)).admission.token
        return process.state.report(Report(POOL, claim=ClaimReport(key, token, ClaimEnd.DONE, 900)), Caller())

    def state_of(self, process: Process, key: bytes = CONTENT) -> ClaimState | None:
        """What is known of a content to a process that asks for it."""
        return process.ask(claim=ClaimAsk(key, 60)).admission.claim

    def test_a_content_that_was_sent_is_not_sent_again(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        telling = self.done(process)
        store.fails = True
        drive(telling)
        store.fails = False
        clock.advance(RETRY_EVERY)
        assert self.state_of(process) is ClaimState.DONE
        assert self.state_of(Process(store, clock)) is ClaimState.DONE

    def test_nor_if_the_call_is_broken_off_while_it_tells(self, process: Process, store: FakeStore) -> None:
        cancelled, dropped = self.done(process), self.done(process, b"d" * 16)
        for telling in (cancelled, dropped):
            next(telling)
        with pytest.raises(KeyboardInterrupt):
            cancelled.throw(KeyboardInterrupt)
        dropped.close()
        finish_dropped()
        assert self.state_of(process) is ClaimState.DONE
        assert self.state_of(process, b"d" * 16) is ClaimState.DONE

    def test_of_many_each_ask_tells_one(self, process: Process, store: FakeStore, clock: FakeClock) -> None:
        keys = [bytes([number]) * 16 for number in range(4)]
        tellings = [self.done(process, key) for key in keys]
        store.fails = True
        for telling in tellings:
            drive(telling)
        store.fails = False
        clock.advance(LIMIT.window)
        for number in range(len(keys) + 1):
            store.asked.clear()
            process.ask()
            assert [type(request) for request in store.asked] == [Report] * (number < len(keys)) + [Admit]
        other = Process(store, clock)
        assert [self.state_of(other, key) for key in keys] == [ClaimState.DONE] * len(keys)

    def test_asks_that_are_made_at_once_tell_different_ones(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        keys = [bytes([number]) * 16 for number in range(4)]
        tellings = [self.done(process, key) for key in keys]
        store.fails = True
        for telling in tellings:
            drive(telling)
        store.fails = False
        clock.advance(LIMIT.window)
        process.ask()
        asking = [process.state.admit(Admit(POOL, LIMIT), Caller()) for _ in keys[1:]]
        said = [next(effects).request for effects in asking]
        assert {request.claim.key for request in said if isinstance(request, Report) and request.claim} == {*keys[1:]}

    def test_a_call_that_fails_does_not_take_back_that_another_has_sent_the_same(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        """The one claimed the content at the store, the other in its place."""
        token = process.ask(claim=ClaimAsk(CONTENT, 60)).admission.token
        store.fails = True
        drive(self.done(process))
        failed = ClaimReport(CONTENT, token, ClaimEnd.RELEASE, 60)
        drive(process.state.report(Report(POOL, claim=failed), Caller()))
        store.fails = False
        clock.advance(100)
        process.ask()
        assert self.state_of(Process(store, clock)) is ClaimState.DONE

    @pytest.mark.parametrize("how", ["cancelled", "dropped"])
    def test_who_is_broken_off_while_telling_leaves_the_slot_that_it_waited_for(
        self, how: str, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        telling = self.done(process)
        process.take(LIMIT.count - 1)
        held = process.ask(wait=99)
        store.fails = True
        drive(telling)
        store.fails = False
        clock.advance(LIMIT.window)
        waking = process.state.admit(Admit(POOL, LIMIT, longest_wait=99), Caller(), held)
        assert isinstance(next(waking).request, Report)
        if how == "dropped":
            waking.close()
            finish_dropped()
        else:
            with pytest.raises(KeyboardInterrupt):
                waking.throw(KeyboardInterrupt)
        assert process.take(LIMIT.count + 1) == [True] * LIMIT.count + [False]

    def test_it_lasts_no_longer_than_it_would_have(self, process: Process, store: FakeStore, clock: FakeClock) -> None:
        early, late = self.done(process), self.done(process, b"d" * 16)
        store.fails = True
        drive(early)
        clock.advance(450)
        drive(late)
        store.fails = False
        clock.advance(450)
        assert self.state_of(process) is ClaimState.CLAIMED
        assert self.state_of(process, b"d" * 16) is ClaimState.DONE
        clock.advance(450)
        assert self.state_of(process, b"d" * 16) is ClaimState.CLAIMED

    def test_a_pool_that_insider_closed_stays_closed(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        process.ask()
        store.fails = True
        drive(process.state.report(Report(POOL, closed_for=120.0), Caller()))
        store.fails = False
        clock.advance(20)
        for asking in (process, Process(store, clock)):
            refused = asking.ask()
            assert (refused.admission.slot, refused.admission.wait) == (None, 100.0)
        clock.advance(100)
        assert process.take(1) == [True]

    def test_and_what_insider_said_of_its_limit_is_told(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        process.ask()
        store.fails = True
        drive(process.state.report(Report(POOL, learned=Limit(2, 10.0)), Caller()))
        store.fails = False
        clock.advance(RETRY_EVERY)
        process.ask()
        assert Process(store, clock).ask().admission.learned == Limit(2, 10.0)

    def test_but_not_when_others_may_know_better(self, process: Process, store: FakeStore, clock: FakeClock) -> None:
        process.ask()
        store.fails = True
        drive(process.state.report(Report(POOL, learned=Limit(2, 10.0)), Caller()))
        store.fails = False
        clock.advance(5)
        other = Process(store, clock)
        drive(other.state.report(Report(POOL, learned=Limit(50, 10.0)), Caller()))
        clock.advance(5)
        process.ask()
        assert other.ask().admission.learned == Limit(50, 10.0)


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

    @pytest.mark.parametrize("how", ["cancelled", "dropped", "the store is away"])
    def test_has_what_it_granted_to_that_call_given_back_though_the_call_ends_meanwhile(
        self, how: str, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        process.take(LIMIT.count)
        store.lose_memory()
        clock.advance(5)
        finding_out = process.state.admit(Admit(POOL, LIMIT, claim=ClaimAsk(CONTENT, 60)), Caller())
        answer = store.perform(next(finding_out).request)
        giving_back = finding_out.send(answer)
        assert isinstance(giving_back.request, Report)
        if how == "cancelled":
            with pytest.raises(KeyboardInterrupt):
                finding_out.throw(KeyboardInterrupt)
        elif how == "dropped":
            finding_out.close()
            finish_dropped()
        else:
            with pytest.raises(StopIteration):
                finding_out.throw(StoreError("no answer"))
        clock.advance(5)
        assert process.ask().admission.used == 1
        assert Process(store, clock).ask(claim=ClaimAsk(CONTENT, 60)).admission.claim is ClaimState.CLAIMED

    def test_does_not_let_those_through_that_ask_at_the_same_time(self, process: Process, store: FakeStore) -> None:
        process.take(LIMIT.count)
        store.lose_memory()
        asking = [process.state.admit(Admit(POOL, LIMIT, longest_wait=99), Caller()) for _ in range(3)]
        answers = [store.perform(next(effects).request) for effects in asking]
        assert [answer.wait for answer in answers] == [0.0] * 3
        waits: list[float] = []
        for effects, answer in zip(asking, answers, strict=True):
            with pytest.raises(StopIteration) as granted:
                effects.send(answer)
            waits.append(granted.value.value.admission.wait)
        assert waits == pytest.approx([10.0] * 3)

    def test_an_answer_from_before_is_not_taken_for_another_loss(self, process: Process, store: FakeStore) -> None:
        process.ask()
        late = process.state.admit(Admit(POOL, LIMIT), Caller())
        answer = store.perform(next(late).request)
        store.lose_memory()
        process.ask()
        with pytest.raises(StopIteration) as granted:
            late.send(answer)
        assert granted.value.value.admission.slot is not None
        # It is told of the first ask and of the late one, each once, and has counted the one between.
        assert process.take(3) == [True, False, False]
        past = [use for request in store.asked for use in getattr(request, "past", ())]
        assert sum(use.cost for use in past) == 2

    def test_is_told_of_a_slot_that_it_granted_before_as_it_was_used(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        late, unused, used = process.ask(), process.ask(), process.ask()
        clock.advance(3)
        store.lose_memory()
        process.ask()
        process.settle(late, late=1.0)
        drive(process.state.give_back(unused, Caller()))
        process.settle(used)
        process.ask()
        past = sorted((use.age, use.cost) for request in store.asked for use in getattr(request, "past", ()))
        assert past == [(2 * MICROSECONDS, 1), (3 * MICROSECONDS, 1)]

    def test_is_told_that_insider_closed_the_pool(self, process: Process, store: FakeStore, clock: FakeClock) -> None:
        process.ask()
        drive(process.state.report(Report(POOL, closed_for=120.0), Caller()))
        store.lose_memory()
        clock.advance(20)
        assert process.take(2) == [False, False]
        assert Process(store, clock).ask().admission.wait == 100.0

    def test_grants_no_more_than_a_share_until_it_was_taught(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.workers = 2
        other = Process(store, clock)
        assert process.take(2) + other.take(2) == [True] * 4
        store.lose_memory()
        assert process.take(2) + other.take(2) == [False] * 4

    def test_does_not_count_on_one_that_has_found_out_and_not_told_yet(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        other = Process(store, clock)
        assert process.take(1) + other.take(3) + process.take(1) == [True] * 4 + [False]
        store.lose_memory()
        assert other.take(1) == [False]
        assert process.take(3) == [False] * 3

    def test_nor_while_one_of_its_calls_is_about_to_tell_and_another_comes_first(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        other = Process(store, clock)
        assert process.take(1) + other.take(3) + process.take(1) == [True] * 4 + [False]
        store.lose_memory()
        other.ask()
        telling = other.state.admit(Admit(POOL, LIMIT), Caller())
        next(telling)
        other.ask()
        assert process.take(3) == [False] * 3
        telling.close()

    def test_grants_the_whole_limit_when_all_have_told(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.workers = 2
        other = Process(store, clock)
        assert process.take(2) + other.take(1) == [True] * 3
        clock.advance(LIMIT.window / 2)
        store.lose_memory()
        assert process.take(2) + other.take(2) == [False, False, True, False]
        clock.advance(LIMIT.window / 2)
        assert process.take(4) == [True, True, True, False]

    def test_waits_no_longer_than_a_minute_for_those_that_are_no_more(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        """Of a limit of a day those that have ended since midnight are many."""
        daily = Limit(10, 86_400.0)

        def granted(number: int) -> int:
            return sum(process.ask(limit=daily).admission.slot is not None for _ in range(number))

        assert granted(1) == 1
        Process(store, clock).ask(limit=daily)
        assert granted(1) == 1
        store.lose_memory()
        assert granted(9) == 3, "with those of before, its half of the limit"
        clock.advance(61)
        assert granted(9) == 5

    def test_waits_for_one_that_is_no_more_until_nothing_from_before_counts(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.workers = 2
        assert process.take(2) + Process(store, clock).take(1) == [True] * 3
        clock.advance(LIMIT.window / 2)
        store.lose_memory()
        assert process.take(2) == [False, False]
        clock.advance(LIMIT.window / 2)
        assert process.take(3) == [True, True, False]
        clock.advance(LIMIT.window / 2)
        assert process.take(3) == [True, True, False]
        clock.advance(LIMIT.window / 2)
        assert process.take(3) == [True, True, False]
