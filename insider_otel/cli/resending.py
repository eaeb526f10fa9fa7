"""What an operation's resend rule means for one reply: the library's own decision, in words."""

from __future__ import annotations

from dataclasses import dataclass

from insider_otel.api.operations import Operation, Resend
from insider_otel.api.responses import answer_is_ambiguous, may_have_arrived
from insider_otel.api.verdict import Retry, Verdict
from insider_otel.policy.budget import RetryBudget
from insider_otel.policy.call import CallMachine, plan_call
from insider_otel.policy.limits import opens_in
from insider_otel.policy.settings import Settings
from insider_otel.policy.steps import Done, Stop


@dataclass(frozen=True, slots=True)
class Resending:
    """Whether this library sends the same request again.

    Attributes:
        resends: Whether it does.
        words: The operation's rule, and what it means here.
    """

    resends: bool
    words: str


def resending(
    operation: Operation, verdict: Verdict, *, status: int | None, exception: Exception | None
) -> Resending | None:
    """What this library does after the first attempt of a call, with its settings left as they are.

    Args:
        operation: The operation called.
        verdict: What the reply, or the exception in its place, means.
        status: The reply's HTTP status; None if there was none, or if it is not known.
        exception: What was raised in place of a reply.

    Returns:
        Its decision; None where no retry could help anyway.
    """
    if verdict.retry is Retry.NEVER:
        return None
    ambiguous = may_have_arrived(exception) if exception else status is not None and answer_is_ambiguous(status)
    stop = _decision(operation, verdict, ambiguous=ambiguous)
    rule = operation.resend
    if stop is Stop.UNSAFE:
        reason = (
            "" if rule is Resend.NEVER else f" after {'silence' if exception else 'an answer that may hide success'}"
        )
        return Resending(False, f"{rule}: this library does not resend it{reason}")
    if stop is Stop.DEADLINE:
        return Resending(False, f"{rule}: this library does not wait for so long, so it does not resend it")
    if stop is not None:
        return Resending(False, f"{rule}: this library does not resend it: {stop}")
    if ambiguous and rule is Resend.WINDOW:
        window = (operation.duplicate_window or 0.0) / 60
        return Resending(True, f"{rule}: this library resends it only inside the {window:g}-minute duplicate window")
    return Resending(True, f"{rule}: this library resends it")


def _decision(operation: Operation, verdict: Verdict, *, ambiguous: bool) -> Stop | None:
    """Why the library makes no second attempt, or None if it makes one."""
    plan = plan_call(
        Settings(),
        operation,
        replayable=True,
        deadline=None,
        limited=True,
        rate_window=lambda: opens_in(operation.limit, wall_time=0.0),
    )
    machine = CallMachine(plan, RetryBudget(), lambda: 0.0)
    machine.start(0.0)
    machine.admitted(0.0, 0.0)
    step = machine.answered(verdict, 0.0, ambiguous=ambiguous)
    return step.stopped if isinstance(step, Done) else None
