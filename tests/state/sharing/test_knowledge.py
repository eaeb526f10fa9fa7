"""What a process says, learns and forgets."""

from __future__ import annotations

import pytest

from insider_otel.api.operations import Limit
from insider_otel.state.availability import RETRY_EVERY, Caller
from insider_otel.state.experience import Experience
from insider_otel.state.memory import MOST_POOLS
from insider_otel.state.protocol import (
    Admit,
    PoolKey,
    Report,
    StoreError,
)
from insider_otel.state.recent import Recent
from insider_otel.testing import FakeClock

from .help import LIMIT, POOL, FakeStore, Process, drive


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
        early, late = (process.state.admit(Admit(POOL, LIMIT), Caller()) for _ in range(2))
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
        drive(process.state.report(Report(POOL, closed_for=0.5), Caller()))
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
        drive(Process(store, clock).state.report(Report(POOL, learned=Limit(2, 10.0)), Caller()))
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
            drive(process.state.admit(Admit(PoolKey("user.upsert", b"%16d" % number), Limit(9, 1.0)), Caller()))
            clock.advance(0.01)
        # Those of the last second are kept, and a few that are on their way out.
        assert len(process.state._ledger._accounts) < 200
        assert len(process.state._local._pools) < 200

    def test_what_is_missed_in_a_long_outage_is_forgotten_when_it_no_longer_counts(
        self, process: Process, store: FakeStore, clock: FakeClock
    ) -> None:
        store.fails = True
        # One that has met the trouble is never the one that tries the store.
        caller = Caller()
        drive(process.state.admit(Admit(POOL, LIMIT), caller))
        limit = Limit(1000, 1.0)
        other = PoolKey("mail.send", POOL.owner)
        for _ in range(20_000):
            clock.advance(0.01)
            drive(process.state.admit(Admit(other, limit), caller))
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

    def test_after_the_first_seconds_what_was_slower_than_half_of_the_quickest_is_late(self) -> None:
        experience = Experience()
        for second in range(7):
            experience.learn_speed(POOL, took=0.1 if second else 0.5, now=second)
        assert experience.late(POOL, due=7, now=7.1) == pytest.approx(0.05)
        assert experience.late(POOL, due=8, now=8.5) == pytest.approx(0.45)

    def test_what_was_not_answered_says_nothing_of_how_quickly_insider_answers(self) -> None:
        experience = Experience()
        for second in range(7):
            experience.learn_speed(POOL, took=0.3, now=second)
        experience.late(POOL, due=7, now=7.0)
        assert experience.late(POOL, due=8, now=8.3) == pytest.approx(0.15)

    def test_a_way_that_became_longer_is_taken_for_the_rule_two_epochs_later(self) -> None:
        experience = Experience()
        for second in range(62):
            experience.learn_speed(POOL, took=0.1, now=second)
        for second in range(62, 200):
            experience.learn_speed(POOL, took=0.5, now=second)
            if second == 100:
                assert experience.late(POOL, due=100, now=100.5) == pytest.approx(0.45)
        assert experience.late(POOL, due=201, now=201.5) == pytest.approx(0.25)

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
