"""One call as a sans-IO state machine: it says "send", "wait 1.2 s", "done", and is told what came back.

The machine sends nothing, sleeps nowhere and reads no clock. Its driver asks for a step, carries it out, and reports:

    step = machine.start(now)                    # Reserve
    step = machine.admitted(0.0, now)            # Send: the pool has room
    step = machine.answered(verdict, now)        # Wait, or Done
    step = machine.resume(now)                   # Reserve, and so on until Done or Refuse

All times are seconds on one clock of the driver's choice.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from insider_otel.api.operations import Operation, Resend
from insider_otel.api.verdict import Category, Retry, Verdict
from insider_otel.policy.budget import RetryBudget
from insider_otel.policy.settings import Mode, Settings
from insider_otel.policy.steps import Done, Refuse, Reserve, Send, Step, Stop, Wait, WaitReason, WaitSource, is_judged

SHORTEST_ATTEMPT = 0.05
"""Seconds. A slot or a retry that leaves an attempt less than this before the deadline is not worth waiting for: it
would most likely be cut off, and then nobody knows whether Insider has what it was sent."""

TRANSIT = 5.0
"""Seconds that a request may take to arrive: a repeat that is sent just before Insider's duplicate window ends is not
ignored if it comes after."""

WINDOW_JITTER = 0.1
"""Most of a rate-limit wait that is added as jitter, so that those who waited together do not return together."""


# Not frozen: one is made for each call, and with fourteen fields that would take three times as long.
@dataclass(slots=True)
class CallPlan:
    """What one call may do, decided before its first attempt. Only the deadline may change, when its request is over.

    Attributes:
        enforce: Whether anything but a single attempt is allowed.
        limited: Whether limits are held.
        quick_retries: Retries inside the call.
        quick_delay: Longest delay before one, in seconds.
        spread_retries: Retries spread over the retry window.
        retry_window: Length of that window in seconds; also the longest wait that is taken at all.
        max_attempts: Attempts in all.
        deadline: Moment at which the call must be over; None for no bound.
        resend: When the operation may be sent twice.
        duplicate_window: Seconds in which Insider ignores a repeat of the same content.
        rate_window: Says how many seconds to wait after "too many requests" that names no moment. Asked only then:
            the call may have waited since it began, and the limit may be another.
        replayable: Whether the body can be sent a second time.
        longest_wait: Seconds that are waited for a slot, or before a quick retry.
        spread_inside: Whether spread retries are waited for; else they are for an outbox, however soon.
    """

    enforce: bool
    limited: bool
    quick_retries: int
    quick_delay: float
    spread_retries: int
    retry_window: float
    max_attempts: int
    deadline: float | None
    resend: Resend
    duplicate_window: float
    rate_window: Callable[[], float]
    replayable: bool
    longest_wait: float = math.inf
    spread_inside: bool = True


def plan_call(
    settings: Settings,
    operation: Operation,
    *,
    replayable: bool,
    deadline: float | None,
    limited: bool,
    rate_window: Callable[[], float],
    max_attempts: int | None = None,
) -> CallPlan:
    """What a call of ``operation`` may do under ``settings``.

    Args:
        settings: The app's settings.
        operation: The operation called.
        replayable: Whether the request's body can be sent a second time.
        deadline: Moment at which the call must be over, on the driver's clock.
        limited: Whether limits are held.
        rate_window: Says how many seconds to wait after "too many requests" that names no moment.
        max_attempts: A lower bound on the attempts than the settings give, in tests.
    """
    attempts = 1 + settings.quick_retries + settings.spread_retries
    return CallPlan(
        enforce=settings.mode is Mode.ENFORCE,
        limited=limited,
        quick_retries=settings.quick_retries,
        quick_delay=settings.quick_delay,
        spread_retries=settings.spread_retries,
        retry_window=settings.retry_window,
        max_attempts=attempts if max_attempts is None else min(attempts, max_attempts),
        deadline=deadline,
        resend=operation.resend,
        duplicate_window=min(operation.duplicate_window or 0.0, settings.dedupe_window),
        rate_window=rate_window,
        replayable=replayable,
    )


class CallMachine:
    """The decisions of one call (design: quick retry, spread retries, windows, deadline, ambiguity, replay).

    Args:
        plan: What the call may do.
        budget: Pays for quick retries; shared by all calls to a host.
        random: Returns a float from 0 up to, but not including, 1.
        attempts: Attempts made before, where the call was deferred.
        ambiguous_since: The moment of the first of those that Insider may have processed without our knowing.
    """

    __slots__ = (
        "_budget",
        "_held",
        "_plan",
        "_quick_left",
        "_random",
        "_spread_left",
        "ambiguous_since",
        "attempts",
        "sent_at",
    )

    def __init__(
        self,
        plan: CallPlan,
        budget: RetryBudget,
        random: Callable[[], float],
        *,
        attempts: int = 0,
        ambiguous_since: float | None = None,
    ) -> None:
        self._plan = plan
        self._budget = budget
        self._random = random
        self._quick_left = plan.quick_retries
        self._spread_left = plan.spread_retries
        self._held = 0.0
        self.attempts = attempts
        """Attempts made so far."""
        self.sent_at = 0.0
        """The moment of the latest."""
        self.ambiguous_since = ambiguous_since
        """The moment of the first that Insider may have processed without our knowing."""

    def unbind(self, deadline: float | None) -> None:
        """The request that the call was made in is over, and bounds it no longer.

        Args:
            deadline: Moment at which the call must be over even so; None for no bound.
        """
        self._plan.deadline = deadline

    def start(self, now: float) -> Step:
        """The first step.

        Args:
            now: The present moment.
        """
        return self._turn(now)

    def admitted(self, wait: float, now: float, *, granted: bool = True, closed: bool = False) -> Step:
        """The pool was asked for a slot.

        Args:
            wait: Seconds until the slot.
            now: The present moment.
            granted: Whether the slot was taken; a slot too far away is not.
            closed: Whether it is that far away because Insider closed the pool.
        """
        if not granted:
            if self._window_ends() <= now + wait:
                return Done(Stop.DUPLICATE_WINDOW)
            return Done(Stop.DEADLINE, wait) if self.attempts else Refuse(wait)
        if wait <= 0:
            return self._send(now)
        self._held += wait
        # Slots of an open pool are apart as the limit wants them. A closed one opens for all at once.
        jitter = self._window_jitter(wait, room=self._room(now) - wait) if closed else 0.0
        return Wait(wait + jitter, WaitReason.RATE_LIMIT, WaitSource.LIMITER)

    def resume(self, now: float) -> Step:
        """A wait is over.

        Args:
            now: The present moment.
        """
        return self._turn(now)

    def answered(self, verdict: Verdict, now: float, *, ambiguous: bool = False) -> Step:
        """Insider answered, or did not.

        Args:
            verdict: What the answer, or the exception in its place, means.
            now: The moment of it.
            ambiguous: Whether Insider may have processed the request without our knowing.
        """
        if ambiguous and self.ambiguous_since is None:
            # Counted from the sending: Insider's window opens when it receives the request, not when we give up on it.
            self.ambiguous_since = self.sent_at
        if verdict.retry is Retry.NEVER:
            if is_judged(verdict):
                # Insider judged the request, so it works: even a refusal is a sign of health.
                self._budget.succeeded()
            return Done()
        if not self._plan.enforce:
            return Done()
        if verdict.retry is Retry.BACKOFF:
            self._budget.failed()
        obstacle = self._obstacle(ambiguous)
        if obstacle is not None:
            return Done(obstacle)
        if verdict.retry is Retry.AFTER_WINDOW:
            return self._after_window(verdict, now)
        return self._backoff(verdict, now)

    def block(self, verdict: Verdict) -> float | None:
        """Seconds for which the whole pool has to wait after ``verdict``; None if it need not."""
        if verdict.category is not Category.RATE_LIMIT or verdict.retry is not Retry.AFTER_WINDOW:
            return None
        if verdict.retry_after is None:
            return self._plan.rate_window()
        said = verdict.rate_limit
        if said is not None and said.in_words and said.limit is None and not said.explicit:
            # The window of a limit that may be one user's: the call waits for that, the others as for their own.
            return min(verdict.retry_after, self._plan.rate_window())
        return verdict.retry_after

    def _turn(self, now: float) -> Step:
        """Another attempt is due."""
        plan = self._plan
        if plan.enforce and plan.deadline is not None and now >= plan.deadline:
            # Whoever overslept the deadline while waiting for a slot was kept by the limit, like one who never got it.
            return Refuse(0.0) if self._held and not self.attempts else Done(Stop.DEADLINE, 0.0)
        window_ends = self._window_ends()
        if now >= window_ends:
            return Done(Stop.DUPLICATE_WINDOW)
        if not plan.limited:
            return self._send(now)
        # Others may close the pool again just before this call's turn, and again: it does not wait for ever.
        left = plan.retry_window - self._held if plan.deadline is None else self._latest_start() - now
        return Reserve(max(min(left, plan.longest_wait, window_ends - now), 0.0))

    def _send(self, now: float) -> Send:
        self.sent_at = now
        self.attempts += 1
        return Send(self.attempts - 1)

    def _obstacle(self, ambiguous: bool) -> Stop | None:
        """What forbids another attempt whatever its moment."""
        plan = self._plan
        if plan.resend is Resend.NEVER or (ambiguous and plan.resend is Resend.ANSWERED):
            return Stop.UNSAFE
        if not plan.replayable:
            return Stop.NOT_REPLAYABLE
        if self.attempts >= plan.max_attempts:
            return Stop.ATTEMPTS
        return None

    def _after_window(self, verdict: Verdict, now: float) -> Step:
        if not self._spread_left:
            return Done(Stop.ATTEMPTS)
        hint = self._plan.rate_window() if verdict.retry_after is None else verdict.retry_after
        told = verdict.rate_limit is not None and verdict.rate_limit.explicit
        late = self._too_late(hint, hint, now, spread=True)
        if late is not None:
            return _out_of_time(late, hint + self._window_jitter(hint))
        seconds = hint + self._window_jitter(hint, room=self._room(now) - hint)
        self._spread_left -= 1
        return Wait(seconds, WaitReason.RATE_LIMIT, WaitSource.RETRY_AFTER if told else WaitSource.WINDOW)

    def _backoff(self, verdict: Verdict, now: float) -> Step:
        hint = verdict.retry_after or 0.0
        source = WaitSource.RETRY_AFTER if hint else WaitSource.JITTER
        refused: Stop | None = None
        if self._quick_left:
            if self._budget.allows_retry():
                seconds = hint + self._random() * self._plan.quick_delay
                late = self._too_late(seconds, hint, now)
                if late is not None:
                    return _out_of_time(late, seconds)
                self._quick_left -= 1
                return Wait(seconds, WaitReason.RETRY, source)
            refused = Stop.BUDGET
        if not self._spread_left:
            return Done(refused or Stop.ATTEMPTS)
        # What Insider may have already is sent again while it would ignore it, or never.
        window = min(self._plan.retry_window, self._window_ends() - hint - now)
        seconds = hint + self._random() * max(window, 0.0)
        late = Stop.DUPLICATE_WINDOW if window < 0 else self._too_late(seconds, hint, now, spread=True)
        if late is not None:
            return _out_of_time(late, seconds, refused)
        self._spread_left -= 1
        return Wait(seconds, WaitReason.RETRY, source)

    def _too_late(self, seconds: float, hint: float, now: float, *, spread: bool = False) -> Stop | None:
        """Why an attempt ``seconds`` from now would come too late, or None."""
        if now + seconds >= self._window_ends():
            return Stop.DUPLICATE_WINDOW
        inside = self._plan.spread_inside if spread else seconds <= self._plan.longest_wait
        return None if inside and self._fits(seconds, hint=hint, now=now) else Stop.DEADLINE

    def _window_ends(self) -> float:
        """The moment by which a repeat of what Insider may have has to be sent, or never."""
        if self.ambiguous_since is None or self._plan.resend is not Resend.WINDOW:
            return math.inf
        return self.ambiguous_since + self._plan.duplicate_window - TRANSIT

    def _latest_start(self) -> float:
        """The moment after which an attempt would have too little time before the deadline."""
        return math.inf if self._plan.deadline is None else self._plan.deadline - SHORTEST_ATTEMPT

    def _fits(self, seconds: float, *, hint: float, now: float) -> bool:
        if hint > self._plan.retry_window:
            # Told to stay away for longer than any retry of ours would wait: coming back earlier is not an option.
            return False
        return now + seconds <= self._latest_start()

    def _room(self, now: float) -> float:
        """Seconds until the last moment at which another attempt may be sent."""
        return min(self._latest_start(), self._window_ends()) - now

    def _window_jitter(self, wait: float, room: float = math.inf) -> float:
        """What is added to a wait for a moment that others wait for, too.

        Args:
            wait: Seconds until that moment.
            room: Most that may be added: jitter alone is never why an attempt comes too late.
        """
        most = max(self._plan.quick_delay, WINDOW_JITTER * wait)
        # Drawn from the room and not cut off at its end, so that few attempts have next to no time.
        return self._random() * max(min(most, room), 0.0)


def _out_of_time(late: Stop, seconds: float, refused: Stop | None = None) -> Done:
    """The end of a call whose next attempt would come too late.

    Args:
        late: What it would be too late for.
        seconds: In how many seconds it would have been.
        refused: What forbade an earlier one.
    """
    if late is not Stop.DEADLINE:
        return Done(late)
    return Done(refused or late, seconds)
