"""What the machine of a call does whatever it is answered, and when."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from insider_otel.api.operations import Resend
from insider_otel.api.verdict import Category, Retry, Verdict
from insider_otel.policy.budget import RetryBudget
from insider_otel.policy.call import SHORTEST_ATTEMPT, TRANSIT, CallMachine, CallPlan
from insider_otel.policy.steps import Wait

from .driving import DOWN, PLAN, drive, verdict

plans = st.builds(
    CallPlan,
    enforce=st.just(True),
    quick_retries=st.integers(0, 4),
    quick_delay=st.floats(0, 10),
    spread_retries=st.integers(0, 4),
    retry_window=st.floats(0, 600),
    max_attempts=st.integers(1, 9),
    deadline=st.none() | st.floats(0, 1000),
    resend=st.sampled_from(Resend),
    duplicate_window=st.floats(0, 900),
    rate_window=st.sampled_from([1.0, 60.0, 86400.0]).map(lambda seconds: lambda: seconds),
    replayable=st.booleans(),
)
verdicts = st.builds(
    verdict,
    st.sampled_from(Category),
    st.sampled_from(Retry),
    st.none() | st.floats(0, 86400),
    explicit=st.booleans(),
)
answer_lists = st.lists(st.tuples(verdicts, st.booleans()), min_size=1, max_size=10)
draws = st.lists(st.floats(0, 1, exclude_max=True), min_size=40, max_size=40)


@given(plans, answer_lists, draws, st.floats(0, 30))
def test_no_wait_reaches_the_deadline_and_nothing_is_sent_after_it(
    plan: CallPlan, answers: list[tuple[Verdict, bool]], random: list[float], attempt_takes: float
) -> None:
    driven = drive(plan, answers, random=random, attempt_takes=attempt_takes)
    if plan.deadline is not None:
        assert all(sent < plan.deadline for sent in driven.sends)
        assert all(sent < plan.deadline - SHORTEST_ATTEMPT + 1e-9 for sent in driven.sends[1:])


@given(plans, answer_lists, draws)
def test_never_more_attempts_than_allowed(
    plan: CallPlan, answers: list[tuple[Verdict, bool]], random: list[float]
) -> None:
    driven = drive(plan, answers, random=random)
    assert len(driven.sends) <= min(plan.max_attempts, 1 + plan.quick_retries + plan.spread_retries)
    assert len(driven.sends) <= 1 or (plan.replayable and plan.resend is not Resend.NEVER)


@given(plans, answer_lists, draws)
def test_never_earlier_than_told_and_never_for_longer_than_the_window(
    plan: CallPlan, answers: list[tuple[Verdict, bool]], random: list[float]
) -> None:
    driven = drive(plan, answers, random=random)
    for wait, (answer, _) in zip(driven.waits, [*answers, *[answers[-1]] * 10], strict=False):
        told = answer.retry_after or 0.0
        if answer.retry is Retry.AFTER_WINDOW and answer.retry_after is None:
            told = plan.rate_window()
        assert told <= wait.seconds
        assert told <= plan.retry_window


@given(plans, answer_lists, draws, st.floats(0, 500))
def test_what_may_have_arrived_is_repeated_only_where_twice_is_as_good_as_once(
    plan: CallPlan, answers: list[tuple[Verdict, bool]], random: list[float], attempt_takes: float
) -> None:
    driven = drive(plan, answers, random=random, attempt_takes=attempt_takes)
    made = [*answers, *[answers[-1]] * 10][: len(driven.sends)]
    first = next(
        (
            sent
            for sent, (answer, open_) in zip(driven.sends, made, strict=True)
            if open_ and answer.retry is not Retry.NEVER
        ),
        None,
    )
    later = [] if first is None else [sent for sent in driven.sends if sent > first]
    if plan.resend in {Resend.ANSWERED, Resend.NEVER} and first is not None:
        assert driven.sends[-1] == first or not later
    if plan.resend is Resend.WINDOW and first is not None:
        assert all(sent < first + plan.duplicate_window - TRANSIT for sent in later)


@given(st.floats(0.001, 600), st.floats(0.001, 10), st.floats(0, 1, exclude_max=True))
def test_no_delay_is_ever_the_cap_itself(retry_window: float, quick_delay: float, random: float) -> None:
    """P(delay = cap) = 0: with the cap inside the jitter, only a draw of 1, which does not exist, would give it."""
    driven = drive(
        replace(PLAN, retry_window=retry_window, quick_delay=quick_delay), [DOWN], random=min(random, 1 - 1e-9)
    )
    quick, *spread = driven.waits
    assert quick.seconds < quick_delay
    assert all(wait.seconds < retry_window for wait in spread)


def test_the_jitter_is_uniform() -> None:
    """10,000 draws in ten bins, each within 20 % of its share."""
    random = Random(20261122).random
    bins = [0] * 10
    for _ in range(10_000):
        machine = CallMachine(replace(PLAN, quick_retries=0), RetryBudget(), random)
        machine.admitted(0.0, 0.0)
        step = machine.answered(DOWN, 0.0)
        assert isinstance(step, Wait)
        bins[int(step.seconds // 30)] += 1
    assert all(800 <= count <= 1200 for count in bins)
