"""What every store promises of limits: memory, sqlite and redis, asked by threads, by asyncio and by trio."""

from __future__ import annotations

import time

import pytest

from insider_otel.api.operations import Limit
from insider_otel.state.expiry import window_end
from insider_otel.state.protocol import MICROSECONDS, Admit, Correction, PastUse, Store

from .teller import DAILY, HOURLY, MINUTE, ONCE, OTHER_OWNER, OTHER_POOL, PATIENT, POOL, WINDOW, Teller

# ------------------------------------------------------------------------------------------------------------ limits


def test_as_many_as_the_limit_allows_go_at_once_and_each_other_a_window_after_one_of_them(teller: Teller) -> None:
    slots = teller.use_all(HOURLY)
    assert len(slots) == 3
    assert slots == sorted(slots)
    refused = teller.admit(POOL, HOURLY, longest_wait=3599 - 60)
    assert refused.slot is None
    assert 3599 < refused.wait + (teller.now() - slots[0]) / MICROSECONDS < 3601
    assert [teller.slot(POOL, HOURLY) for _ in range(4)] == [
        *(slot + WINDOW for slot in slots),
        slots[0] + 2 * WINDOW,
    ]


def test_the_wait_is_the_time_until_the_slot(teller: Teller) -> None:
    teller.use_all(ONCE)
    before = teller.now()
    admission = teller.admit(POOL, ONCE, longest_wait=PATIENT)
    assert admission.slot is not None
    assert admission.slot - teller.now() <= admission.wait * MICROSECONDS <= admission.slot - before


def test_a_use_takes_as_much_as_it_costs(teller: Teller) -> None:
    limit = Limit(5, 3600.0)
    first = teller.slot(POOL, limit, cost=3)
    assert teller.admit(POOL, limit, cost=3).slot is None
    assert teller.admit(POOL, limit, cost=2).used == 5
    assert teller.slot(POOL, limit, cost=3) == first + WINDOW


def test_a_use_that_costs_more_than_the_limit_takes_all_of_it(teller: Teller) -> None:
    first = teller.slot(POOL, HOURLY, cost=7)
    assert teller.slot(POOL, HOURLY) == first + WINDOW


def test_a_refused_slot_is_not_taken(teller: Teller) -> None:
    (first,) = teller.use_all(ONCE)
    for _ in range(3):
        assert teller.admit(POOL, ONCE, longest_wait=60.0).slot is None
    assert teller.slot(POOL, ONCE) == first + WINDOW


def test_a_calendar_limit_is_there_again_a_little_after_midnight_utc(teller: Teller) -> None:
    began = time.time()
    first = teller.admit(POOL, DAILY)
    assert (first.wait, first.used) == (0.0, 1)
    second = teller.admit(POOL, DAILY)
    assert second.slot is None
    ends = {window_end(round(moment * MICROSECONDS), DAILY) for moment in (began, time.time())}
    assert any(abs(time.time() + second.wait - end / MICROSECONDS) < 30 for end in ends)
    assert teller.slot(POOL, DAILY) in ends


def test_used_counts_what_the_window_holds_and_nothing_that_is_to_come(teller: Teller) -> None:
    assert [teller.admit(POOL, HOURLY).used for _ in range(3)] == [1, 2, 3]
    assert teller.admit(POOL, HOURLY, longest_wait=PATIENT).used == 3
    assert teller.admit(POOL, HOURLY).used == 3


def test_a_use_is_forgotten_when_its_window_is_over(teller: Teller) -> None:
    limit = Limit(2, 0.2)
    teller.use_all(limit)
    teller.let_pass(0.2)
    # A pool that nothing is known of any more need not be listed.
    assert all(use.used == 0 for pool, use in teller.pools().items() if pool == POOL)
    assert teller.admit(POOL, limit).used == 1


def test_two_owners_and_two_pools_do_not_mix(teller: Teller) -> None:
    for pool in (POOL, OTHER_OWNER, OTHER_POOL):
        teller.use_all(ONCE, pool)
        assert teller.admit(pool, ONCE).slot is None
    teller.report(OTHER_POOL, closed_for=100.0)
    assert [teller.admit(pool, None).closed for pool in (POOL, OTHER_OWNER, OTHER_POOL)] == [False, False, True]


def test_a_changed_limit_holds_for_what_was_used_before(teller: Teller) -> None:
    slots = teller.use_all(HOURLY)
    assert teller.admit(POOL, Limit(4, 3600.0)).wait == 0
    assert teller.slot(POOL, Limit(2, 3600.0)) == slots[2] + WINDOW


@pytest.mark.parametrize(("before", "after"), [(DAILY, Limit(2, 0.2)), (Limit(2, 0.2), DAILY)])
def test_a_limit_of_another_kind_freezes_no_pool(teller: Teller, before: Limit, after: Limit) -> None:
    slots = teller.use_all(before)
    assert teller.admit(POOL, after, longest_wait=PATIENT, holding=teller.slot(POOL, before)).wait <= 0.2
    # What is told of the old limit's slots disturbs nobody either.
    teller.report(POOL, corrections=(Correction(slots[0], 1, 2, late=5),))
    assert teller.admit(POOL, after, longest_wait=PATIENT).wait < 2 * 86_400


# ---------------------------------------------------------------------------------------------------- slots to come


def test_a_slot_that_was_waited_for_holds(teller: Teller) -> None:
    limit = Limit(1, 0.3)
    (first,) = teller.use_all(limit)
    second = teller.slot(POOL, limit)
    assert second >= first + 300_000
    used = teller.use(Admit(POOL, limit, longest_wait=PATIENT, holding=second))
    assert used.wait == 0
    assert used.used == 1
    assert used.slot is not None
    assert used.slot >= second


def test_whoever_wakes_early_has_its_slot_still(teller: Teller) -> None:
    teller.use_all(ONCE)
    slot = teller.slot(POOL, ONCE)
    admission = teller.admit(POOL, ONCE, longest_wait=PATIENT, holding=slot)
    assert admission.slot == slot
    assert admission.wait > 3500


def test_whoever_oversleeps_is_counted_when_it_wakes(teller: Teller) -> None:
    limit = Limit(1, 0.2)
    teller.use_all(limit)
    second = teller.slot(POOL, limit)
    teller.let_pass(0.3)
    late = teller.slot(POOL, limit, holding=second)
    assert late >= second + 100_000
    assert teller.slot(POOL, limit) >= late + 200_000


def test_a_slot_moves_by_as_much_as_the_use_before_it_was_late(teller: Teller) -> None:
    (first,) = teller.use_all(ONCE)
    second, third = teller.slot(POOL, ONCE), teller.slot(POOL, ONCE)
    teller.let_pass(0.01)
    teller.report(POOL, corrections=(Correction(first, 1, 1, late=10_000),))
    assert teller.slot(POOL, ONCE, holding=second) == second + 10_000
    assert teller.slot(POOL, ONCE, holding=third) == third + 10_000


def test_a_slot_that_has_moved_too_far_away_is_given_back(teller: Teller) -> None:
    (first,) = teller.use_all(ONCE)
    second = teller.slot(POOL, ONCE)
    teller.let_pass(0.01)
    teller.report(POOL, corrections=(Correction(first, 1, 1, late=10_000),))
    assert teller.admit(POOL, ONCE, longest_wait=0.0, holding=second).slot is None
    assert teller.slot(POOL, ONCE) == second + 10_000


def test_a_slot_that_is_given_back_is_the_next_ones(teller: Teller) -> None:
    teller.use_all(HOURLY)
    slots = [teller.slot(POOL, HOURLY) for _ in range(6)]
    for slot in (slots[4], slots[1]):
        teller.report(POOL, corrections=(Correction(slot, 1, 0),))
    assert [teller.slot(POOL, HOURLY) for _ in range(3)] == [slots[1], slots[4], slots[3] + WINDOW]


def test_a_thousand_waiters_who_cancel_leave_no_trace(store: Store) -> None:
    teller = Teller(store, "", store.perform)
    first = teller.use_all(HOURLY)[0]
    slots = [teller.slot(POOL, HOURLY) for _ in range(1_000)]
    gone = tuple(Correction(slot, 1, 0) for slot in slots[1::2] + slots[::2])
    for start in range(0, len(gone), 100):
        teller.report(POOL, corrections=gone[start : start + 100])
    assert teller.pools()[POOL].used == 3
    assert teller.slot(POOL, HOURLY) == first + WINDOW


# ------------------------------------------------------------------------------------------------------ corrections


def test_an_attempt_that_was_not_used_frees_its_slot(teller: Teller) -> None:
    (slot,) = teller.use_all(ONCE)
    again = teller.admit(POOL, ONCE, corrections=(Correction(slot, 1, 0),))
    assert (again.wait, again.used) == (0.0, 1)


def test_an_attempt_that_cost_less_frees_the_rest(teller: Teller) -> None:
    slot = teller.slot(POOL, HOURLY, cost=3)
    teller.report(POOL, corrections=(Correction(slot, 3, 1),))
    assert [teller.admit(POOL, HOURLY).wait for _ in range(2)] == [0.0, 0.0]
    assert teller.slot(POOL, HOURLY) == slot + WINDOW


def test_an_attempt_that_cost_more_counts_with_all_of_it(teller: Teller) -> None:
    slot = teller.slot(POOL, HOURLY)
    admission = teller.admit(POOL, HOURLY, longest_wait=PATIENT, corrections=(Correction(slot, 1, 3),))
    assert (admission.slot, admission.used) == (slot + WINDOW, 3)


def test_a_late_use_counts_from_when_it_was_used_but_not_from_the_future(teller: Teller) -> None:
    (slot,) = teller.use_all(ONCE)
    admission = teller.admit(POOL, ONCE, longest_wait=PATIENT, corrections=(Correction(slot, 1, 1, late=10**9),))
    assert admission.slot is not None
    assert admission.slot <= teller.now() + WINDOW
    assert admission.wait == pytest.approx(3600, abs=10)


def test_a_late_use_that_is_told_of_twice_counts_once(teller: Teller) -> None:
    """Who had no answer in time tells it again, though it may have been heard."""
    slots = teller.use_all(HOURLY)
    teller.let_pass(0.01)
    late = tuple(Correction(slot, 1, 1, late=10_000) for slot in slots[:2])
    for _ in range(2):
        teller.report(POOL, corrections=late)
    assert teller.admit(POOL, HOURLY).used == 3


def test_a_use_that_cost_less_and_is_told_of_twice_counts_once(teller: Teller) -> None:
    slot = teller.slot(POOL, HOURLY, cost=3)
    teller.let_pass(0.01)
    for _ in range(2):
        teller.report(POOL, corrections=(Correction(slot, 3, 1),))
    assert teller.admit(POOL, HOURLY).used == 2


def test_uses_that_the_store_missed_count(teller: Teller) -> None:
    admission = teller.admit(POOL, HOURLY, past=(PastUse(10 * MINUTE, 1), PastUse(5 * MINUTE, 1)))
    assert (admission.wait, admission.used) == (0.0, 3)
    assert admission.slot is not None
    assert [teller.slot(POOL, HOURLY) - admission.slot for _ in range(2)] == [50 * MINUTE, 55 * MINUTE]


def test_a_missed_use_that_no_longer_counts_does_not(teller: Teller) -> None:
    admission = teller.admit(POOL, ONCE, past=(PastUse(61 * MINUTE, 5),))
    assert (admission.wait, admission.used) == (0.0, 1)


# ------------------------------------------------------------------------------------------------------ closed pools


@pytest.mark.parametrize("limit", [HOURLY, None])
def test_a_closed_pool_holds_everybody(teller: Teller, limit: Limit | None) -> None:
    teller.report(POOL, closed_for=300.0)
    refused = teller.admit(POOL, limit, longest_wait=200.0)
    assert (refused.slot, refused.closed) == (None, True)
    granted = teller.admit(POOL, limit, longest_wait=300.0)
    assert granted.slot is not None
    assert granted.closed
    assert refused.wait == pytest.approx(300.0, abs=10)
    assert granted.wait <= refused.wait


@pytest.mark.parametrize("limit", [Limit(100, 60.0), None])
def test_a_pool_opens_again(teller: Teller, limit: Limit | None) -> None:
    began = teller.now()
    teller.report(POOL, closed_for=0.2)
    opened = teller.use(Admit(POOL, limit, longest_wait=PATIENT))
    assert (opened.wait, opened.closed) == (0.0, False)
    assert teller.now() - began >= 200_000
    assert all(use.closed_for == 0 for use in teller.pools().values())


def test_a_shorter_closing_does_not_open_a_pool(teller: Teller) -> None:
    teller.report(POOL, closed_for=300.0)
    teller.report(POOL, closed_for=1.0)
    assert teller.admit(POOL).wait == pytest.approx(300.0, abs=10)


def test_a_closed_pool_opens_with_the_whole_limit(teller: Teller) -> None:
    teller.report(POOL, closed_for=300.0)
    slots = [teller.slot(POOL, HOURLY) for _ in range(4)]
    assert slots == [slots[0], slots[0] + 1, slots[0] + 2, slots[0] + WINDOW], "no two who wait have the same"


def test_a_slot_moves_if_the_pool_was_closed_meanwhile(teller: Teller) -> None:
    teller.use_all(ONCE)
    second, third = teller.slot(POOL, ONCE), teller.slot(POOL, ONCE)
    teller.report(POOL, closed_for=3 * 3600.0)
    assert teller.admit(POOL, ONCE, longest_wait=60.0, holding=second).slot is None
    moved = teller.admit(POOL, ONCE, longest_wait=PATIENT, holding=third)
    assert moved.closed
    assert moved.wait == pytest.approx(3 * 3600.0, abs=10)
    assert moved.slot is not None
    assert teller.slot(POOL, ONCE) == moved.slot + WINDOW


# ------------------------------------------------------------------------------------------------- what Insider named


@pytest.mark.parametrize("limit", [HOURLY, None])
def test_a_limit_that_insider_named_is_handed_on(teller: Teller, limit: Limit | None) -> None:
    learned = Limit(30, 60.0)
    assert teller.admit(POOL, limit).learned is None
    teller.report(POOL, learned=learned)
    assert teller.admit(POOL, limit).learned == learned
    assert teller.admit(OTHER_OWNER, limit).learned is None
    teller.report(POOL, closed_for=0.0)
    assert teller.pools()[POOL].learned == learned


@pytest.mark.parametrize(
    "learned", [DAILY, Limit(7, 0.5), Limit(1000, 60.0, unit="quota"), Limit(1, 86_400.0, True, counts_failures=False)]
)
def test_every_kind_of_limit_is_handed_on_whole(teller: Teller, learned: Limit) -> None:
    teller.report(POOL, learned=learned)
    assert teller.admit(POOL, learned).learned == learned
    assert teller.pools()[POOL].limit == learned


def test_pools_are_listed_with_what_is_known_of_them(teller: Teller) -> None:
    assert teller.pools() == {}
    teller.use_all(Limit(2, 3600.0))
    teller.admit(POOL, HOURLY)
    teller.report(OTHER_POOL, closed_for=300.0)
    pools = teller.pools()
    assert set(pools) == {POOL, OTHER_POOL}
    busy, closed = pools[POOL], pools[OTHER_POOL]
    assert (busy.limit, busy.used, busy.closed_for, busy.workers) == (HOURLY, 3, 0, 1)
    assert (closed.limit, closed.used, closed.workers) == (None, 0, 1)
    assert closed.closed_for == pytest.approx(300.0, abs=10)


@pytest.mark.parametrize("kind", ["sqlite", "redis"], indirect=True)
def test_workers_are_those_who_asked_lately(teller: Teller) -> None:
    assert [teller.admit(POOL, HOURLY, worker=worker).workers for worker in (b"one", b"two", b"one")] == [1, 2, 2]
    assert teller.pools()[POOL].workers == 2


@pytest.mark.parametrize("kind", ["sqlite", "redis"], indirect=True)
def test_a_worker_that_knows_of_another_record_does_not_count_until_it_knows_of_this_one(teller: Teller) -> None:
    born = teller.admit(POOL, HOURLY, worker=b"one").born
    asks = [teller.admit(POOL, HOURLY, worker=b"two", born=known) for known in (born - 1, born)]
    assert [answer.workers for answer in asks] == [1, 2]


def test_a_record_is_known_by_when_it_began(teller: Teller) -> None:
    assert len({teller.admit(POOL, HOURLY).born for _ in range(4)}) == 1
