"""What every store promises: memory, sqlite and redis, asked by threads, by asyncio and by trio."""

from __future__ import annotations

import itertools
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from insider_otel.api.operations import Limit
from insider_otel.state.memory import MemoryStore
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Correction,
    ListPools,
    PastUse,
    PoolKey,
    Report,
    Store,
)
from insider_otel.state.window import DAY, MIDNIGHT_GUARD

from .conftest import PATIENT, Teller
from .race import claim_state, claim_state_at, in_processes

POOL = PoolKey("user.upsert", b"o" * 16)
OTHER_OWNER = PoolKey("user.upsert", b"p" * 16)
OTHER_POOL = PoolKey("mail.send", b"o" * 16)
KEY = b"k" * 16
LEASE = 60.0

# Long enough that nothing of it passes while a test runs.
MINUTE, WINDOW = 60 * MICROSECONDS, 3600 * MICROSECONDS
HOURLY = Limit(3, 3600.0)
ONCE = Limit(1, 3600.0)
DAILY = Limit(1, 86_400.0, calendar=True)


def claim(key: bytes = KEY, lease: float = LEASE, token: int | None = None) -> ClaimAsk:
    return ClaimAsk(key, lease, token)


def use_all(teller: Teller, limit: Limit = HOURLY, pool: PoolKey = POOL) -> list[int]:
    """Take all that a limit allows at once."""
    admissions = [teller.admit(pool, limit) for _ in range(limit.count)]
    assert [admission.wait for admission in admissions] == [0.0] * limit.count
    return [admission.slot for admission in admissions if admission.slot is not None]


# ------------------------------------------------------------------------------------------------------------ limits


def test_as_many_as_the_limit_allows_go_at_once_and_each_other_a_window_after_one_of_them(teller: Teller) -> None:
    slots = use_all(teller)
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
    use_all(teller, ONCE)
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
    (first,) = use_all(teller, ONCE)
    for _ in range(3):
        assert teller.admit(POOL, ONCE, longest_wait=60.0).slot is None
    assert teller.slot(POOL, ONCE) == first + WINDOW


def test_a_calendar_limit_is_there_again_a_little_after_midnight_utc(teller: Teller) -> None:
    began = time.time()
    first = teller.admit(POOL, DAILY)
    assert (first.wait, first.used) == (0.0, 1)
    second = teller.admit(POOL, DAILY)
    assert second.slot is None
    ends = {(round(moment * MICROSECONDS) // DAY + 1) * DAY + MIDNIGHT_GUARD for moment in (began, time.time())}
    assert any(abs(time.time() + second.wait - end / MICROSECONDS) < 30 for end in ends)
    assert teller.slot(POOL, DAILY) in ends


def test_used_counts_what_the_window_holds_and_nothing_that_is_to_come(teller: Teller) -> None:
    assert [teller.admit(POOL, HOURLY).used for _ in range(3)] == [1, 2, 3]
    assert teller.admit(POOL, HOURLY, longest_wait=PATIENT).used == 3
    assert teller.admit(POOL, HOURLY).used == 3


def test_a_use_is_forgotten_when_its_window_is_over(teller: Teller) -> None:
    limit = Limit(2, 0.2)
    use_all(teller, limit)
    teller.let_pass(0.2)
    assert (teller.pools()[POOL].used, teller.admit(POOL, limit).used) == (0, 1)


def test_two_owners_and_two_pools_do_not_mix(teller: Teller) -> None:
    for pool in (POOL, OTHER_OWNER, OTHER_POOL):
        use_all(teller, ONCE, pool)
        assert teller.admit(pool, ONCE).slot is None
    teller.report(OTHER_POOL, closed_for=100.0)
    assert [teller.admit(pool, None).closed for pool in (POOL, OTHER_OWNER, OTHER_POOL)] == [False, False, True]


def test_a_changed_limit_holds_for_what_was_used_before(teller: Teller) -> None:
    slots = use_all(teller, HOURLY)
    assert teller.admit(POOL, Limit(4, 3600.0)).wait == 0
    assert teller.slot(POOL, Limit(2, 3600.0)) == slots[2] + WINDOW


@pytest.mark.parametrize(("before", "after"), [(DAILY, Limit(2, 0.2)), (Limit(2, 0.2), DAILY)])
def test_a_limit_of_another_kind_freezes_no_pool(teller: Teller, before: Limit, after: Limit) -> None:
    slots = use_all(teller, before)
    assert teller.admit(POOL, after, longest_wait=PATIENT, holding=teller.slot(POOL, before)).wait <= 0.2
    # What is told of the old limit's slots disturbs nobody either.
    teller.report(POOL, after, corrections=(Correction(slots[0], 1, 2, late=5),))
    assert teller.admit(POOL, after, longest_wait=PATIENT).wait < 2 * 86_400


# ---------------------------------------------------------------------------------------------------- slots to come


def test_a_slot_that_was_waited_for_holds(teller: Teller) -> None:
    limit = Limit(1, 0.3)
    (first,) = use_all(teller, limit)
    second = teller.slot(POOL, limit)
    assert second >= first + 300_000
    used = teller.use(Admit(POOL, limit, longest_wait=PATIENT, holding=second))
    assert used.wait == 0
    assert used.used == 1
    assert used.slot is not None
    assert used.slot >= second


def test_whoever_wakes_early_has_its_slot_still(teller: Teller) -> None:
    use_all(teller, ONCE)
    slot = teller.slot(POOL, ONCE)
    admission = teller.admit(POOL, ONCE, longest_wait=PATIENT, holding=slot)
    assert admission.slot == slot
    assert admission.wait > 3500


def test_whoever_oversleeps_is_counted_when_it_wakes(teller: Teller) -> None:
    limit = Limit(1, 0.2)
    use_all(teller, limit)
    second = teller.slot(POOL, limit)
    teller.let_pass(0.3)
    late = teller.slot(POOL, limit, holding=second)
    assert late >= second + 100_000
    assert teller.slot(POOL, limit) >= late + 200_000


def test_a_slot_moves_by_as_much_as_the_use_before_it_was_late(teller: Teller) -> None:
    (first,) = use_all(teller, ONCE)
    second, third = teller.slot(POOL, ONCE), teller.slot(POOL, ONCE)
    teller.let_pass(0.01)
    teller.report(POOL, ONCE, corrections=(Correction(first, 1, 1, late=10_000),))
    assert teller.slot(POOL, ONCE, holding=second) == second + 10_000
    assert teller.slot(POOL, ONCE, holding=third) == third + 10_000


def test_a_slot_that_has_moved_too_far_away_is_given_back(teller: Teller) -> None:
    (first,) = use_all(teller, ONCE)
    second = teller.slot(POOL, ONCE)
    teller.let_pass(0.01)
    teller.report(POOL, ONCE, corrections=(Correction(first, 1, 1, late=10_000),))
    assert teller.admit(POOL, ONCE, longest_wait=0.0, holding=second).slot is None
    assert teller.slot(POOL, ONCE) == second + 10_000


def test_a_slot_that_is_given_back_is_the_next_ones(teller: Teller) -> None:
    use_all(teller)
    slots = [teller.slot(POOL, HOURLY) for _ in range(6)]
    for slot in (slots[4], slots[1]):
        teller.report(POOL, HOURLY, corrections=(Correction(slot, 1, 0),))
    assert [teller.slot(POOL, HOURLY) for _ in range(3)] == [slots[1], slots[4], slots[3] + WINDOW]


def test_a_thousand_waiters_who_cancel_leave_no_trace(store: Store) -> None:
    teller = Teller(store, "", store.perform)
    first = use_all(teller)[0]
    slots = [teller.slot(POOL, HOURLY) for _ in range(1_000)]
    gone = tuple(Correction(slot, 1, 0) for slot in slots[1::2] + slots[::2])
    for start in range(0, len(gone), 100):
        teller.report(POOL, HOURLY, corrections=gone[start : start + 100])
    assert teller.pools()[POOL].used == 3
    assert teller.slot(POOL, HOURLY) == first + WINDOW


# ------------------------------------------------------------------------------------------------------ corrections


def test_an_attempt_that_was_not_used_frees_its_slot(teller: Teller) -> None:
    (slot,) = use_all(teller, ONCE)
    again = teller.admit(POOL, ONCE, corrections=(Correction(slot, 1, 0),))
    assert (again.wait, again.used) == (0.0, 1)


def test_an_attempt_that_cost_less_frees_the_rest(teller: Teller) -> None:
    slot = teller.slot(POOL, HOURLY, cost=3)
    teller.report(POOL, HOURLY, corrections=(Correction(slot, 3, 1),))
    assert [teller.admit(POOL, HOURLY).wait for _ in range(2)] == [0.0, 0.0]
    assert teller.slot(POOL, HOURLY) == slot + WINDOW


def test_an_attempt_that_cost_more_counts_with_all_of_it(teller: Teller) -> None:
    slot = teller.slot(POOL, HOURLY)
    admission = teller.admit(POOL, HOURLY, longest_wait=PATIENT, corrections=(Correction(slot, 1, 3),))
    assert (admission.slot, admission.used) == (slot + WINDOW, 3)


def test_a_late_use_counts_from_when_it_was_used_but_not_from_the_future(teller: Teller) -> None:
    (slot,) = use_all(teller, ONCE)
    admission = teller.admit(POOL, ONCE, longest_wait=PATIENT, corrections=(Correction(slot, 1, 1, late=10**9),))
    assert admission.slot is not None
    assert admission.slot <= teller.now() + WINDOW
    assert admission.wait == pytest.approx(3600, abs=10)


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
    teller.report(POOL, limit, closed_for=300.0)
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
    teller.report(POOL, limit, closed_for=0.2)
    opened = teller.use(Admit(POOL, limit, longest_wait=PATIENT))
    assert (opened.wait, opened.closed) == (0.0, False)
    assert teller.now() - began >= 200_000
    assert teller.pools()[POOL].closed_for == 0


def test_a_shorter_closing_does_not_open_a_pool(teller: Teller) -> None:
    teller.report(POOL, closed_for=300.0)
    teller.report(POOL, closed_for=1.0)
    assert teller.admit(POOL).wait == pytest.approx(300.0, abs=10)


def test_a_closed_pool_opens_with_the_whole_limit(teller: Teller) -> None:
    teller.report(POOL, HOURLY, closed_for=300.0)
    slots = [teller.slot(POOL, HOURLY) for _ in range(4)]
    assert slots == [slots[0]] * 3 + [slots[0] + WINDOW]


def test_a_slot_moves_if_the_pool_was_closed_meanwhile(teller: Teller) -> None:
    use_all(teller, ONCE)
    second, third = teller.slot(POOL, ONCE), teller.slot(POOL, ONCE)
    teller.report(POOL, ONCE, closed_for=3 * 3600.0)
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
    teller.report(POOL, limit, learned=learned)
    assert teller.admit(POOL, limit).learned == learned
    assert teller.admit(OTHER_OWNER, limit).learned is None
    teller.report(POOL, limit, closed_for=0.0)
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
    use_all(teller, Limit(2, 3600.0))
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


def test_a_record_is_known_by_when_it_began(teller: Teller) -> None:
    assert len({teller.admit(POOL, HOURLY).born for _ in range(4)}) == 1


# ------------------------------------------------------------------------------------------------------------ claims


def test_the_first_to_ask_has_the_content_and_the_second_learns_since_when(teller: Teller) -> None:
    first = teller.admit(POOL, HOURLY, claim=claim())
    assert (first.claim, first.claim_age) == (ClaimState.CLAIMED, 0.0)
    assert first.token is not None
    teller.let_pass(0.02)
    second = teller.admit(POOL, HOURLY, claim=claim())
    assert (second.claim, second.token) == (ClaimState.IN_FLIGHT, None)
    assert 0.02 <= second.claim_age < 30
    # It is let through: the first may yet fail.
    assert second.slot is not None
    assert second.used == 2


def test_a_content_that_was_not_asked_for_is_not_told_of(teller: Teller) -> None:
    admission = teller.admit(POOL, HOURLY)
    assert (admission.claim, admission.claim_age, admission.token) == (None, 0.0, None)


def test_contents_do_not_mix(teller: Teller) -> None:
    assert teller.admit(POOL, claim=claim(b"a" * 16)).claim is ClaimState.CLAIMED
    assert teller.admit(POOL, claim=claim(b"b" * 16)).claim is ClaimState.CLAIMED


def test_a_call_that_tries_again_keeps_its_claim(teller: Teller) -> None:
    token = teller.admit(POOL, claim=claim()).token
    again = teller.admit(POOL, HOURLY, claim=claim(token=token))
    assert (again.claim, again.claim_age, again.token) == (ClaimState.CLAIMED, 0.0, token)
    assert teller.admit(POOL, claim=claim()).claim is ClaimState.IN_FLIGHT


def test_renewing_a_claim_lengthens_its_lease(teller: Teller) -> None:
    token = teller.admit(POOL, claim=claim(lease=0.1)).token
    teller.admit(POOL, claim=claim(token=token))
    teller.let_pass(0.1)
    assert teller.admit(POOL, claim=claim()).claim is ClaimState.IN_FLIGHT


def test_a_lease_ends_by_itself_and_its_proof_with_it(teller: Teller) -> None:
    token = teller.admit(POOL, claim=claim(lease=0.1)).token
    teller.let_pass(0.1)
    new = teller.admit(POOL, claim=claim())
    assert new.claim is ClaimState.CLAIMED
    assert new.token != token
    assert teller.admit(POOL, claim=claim(token=token)).claim is ClaimState.IN_FLIGHT


def test_a_content_that_is_done_takes_no_slot(teller: Teller) -> None:
    token = teller.admit(POOL, claim=claim()).token
    teller.let_pass(0.02)
    teller.report(POOL, claim=ClaimReport(KEY, token, ClaimEnd.DONE, 900.0))
    repeat = teller.admit(POOL, ONCE, claim=claim())
    assert (repeat.claim, repeat.slot, repeat.token) == (ClaimState.DONE, None, None)
    assert 0.02 <= repeat.claim_age < 30
    assert teller.admit(POOL, ONCE).used == 1


def test_what_comes_with_a_content_that_is_done_is_heard_and_what_is_known_of_the_pool_is_told(teller: Teller) -> None:
    learned = Limit(30, 60.0)
    before = teller.admit(POOL, HOURLY, cost=2, claim=claim(), worker=b"one")
    assert before.slot is not None
    teller.report(POOL, HOURLY, learned=learned, claim=ClaimReport(KEY, before.token, ClaimEnd.DONE, 900.0))
    unused, missed = Correction(before.slot, 2, 0), PastUse(MINUTE, 1)
    repeat = teller.admit(POOL, HOURLY, claim=claim(), corrections=(unused,), past=(missed,), worker=b"one")
    assert (repeat.claim, repeat.used, repeat.learned) == (ClaimState.DONE, 1, learned)
    assert (repeat.born, repeat.workers) == (before.born, before.workers)
    assert teller.admit(POOL, HOURLY).used == 2


def test_a_content_is_done_until_its_window_is_over(teller: Teller) -> None:
    token = teller.admit(POOL, claim=claim()).token
    teller.report(POOL, claim=ClaimReport(KEY, token, ClaimEnd.DONE, 0.1))
    teller.let_pass(0.1)
    assert teller.admit(POOL, claim=claim()).claim is ClaimState.CLAIMED


def test_whoever_had_a_content_that_is_done_is_told_so_too(teller: Teller) -> None:
    token = teller.admit(POOL, claim=claim()).token
    teller.report(POOL, claim=ClaimReport(KEY, token, ClaimEnd.DONE, 900.0))
    assert teller.admit(POOL, claim=claim(token=token)).claim is ClaimState.DONE


def test_a_call_that_did_not_have_the_claim_says_that_it_is_done_and_whoever_had_it_undoes_nothing(
    teller: Teller,
) -> None:
    token = teller.admit(POOL, claim=claim()).token
    teller.let_pass(0.05)
    teller.report(POOL, claim=ClaimReport(KEY, None, ClaimEnd.DONE, 900.0))
    for end in (ClaimEnd.RELEASE, ClaimEnd.KEEP):
        teller.report(POOL, claim=ClaimReport(KEY, token, end, 0.0))
    repeat = teller.admit(POOL, claim=claim())
    assert repeat.claim is ClaimState.DONE
    assert repeat.claim_age < 30


def test_of_two_who_are_done_the_later_end_of_the_window_counts(teller: Teller) -> None:
    for lasts in (900.0, 0.02):
        teller.report(POOL, claim=ClaimReport(KEY, None, ClaimEnd.DONE, lasts))
    teller.let_pass(0.02)
    assert teller.admit(POOL, claim=claim()).claim is ClaimState.DONE


def test_a_content_that_is_released_is_the_next_ones(teller: Teller) -> None:
    first = teller.admit(POOL, claim=claim())
    teller.report(POOL, claim=ClaimReport(KEY, first.token, ClaimEnd.RELEASE))
    second = teller.admit(POOL, claim=claim())
    assert second.claim is ClaimState.CLAIMED
    assert second.token != first.token


@pytest.mark.parametrize("token", [None, 7])
def test_who_does_not_have_a_claim_cannot_release_it(teller: Teller, token: int | None) -> None:
    teller.admit(POOL, claim=claim())
    teller.report(POOL, claim=ClaimReport(KEY, token, ClaimEnd.RELEASE))
    assert teller.admit(POOL, claim=claim()).claim is ClaimState.IN_FLIGHT


@pytest.mark.parametrize("token", [None, 7])
def test_who_does_not_have_a_claim_cannot_keep_it(teller: Teller, token: int | None) -> None:
    teller.admit(POOL, claim=claim(lease=0.1))
    teller.report(POOL, claim=ClaimReport(KEY, token, ClaimEnd.KEEP, 900.0))
    teller.let_pass(0.1)
    assert teller.admit(POOL, claim=claim()).claim is ClaimState.CLAIMED


def test_a_content_whose_fate_nobody_knows_stays_in_flight_until_the_window_is_over(teller: Teller) -> None:
    token = teller.admit(POOL, claim=claim(lease=0.05)).token
    teller.report(POOL, claim=ClaimReport(KEY, token, ClaimEnd.KEEP, 900.0))
    teller.let_pass(0.05)
    assert teller.admit(POOL, claim=claim()).claim is ClaimState.IN_FLIGHT


def test_a_claim_whose_lease_is_over_is_kept_if_nobody_took_it(teller: Teller) -> None:
    token = teller.admit(POOL, claim=claim(lease=0.05)).token
    teller.let_pass(0.05)
    teller.report(POOL, claim=ClaimReport(KEY, token, ClaimEnd.KEEP, 900.0))
    later = teller.admit(POOL, claim=claim())
    assert later.claim is ClaimState.IN_FLIGHT
    assert later.claim_age >= 0.05


def test_a_slot_that_is_refused_leaves_no_claim(teller: Teller) -> None:
    use_all(teller, ONCE)
    refused = teller.admit(POOL, ONCE, claim=claim())
    assert (refused.slot, refused.claim, refused.token) == (None, None, None)
    assert teller.admit(POOL, claim=claim()).claim is ClaimState.CLAIMED


def test_a_closed_pool_that_refuses_leaves_no_claim(teller: Teller) -> None:
    teller.report(POOL, closed_for=300.0)
    assert teller.admit(POOL, claim=claim()).claim is None
    assert teller.admit(POOL, claim=claim(), longest_wait=PATIENT).claim is ClaimState.CLAIMED


def test_a_refused_retry_still_has_the_claim_of_its_call(teller: Teller) -> None:
    token = teller.admit(POOL, ONCE, claim=claim()).token
    refused = teller.admit(POOL, ONCE, claim=claim(token=token))
    assert (refused.slot, refused.claim, refused.token) == (None, ClaimState.CLAIMED, token)
    assert teller.admit(POOL, claim=claim()).claim is ClaimState.IN_FLIGHT


def test_a_refused_slot_leaves_the_claim_of_another_alone(teller: Teller) -> None:
    teller.admit(POOL, ONCE, claim=claim())
    assert teller.admit(POOL, ONCE, claim=claim()).slot is None
    assert teller.admit(POOL, claim=claim()).claim is ClaimState.IN_FLIGHT


# ------------------------------------------------------------------------------------------------------------- crowds


def test_eight_threads_who_wait_their_turn_never_exceed_the_limit(teller: Teller) -> None:
    limit, window, each = Limit(10, 0.1), 100_000, 6

    def work(_: int) -> list[int]:
        admissions = [teller.use(Admit(POOL, limit, longest_wait=PATIENT)) for _ in range(each)]
        return [admission.slot for admission in admissions if admission.slot is not None]

    with ThreadPoolExecutor(8) as threads:
        uses = sorted(slot for slots in threads.map(work, range(8)) for slot in slots)
    assert len(uses) == 8 * each
    assert all(later - earlier >= window for earlier, later in zip(uses, uses[limit.count :], strict=False))


def test_threads_and_event_loops_share_a_store(teller: Teller) -> None:
    """Two uses by a thread, one in whatever way this test asks."""
    for _ in range(2):
        assert teller.store.perform(Admit(POOL, HOURLY)).wait == 0
    assert teller.admit(POOL, HOURLY, claim=claim()).used == 3
    assert teller.store.perform(Admit(POOL, HOURLY)).slot is None
    assert teller.store.perform(Admit(POOL, None, claim=claim())).claim is ClaimState.IN_FLIGHT


def test_a_store_that_was_closed_is_opened_by_the_next_to_ask(teller: Teller) -> None:
    teller.admit(POOL, HOURLY)
    teller.store.close()
    assert teller.admit(POOL, HOURLY).wait == 0


@pytest.mark.parametrize("kind", ["sqlite", "redis"], indirect=True)
def test_of_32_processes_that_race_for_a_content_one_has_it(kind: str, place: str) -> None:
    assert sorted(in_processes(32, claim_state_at, kind, place, KEY)) == ["claimed"] + ["in_flight"] * 31


def test_of_32_threads_that_race_for_a_content_one_has_it(store: Store) -> None:
    barrier = threading.Barrier(32)

    def race(_: int) -> str:
        barrier.wait(30)
        return claim_state(store, KEY)

    with ThreadPoolExecutor(32) as threads:
        assert sorted(threads.map(race, range(32))) == ["claimed"] + ["in_flight"] * 31


# ------------------------------------------------------------------------------------------------- the same semantics


@dataclass(frozen=True)
class Step:
    """One thing that a caller does; ``which`` picks among the slots and claims it has."""

    what: str
    amount: int
    which: int


STEPS = st.builds(
    Step,
    st.sampled_from(["ask", "ask", "ask", "confirm", "correct", "late", "close", "claim", "end", "past", "refuse"]),
    st.integers(0, 3),
    st.integers(0, 9),
)


class Caller:
    """Does the same to a store as another does to another, and says what came of it in terms that both share."""

    def __init__(self, store: Store, pool: PoolKey) -> None:
        self._store = store
        self._pool = pool
        self._limit = Limit(4, 10_000.0)
        self._slots: list[tuple[int, int]] = []
        self._tokens: list[tuple[bytes, int]] = []

    def do(self, step: Step) -> Any:
        """Do one step; returns what the store said, with waits in whole thousands of seconds."""
        match step.what:
            case "ask" | "claim":
                wanted = claim(self._pool.pool.encode() + bytes([step.which % 3])) if step.what == "claim" else None
                return self._take(cost=step.amount or 1, claim=wanted, longest_wait=PATIENT)
            case "refuse":
                return self._take(cost=step.amount or 1, longest_wait=0.0)
            case "past":
                return self._take(longest_wait=PATIENT, past=(PastUse(step.which * 500 * MICROSECONDS, step.amount),))
            case "close":
                return self._store.perform(Report(self._pool, self._limit, closed_for=step.which * 3_000.0))
            case "end" if self._tokens:
                key, token = self._tokens[step.which % len(self._tokens)]
                end = list(ClaimEnd)[step.amount % 3]
                return self._store.perform(Report(self._pool, claim=ClaimReport(key, token, end, 50_000.0)))
            case "confirm" if self._slots:
                slot, cost = self._slots.pop(step.which % len(self._slots))
                return self._take(cost=cost, holding=slot, longest_wait=PATIENT if step.amount else 0.0)
            case "correct" | "late" if self._slots:
                slot, cost = self._slots.pop(step.which % len(self._slots))
                # So late that it counts from now: the same order of uses, however fast a store is.
                late = 10**9 if step.what == "late" else 0
                correction = Correction(slot, cost, step.amount, late)
                return self._store.perform(Report(self._pool, self._limit, corrections=(correction,)))
        return None

    def _take(self, *, cost: int = 1, **ask: Any) -> Any:
        admission: Admission = self._store.perform(Admit(self._pool, self._limit, cost=cost, **ask))
        if admission.slot is not None:
            self._slots.append((admission.slot, cost))
        if admission.token is not None and ask["claim"] is not None:
            self._tokens.append((ask["claim"].key, admission.token))
        taken, waits = admission.slot is not None, round(admission.wait / 500)
        return taken, waits, admission.closed, admission.used, admission.claim, admission.token is not None


NUMBERS = itertools.count()


class SteadyClock:
    """A clock that goes on by a millisecond whenever it is read."""

    def __init__(self) -> None:
        self._now = 1_000_000.0

    def __call__(self) -> float:
        self._now += 0.001
        return self._now


@pytest.mark.parametrize("kind", ["sqlite", "redis"], indirect=True)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=30))
def test_every_store_answers_as_memory_does(store: Store, steps: list[Step]) -> None:
    clock, pool = SteadyClock(), PoolKey(f"pool {next(NUMBERS)}", b"o" * 16)
    callers = [Caller(each, pool) for each in (store, MemoryStore(clock, clock))]
    for step in steps:
        answers = [caller.do(step) for caller in callers]
        assert answers[0] == answers[1], step


def test_what_is_asked_is_answered_in_kind(teller: Teller) -> None:
    assert isinstance(teller.perform(Admit(POOL)), Admission)
    assert teller.perform(Report(POOL)) is None
    assert isinstance(teller.perform(ListPools()), tuple)
