"""The machine that decides one call, by itself: what it sends, when it waits, why it stops."""

from __future__ import annotations

from dataclasses import replace

import pytest

from insider_otel.api.operations import Limit, Resend, operations
from insider_otel.api.verdict import Category, RateLimit, Retry, Verdict
from insider_otel.policy.budget import RetryBudget
from insider_otel.policy.call import SHORTEST_ATTEMPT, TRANSIT, CallMachine, plan_call
from insider_otel.policy.limits import opens_in
from insider_otel.policy.settings import Settings
from insider_otel.policy.steps import Done, Refuse, Reserve, Stop, Wait, WaitReason, WaitSource

from .driving import DOWN, OK, PLAN, REFUSED, SILENT, TOO_MANY, Driven, drive, verdict


def test_a_success_is_sent_once() -> None:
    assert drive(PLAN, [OK]) == Driven([0.0], [], Done())


def test_what_can_never_succeed_is_sent_once_and_nothing_forbade_a_retry() -> None:
    assert drive(PLAN, [REFUSED]) == Driven([0.0], [], Done(None))


def test_one_quick_retry_then_retries_spread_over_the_window() -> None:
    driven = drive(PLAN, [DOWN])
    assert driven.delays == [0.25, 150.0, 150.0, 150.0]
    assert driven.end == Done(Stop.ATTEMPTS)
    assert {(wait.reason, wait.source) for wait in driven.waits} == {(WaitReason.RETRY, WaitSource.JITTER)}


def test_observe_mode_sends_once_whatever_comes_back() -> None:
    watching = replace(PLAN, enforce=False, limited=False)
    assert drive(watching, [DOWN]) == Driven([0.0], [], Done(None))
    assert drive(watching, [TOO_MANY], closed_until=50.0) == Driven([0.0], [], Done(None))


# -- C1: the retry sequences that the AWS standard mode shares with us -------------------------------------------------


@pytest.mark.parametrize(
    ("answers", "sent", "stopped"),
    [
        pytest.param([DOWN, DOWN, OK], 3, None, id="case 1: healed by the second retry"),
        pytest.param([DOWN, DOWN, DOWN], 3, Stop.ATTEMPTS, id="case 2: out of attempts"),
        pytest.param([DOWN, REFUSED], 2, None, id="a retry that meets a refusal ends there"),
    ],
)
def test_retry_sequences_of_two_retries(answers: list[Verdict], sent: int, stopped: Stop | None) -> None:
    driven = drive(replace(PLAN, quick_retries=2, spread_retries=0, max_attempts=3), answers)
    assert len(driven.sends) == sent
    assert driven.end == Done(stopped)


def test_both_quick_retries_of_the_defaults_fit_a_web_request_and_outlast_a_blip_of_a_second() -> None:
    """Five seconds are what the adapters give a request: the longest delays and slow attempts still leave room."""
    plan = plan_call(
        Settings(),
        next(operation for operation in operations() if operation.name == "user.upsert"),
        replayable=True,
        deadline=5.0,
        limited=True,
        rate_window=lambda: 60.0,
    )
    driven = drive(plan, [DOWN, DOWN, OK], random=0.999, attempt_takes=0.9)
    assert len(driven.sends) == 3
    assert driven.end == Done()
    assert drive(plan, [DOWN], random=0.5).sends == [0.0, 0.5, 1.0]


@pytest.mark.parametrize(
    ("since_midnight", "closed_for"),
    [(3_600, 82_802), (86_399, 3), (0, 2), (1.5, 0.5), (2, 86_400), (3, 86_399)],
)
def test_a_limit_of_a_day_is_closed_until_the_day_is_over_by_insiders_clock_too(
    since_midnight: float, closed_for: float
) -> None:
    """Insider's clock may be two seconds behind: until then, what it refuses may be of the day before."""
    assert opens_in(Limit(1, 86_400, calendar=True), 20_000 * 86_400 + since_midnight) == closed_for


def test_case_4_an_empty_budget_ends_the_call_without_a_sleep() -> None:
    driven = drive(replace(PLAN, quick_retries=2, spread_retries=0), [DOWN], budget=_spent_budget())
    assert driven == Driven([0.0], [], Done(Stop.BUDGET))


def test_case_5_the_fifth_failure_is_the_last_of_four_retries() -> None:
    driven = drive(replace(PLAN, quick_retries=4, spread_retries=0), [DOWN], random=0.999)
    assert len(driven.sends) == 5
    assert driven.end == Done(Stop.ATTEMPTS)


def test_case_6_the_cap_is_inside_the_jitter() -> None:
    driven = drive(replace(PLAN, quick_retries=4, spread_retries=0, quick_delay=3.0), [DOWN], random=0.5)
    assert driven.delays == [1.5] * 4


def _spent_budget() -> RetryBudget:
    budget = RetryBudget()
    for _ in range(5):
        budget.failed()
    return budget


# -- budget ------------------------------------------------------------------------------------------------------------


def test_without_a_token_the_quick_retry_is_skipped_and_the_spread_ones_remain() -> None:
    driven = drive(PLAN, [DOWN], budget=_spent_budget())
    assert driven.delays == [150.0, 150.0, 150.0]
    assert driven.end == Done(Stop.BUDGET)


def test_the_budget_is_named_when_only_the_quick_retry_would_have_met_the_deadline() -> None:
    driven = drive(replace(PLAN, deadline=5.0), [DOWN], budget=_spent_budget())
    assert driven == Driven([0.0], [], Done(Stop.BUDGET))


def test_an_answer_that_is_no_outage_earns_budget_even_if_it_refuses() -> None:
    budget = _spent_budget()
    drive(PLAN, [REFUSED], budget=budget)
    assert budget.tokens == pytest.approx(5.1)


def test_a_failure_on_the_way_earns_no_budget() -> None:
    budget = _spent_budget()
    drive(PLAN, [verdict(Category.UNEXPECTED, Retry.NEVER)], budget=budget)
    assert budget.tokens == 5


def test_too_many_requests_costs_no_budget() -> None:
    budget = RetryBudget()
    drive(PLAN, [TOO_MANY, OK], budget=budget)
    assert budget.tokens == 10


# -- deadlines ---------------------------------------------------------------------------------------------------------


def test_a_retry_that_does_not_fit_the_deadline_is_not_waited_for() -> None:
    driven = drive(replace(PLAN, deadline=0.25), [DOWN])
    assert driven == Driven([0.0], [], Done(Stop.DEADLINE))


@pytest.mark.parametrize(("delay", "sent"), [(0.949, 2), (0.951, 1), (0.999, 1)])
def test_a_retry_with_next_to_no_time_left_is_not_sent(delay: float, sent: int) -> None:
    """It would be cut off, and nobody could say any more that Insider does not have it: a 503 is safe to defer."""
    driven = drive(replace(PLAN, deadline=1.0, quick_delay=1.0, resend=Resend.ANSWERED), [DOWN, OK], random=delay)
    assert len(driven.sends) == sent
    assert driven.end == Done(Stop.DEADLINE if sent == 1 else None)


@pytest.mark.parametrize("random", [0.0, 0.5, 0.999])
def test_the_jitter_after_too_many_requests_takes_no_more_than_the_room_before_the_deadline(random: float) -> None:
    """A second fits into the two that a web request has, whatever is drawn."""
    told = verdict(Category.RATE_LIMIT, Retry.AFTER_WINDOW, 1.0)
    driven = drive(replace(PLAN, deadline=2.0), [told, OK], random=random, attempt_takes=0.5)
    assert driven.sends[1] == pytest.approx(1.5 + random * (0.5 - SHORTEST_ATTEMPT))


def test_what_does_not_fit_the_deadline_keeps_its_jitter_for_the_outbox() -> None:
    told = verdict(Category.RATE_LIMIT, Retry.AFTER_WINDOW, 30.0)
    end = drive(replace(PLAN, deadline=2.0), [told]).end
    assert isinstance(end, Done)
    assert (end.stopped, end.retry_in) == (Stop.DEADLINE, 31.5)


def test_a_deadline_that_has_passed_sends_nothing() -> None:
    assert drive(replace(PLAN, deadline=0.0), [OK]) == Driven([], [], Done(Stop.DEADLINE))


def test_a_server_that_asks_for_longer_than_the_retry_window_is_left_alone() -> None:
    asked = verdict(Category.UNAVAILABLE, Retry.BACKOFF, 301.0)
    assert drive(PLAN, [asked]) == Driven([0.0], [], Done(Stop.DEADLINE))


# -- windows -----------------------------------------------------------------------------------------------------------


def test_too_many_requests_waits_for_retry_after_and_then_some() -> None:
    driven = drive(PLAN, [verdict(Category.RATE_LIMIT, Retry.AFTER_WINDOW, 30.0), OK])
    assert driven.waits == [Wait(31.5, WaitReason.RATE_LIMIT, WaitSource.RETRY_AFTER)]


def test_too_many_requests_without_a_moment_waits_for_the_documented_window() -> None:
    driven = drive(PLAN, [TOO_MANY, OK])
    assert driven.waits == [Wait(63.0, WaitReason.RATE_LIMIT, WaitSource.WINDOW)]


def test_a_window_read_from_the_text_is_a_window_and_no_appointment() -> None:
    told = verdict(Category.RATE_LIMIT, Retry.AFTER_WINDOW, 60.0, explicit=False)
    assert drive(PLAN, [told, OK]).waits[0].source is WaitSource.WINDOW


def test_a_pool_that_is_closed_holds_the_first_attempt_back() -> None:
    driven = drive(PLAN, [OK], closed_until=10.0)
    assert driven.sends == [10.5]
    assert driven.waits == [Wait(10.5, WaitReason.RATE_LIMIT, WaitSource.LIMITER)]


def test_a_pool_that_stays_closed_beyond_the_deadline_is_refused() -> None:
    assert drive(replace(PLAN, deadline=5.0), [OK], closed_until=10.0) == Driven([], [], Refuse(10.0))


def test_a_pool_that_closes_between_attempts_ends_the_call_with_what_it_has() -> None:
    driven = drive(replace(PLAN, deadline=5.0), [DOWN])
    assert driven.end == Done(Stop.DEADLINE)
    machine = CallMachine(replace(PLAN, deadline=5.0), RetryBudget(), lambda: 0.5)
    machine.admitted(0.0, 0.0)
    machine.answered(DOWN, 0.0)
    assert machine.admitted(60.0, 0.25, granted=False) == Done(Stop.DEADLINE)


def test_a_slot_of_an_open_pool_is_waited_for_to_the_moment() -> None:
    """Slots are apart as the limit wants them already: jitter would only lose time."""
    machine = CallMachine(PLAN, RetryBudget(), lambda: 0.5)
    assert machine.admitted(10.0, 0.0) == Wait(10.0, WaitReason.RATE_LIMIT, WaitSource.LIMITER)


def test_the_jitter_after_a_closed_pool_leaves_an_attempt_before_the_deadline() -> None:
    machine = CallMachine(replace(PLAN, deadline=10.25), RetryBudget(), lambda: 0.5)
    wait = machine.admitted(10.0, 0.0, closed=True)
    assert isinstance(wait, Wait)
    # Half of the 0.2 s that there are, in place of half of a second.
    assert wait.seconds == pytest.approx(10.1)


@pytest.mark.parametrize(("deadline", "longest"), [(None, 300.0), (5.0, 4.95), (1000.0, 999.95), (0.01, 0.0)])
def test_a_slot_is_waited_for_until_the_deadline_or_else_for_the_retry_window(
    deadline: float | None, longest: float
) -> None:
    assert CallMachine(replace(PLAN, deadline=deadline), RetryBudget(), lambda: 0.5).start(0.0) == Reserve(longest)


def test_who_oversleeps_the_deadline_in_a_wait_for_a_slot_is_refused() -> None:
    """The limit kept the call, not Insider: the app gets the 429 it would have got without the wait."""
    machine = CallMachine(replace(PLAN, deadline=5.0), RetryBudget(), lambda: 0.5)
    machine.start(0.0)
    machine.admitted(4.9, 0.0)
    assert machine.resume(5.1) == Refuse(0.0)


def test_without_a_deadline_the_waits_for_slots_have_one_bound_together() -> None:
    machine = CallMachine(PLAN, RetryBudget(), lambda: 0.5)
    machine.admitted(200.0, 0.0)
    assert machine.resume(200.0) == Reserve(100.0)


def test_a_pool_that_closes_again_and_again_holds_a_call_no_longer_than_the_retry_window() -> None:
    machine = CallMachine(PLAN, RetryBudget(), lambda: 0.0)
    now = 0.0
    for _ in range(5):
        step = machine.admitted(60.0, now, closed=True)
        assert step == Wait(60.0, WaitReason.RATE_LIMIT, WaitSource.LIMITER)
        now += 60.0
    assert machine.resume(now) == Reserve(0.0)
    assert machine.admitted(60.0, now, granted=False, closed=True) == Refuse(60.0)


def test_only_a_rate_limit_closes_the_pool() -> None:
    machine = CallMachine(PLAN, RetryBudget(), lambda: 0.5)
    assert machine.block(DOWN) is None
    assert machine.block(TOO_MANY) == 60.0
    assert machine.block(verdict(Category.RATE_LIMIT, Retry.AFTER_WINDOW, 7.0)) == 7.0


@pytest.mark.parametrize(("window", "closed_for"), [(240.0, 60.0), (20.0, 20.0)])
def test_a_limit_that_may_be_one_users_closes_the_pool_no_longer_than_the_pools_own_does(
    window: float, closed_for: float
) -> None:
    """Of five requests in four minutes per user: the call waits for so long, and those for all other users do not."""
    one_users = replace(TOO_MANY, retry_after=window, rate_limit=RateLimit(window=window, in_words=True))
    assert CallMachine(PLAN, RetryBudget(), lambda: 0.5).block(one_users) == closed_for
    assert drive(PLAN, [one_users, OK], random=0.0).delays == [window]


# -- what may be sent twice --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("resend", "ambiguous", "end"),
    [
        (Resend.IDEMPOTENT, True, Done(Stop.ATTEMPTS)),
        (Resend.IDEMPOTENT, False, Done(Stop.ATTEMPTS)),
        (Resend.WINDOW, False, Done(Stop.ATTEMPTS)),
        (Resend.ANSWERED, False, Done(Stop.ATTEMPTS)),
        (Resend.ANSWERED, True, Done(Stop.UNSAFE)),
        (Resend.NEVER, False, Done(Stop.UNSAFE)),
        (Resend.NEVER, True, Done(Stop.UNSAFE)),
    ],
)
def test_what_may_be_sent_twice(resend: Resend, ambiguous: bool, end: Done) -> None:
    driven = drive(replace(PLAN, resend=resend), [(SILENT, ambiguous)])
    assert driven.end == end
    assert (len(driven.sends) == 1) == (end.stopped is Stop.UNSAFE)


def test_silence_about_a_mail_is_retried_only_while_insider_ignores_duplicates() -> None:
    mail = replace(PLAN, resend=Resend.WINDOW, duplicate_window=900.0)
    driven = drive(mail, [(SILENT, True)], random=0.999, attempt_takes=200.0)
    # 0 s, 200.5 s, 700.2 s; the next would start at about 1200 s.
    assert [round(sent) for sent in driven.sends] == [0, 200, 700]
    assert driven.end == Done(Stop.DUPLICATE_WINDOW)


def test_the_duplicate_window_counts_from_the_sending_not_from_the_giving_up() -> None:
    mail = replace(PLAN, resend=Resend.WINDOW, duplicate_window=10.0, quick_delay=0.5)
    assert drive(mail, [(SILENT, True)], attempt_takes=10.0).end == Done(Stop.DUPLICATE_WINDOW)


def test_a_later_refusal_does_not_make_an_earlier_silence_certain() -> None:
    mail = replace(PLAN, resend=Resend.WINDOW, duplicate_window=100.0)
    driven = drive(mail, [(SILENT, True), (DOWN, False)], attempt_takes=60.0)
    assert driven.end == Done(Stop.DUPLICATE_WINDOW)
    assert len(driven.sends) == 2


def test_what_insider_may_have_is_sent_again_at_a_moment_of_what_is_left_of_its_window() -> None:
    mail = replace(PLAN, resend=Resend.WINDOW, duplicate_window=100.0)
    driven = drive(mail, [(SILENT, True), (DOWN, False)])
    assert driven.end == Done(Stop.ATTEMPTS)
    assert 50.0 < driven.sends[-1] < 100.0 - TRANSIT


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(DOWN, id="a quick retry"),
        pytest.param(verdict(Category.RATE_LIMIT, Retry.AFTER_WINDOW, 4.0), id="after Retry-After"),
    ],
)
def test_no_repeat_is_on_its_way_when_insider_no_longer_ignores_it(answer: Verdict) -> None:
    """Sent in the last seconds of the window, it arrives after them: as a second mail."""
    mail = replace(PLAN, resend=Resend.WINDOW, duplicate_window=20.0, quick_delay=4.0, quick_retries=9, max_attempts=9)
    for random in (0.0, 0.5, 0.999):
        driven = drive(mail, [(SILENT, True), (answer, False)], random=[0.0, *[random] * 20], attempt_takes=5.0)
        assert driven.end == Done(Stop.DUPLICATE_WINDOW)
        assert driven.sends[-1] < 20.0 - TRANSIT


def test_no_slot_is_waited_for_that_comes_too_late_for_a_repeat_to_be_ignored() -> None:
    mail = replace(PLAN, resend=Resend.WINDOW, duplicate_window=900.0)
    machine = CallMachine(mail, RetryBudget(), lambda: 0.5, attempts=1, ambiguous_since=0.0)
    assert machine.start(700.0) == Reserve(200.0 - TRANSIT)
    assert machine.admitted(200.0 - TRANSIT, 700.0, granted=False) == Done(Stop.DUPLICATE_WINDOW)


def test_a_body_that_cannot_be_replayed_is_sent_once() -> None:
    assert drive(replace(PLAN, replayable=False), [DOWN]) == Driven([0.0], [], Done(Stop.NOT_REPLAYABLE))


def test_the_attempts_of_a_test_run_are_bounded() -> None:
    assert len(drive(replace(PLAN, max_attempts=2), [DOWN]).sends) == 2
