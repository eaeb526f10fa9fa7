"""What becomes of slots: used late, given back, cancelled."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from insider_otel.api.operations import Limit
from insider_otel.http.performing import perform_async
from insider_otel.state.availability import RETRY_EVERY, Caller
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admit,
    ClaimAsk,
    ClaimState,
    Correction,
    Perform,
    Request,
)
from insider_otel.testing import FakeClock

from .help import CONTENT, LIMIT, POOL, FakeStore, Process, drive


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
        drive(process.state.give_back(process.ask(wait=99), Caller()))
        assert Process(store, clock).ask(wait=99).admission.wait == 10.0

    def test_a_slot_given_back_while_the_store_is_away_is_told_with_the_next_ask(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        grants = [process.ask(), process.ask()]
        store.fails = True
        for grant in grants:
            drive(process.state.give_back(grant, Caller()))
        clock.advance(RETRY_EVERY)
        store.fails = False
        process.ask()
        assert sorted(each.slot for each in store.last_ask.corrections) == sorted(
            grant.admission.slot or 0 for grant in grants
        )

    def test_of_many_that_give_back_at_once_one_tells_for_all(self, process: Process, store: FakeStore) -> None:
        grants = [process.ask(limit=Limit(1000, 10.0)) for _ in range(150)]
        asked = len(store.asked)
        telling = process.state.give_back(grants[0], Caller())
        question = next(telling)
        for grant in grants[1:]:
            drive(process.state.give_back(grant, Caller()))
        assert len(store.asked) == asked
        for _ in range(2):
            question = telling.send(store.perform(question.request))
        with pytest.raises(StopIteration):
            telling.send(store.perform(question.request))
        assert len(store.asked) == asked + 3
        assert store.perform(Admit(POOL, Limit(1000, 10.0))).used == 1


class TestCancelledWhileTheStoreIsAsked:
    def test_what_it_granted_meanwhile_is_given_back(self, process: Process, store: FakeStore) -> None:
        asking = process.state.admit(Admit(POOL, LIMIT, claim=ClaimAsk(CONTENT, 60)), Caller())
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
        asking = process.state.admit(Admit(POOL, LIMIT, longest_wait=99), Caller(), held)
        next(asking)  # and is cancelled before it was asked
        with pytest.raises(asyncio.CancelledError):
            asking.throw(asyncio.CancelledError())
        waits = [process.ask(wait=99).admission.wait for _ in range(2)]
        assert waits == pytest.approx([10.0] * 2)

    def test_what_the_store_was_to_be_told_is_kept(self, process: Process, store: FakeStore, clock: FakeClock) -> None:
        store.fails = True
        process.take(2)
        clock.advance(RETRY_EVERY)
        store.fails = False
        asking = process.state.admit(Admit(POOL, LIMIT), Caller())
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
