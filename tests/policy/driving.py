"""A machine that is driven against answers, on a clock of numbers."""

from __future__ import annotations

from dataclasses import dataclass

from insider_otel.api.operations import Resend
from insider_otel.api.verdict import FAULT_OF, Category, RateLimit, Retry, Verdict
from insider_otel.policy.budget import RetryBudget
from insider_otel.policy.call import CallMachine, CallPlan
from insider_otel.policy.steps import Reserve, Send, Step, Wait

PLAN = CallPlan(
    enforce=True,
    limited=True,
    quick_retries=1,
    quick_delay=0.5,
    spread_retries=3,
    retry_window=300.0,
    max_attempts=5,
    deadline=None,
    resend=Resend.IDEMPOTENT,
    duplicate_window=900.0,
    rate_window=lambda: 60.0,
    replayable=True,
)


def verdict(category: Category, retry: Retry, retry_after: float | None = None, *, explicit: bool = True) -> Verdict:
    limit = None if retry_after is None else RateLimit(explicit=explicit)
    return Verdict(category, "test", FAULT_OF[category], retry, retry_after=retry_after, rate_limit=limit)


OK = verdict(Category.SUCCESS, Retry.NEVER)
REFUSED = verdict(Category.VALIDATION, Retry.NEVER)
DOWN = verdict(Category.UNAVAILABLE, Retry.BACKOFF)
SILENT = verdict(Category.TIMEOUT, Retry.BACKOFF)
TOO_MANY = verdict(Category.RATE_LIMIT, Retry.AFTER_WINDOW)


@dataclass
class Driven:
    """What a machine did with a list of answers."""

    sends: list[float]
    waits: list[Wait]
    end: Step

    @property
    def delays(self) -> list[float]:
        return [round(wait.seconds, 6) for wait in self.waits]


def drive(
    plan: CallPlan,
    answers: list[tuple[Verdict, bool]] | list[Verdict],
    *,
    random: float | list[float] = 0.5,
    budget: RetryBudget | None = None,
    attempt_takes: float = 0.0,
    closed_until: float = 0.0,
) -> Driven:
    """Run a machine against answers; an answer that repeats is used for as long as the machine asks."""
    draws = iter(random) if isinstance(random, list) else None
    machine = CallMachine(
        plan,
        budget or RetryBudget(),
        (lambda: next(draws)) if draws is not None else (lambda: float(random)),  # type: ignore[arg-type]
    )
    now, sends, waits = 0.0, [], []
    given_answers = [answer if isinstance(answer, tuple) else (answer, False) for answer in answers]
    step = machine.start(now)
    for _ in range(100):
        match step:
            case Reserve(longest_wait=longest):
                left = max(closed_until - now, 0.0)
                step = machine.admitted(left, now, granted=left <= longest, closed=left > 0)
            case Send():
                sends.append(now)
                now += attempt_takes
                answer, ambiguous = given_answers[min(len(sends), len(given_answers)) - 1]
                step = machine.answered(answer, now, ambiguous=ambiguous)
            case Wait(seconds=seconds):
                waits.append(step)
                now += seconds
                step = machine.resume(now)
            case _:
                return Driven(sends, waits, step)
    raise AssertionError("the machine does not stop")
