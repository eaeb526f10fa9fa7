"""The words in which the machine of a call and its driver speak, and how a call ends."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from insider_otel.api.verdict import Category, Retry, Verdict


class Stop(StrEnum):
    """Why a call that failed was not tried again (``insider.retry.stopped``)."""

    ATTEMPTS = "attempts"
    DEADLINE = "deadline"
    BUDGET = "budget"
    NOT_REPLAYABLE = "not_replayable"
    DUPLICATE_WINDOW = "duplicate_window"
    UNSAFE = "unsafe"
    EXPIRED = "expired"
    """Deferred, and not delivered within the outbox's horizon."""


class Outcome(StrEnum):
    """How a call ended (``insider.outcome``)."""

    SUCCEEDED = "succeeded"
    PARTLY_FAILED = "partly_failed"
    FAILED = "failed"
    DEFERRED = "deferred"
    HELD_BACK = "held_back"
    CANCELLED = "cancelled"


def outcome_of(verdict: Verdict) -> Outcome:
    """How a call ends whose last verdict is ``verdict``."""
    if verdict.ok:
        return Outcome.SUCCEEDED
    return Outcome.PARTLY_FAILED if verdict.category is Category.PARTIAL_FAILURE else Outcome.FAILED


_NO_JUDGEMENT = frozenset({Category.NETWORK, Category.TIMEOUT, Category.UNEXPECTED})


def is_judged(verdict: Verdict) -> bool:
    """Whether Insider itself has judged the request for good: it took it, or no repeat would make it take it."""
    return verdict.retry is Retry.NEVER and verdict.category not in _NO_JUDGEMENT


class WaitReason(StrEnum):
    """What a wait is for (``insider.wait.reason``)."""

    RETRY = "retry"
    RATE_LIMIT = "rate_limit"


class WaitSource(StrEnum):
    """What decided a wait's length (``insider.wait.source``)."""

    JITTER = "jitter"
    RETRY_AFTER = "retry_after"
    WINDOW = "window"
    LIMITER = "limiter"


@dataclass(frozen=True, slots=True)
class Reserve:
    """Ask for a slot in the pool, no further away than ``longest_wait`` seconds, and report with ``admitted``."""

    longest_wait: float


@dataclass(frozen=True, slots=True)
class Send:
    """Send the request, and report with ``answered``, also if no answer came."""

    resend_count: int


@dataclass(frozen=True, slots=True)
class Wait:
    """Sleep, and report with ``resume``."""

    seconds: float
    reason: WaitReason
    source: WaitSource


@dataclass(frozen=True, slots=True)
class Refuse:
    """Do not send at all: the pool has no room for ``retry_after`` seconds, which is beyond the deadline."""

    retry_after: float


@dataclass(frozen=True, slots=True)
class Done:
    """The call is over, with what the last attempt brought; ``stopped`` says why a retry was not made.

    A call whose deadline had passed before its first attempt has nothing to show but ``stopped``. Where only time
    forbade another attempt, ``retry_in`` is in how many seconds it would have been: an outbox has that time.
    """

    stopped: Stop | None = None
    retry_in: float | None = field(default=None, compare=False)


class Progress(NamedTuple):
    """How far a call has come that is to go on later.

    Attributes:
        wait: Seconds until its next attempt.
        attempts: Attempts made so far.
        ambiguous_for: Seconds since the first attempt that Insider may have processed without our knowing; None if
            there is none.
        verdict: What the last attempt brought; None before the first.
    """

    wait: float
    attempts: int = 0
    ambiguous_for: float | None = None
    verdict: Verdict | None = None


Step = Reserve | Send | Wait | Refuse | Done
