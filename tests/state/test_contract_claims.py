"""What every store promises of claims on content."""

from __future__ import annotations

import pytest

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import ClaimEnd, ClaimReport, ClaimState, Correction, PastUse

from .teller import HOURLY, KEY, MINUTE, ONCE, PATIENT, POOL, Teller, claim


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
    teller.report(POOL, learned=learned, claim=ClaimReport(KEY, before.token, ClaimEnd.DONE, 900.0))
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
    teller.use_all(ONCE)
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
