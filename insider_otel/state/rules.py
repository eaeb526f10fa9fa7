"""What becomes of a pool and of a content, said once for memory and sqlite; the script of redis says the same in Lua.

Nothing here reads a clock or does I/O itself: a store brings the present moment, its record of the pool and its claims.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from bisect import bisect_right
from typing import Protocol

from insider_otel.api.operations import Limit
from insider_otel.state.expiry import DAY, window_end
from insider_otel.state.moments import Moments
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Correction,
    PoolKey,
    PoolUse,
    Report,
)
from insider_otel.state.window import RollingWindow


class Pool(Protocol):
    """What a store knows of one pool.

    Attributes:
        limit: The limit it was last asked for with.
        calendar_clock: Where its moments are those of the wall clock, the latest that this has shown; else 0.
        learned: The limit that Insider named.
        closed_until: The moment from which it is open.
    """

    limit: Limit | None
    calendar_clock: int
    learned: Limit | None
    closed_until: int

    @property
    def moments(self) -> Moments:
        """The moments of use."""
        ...

    @property
    def free(self) -> list[int]:
        """Those of them that were given back."""
        ...

    @property
    def window(self) -> RollingWindow:
        """The window made of both."""
        ...

    def forget_uses(self) -> None:
        """Let go of all moments."""
        ...


class Claims(ABC):
    """Who has which content, wherever that is kept."""

    __slots__ = ()

    @abstractmethod
    def _read(self, key: bytes) -> tuple[int, int, bool]:
        """Since when a content is claimed, until when, and whether it is done; zeros if nothing is known of it."""

    @abstractmethod
    def _write(self, key: bytes, since: int, expires: int, done: bool, now: int) -> None:
        """Keep that, and let go of what is too much or over."""

    @abstractmethod
    def _new_token(self, since: int, now: int) -> int:
        """The moment, about the present one, that tells a claim from the one before, which began at ``since``."""

    def ask(self, ask: ClaimAsk, now: int) -> tuple[ClaimState, float, int | None]:
        """Ask for a content.

        Args:
            ask: The content.
            now: The present moment.

        Returns:
            What is known of it, seconds since the call that has or had it began, and the token if the caller has it.
        """
        since, expires, done = self._read(ask.key)
        if expires > now and (done or since != ask.token):
            state = ClaimState.DONE if done else ClaimState.IN_FLIGHT
            return state, max(now - since, 0) / MICROSECONDS, None
        if expires <= now:
            since = self._new_token(since, now)
        self._write(ask.key, since, now + round(ask.lease * MICROSECONDS), False, now)
        return ClaimState.CLAIMED, 0.0, since

    def report(self, report: ClaimReport, now: int) -> None:
        """A call with a content is over.

        Args:
            report: How it ended.
            now: The present moment.
        """
        since, expires, done = self._read(report.key)
        # A claim whose lease is over is still the caller's if nobody took it, even if it is forgotten.
        token = report.token if not done and since in {0, report.token} else None
        until = now + round(report.lasts * MICROSECONDS)
        match report.end:
            case ClaimEnd.DONE:
                began = now if token is None else token
                self._write(report.key, began, max(until, expires if token is None else 0), True, now)
            case ClaimEnd.KEEP if token is not None:
                self._write(report.key, token, until, False, now)
            case ClaimEnd.RELEASE if since == token:
                # It stays, expired, so that claims go in the order in which they came.
                self._write(report.key, since, 0, False, now)
            case _:
                pass  # another call has it, or its lease is over


def admit(pool: Pool, claims: Claims, ask: Admit, now: int, wall: int) -> Admission:
    """Grant a slot, a content, or both; or say when there is one, and who has it.

    Args:
        pool: The pool.
        claims: The claims.
        ask: What is asked for.
        now: The present moment, by the store's steady clock.
        wall: Microseconds since 1970.
    """
    if ask.claim is None:
        return _slot(pool, ask, now, wall, takes=True)
    claim, age, token = claims.ask(ask.claim, now)
    admission = _slot(pool, ask, now, wall, takes=claim is not ClaimState.DONE)
    if admission.slot is None and token is not None and ask.claim.token is None:
        claims.report(ClaimReport(ask.claim.key, token, ClaimEnd.RELEASE), now)
        return admission
    return admission._replace(claim=claim, claim_age=age, token=token)


def report(pool: Pool, claims: Claims, told: Report, now: int, wall: int) -> None:
    """Note what is told of a pool, and of a content.

    Args:
        pool: The pool.
        claims: The claims.
        told: What is told.
        now: The present moment, by the store's steady clock.
        wall: Microseconds since 1970.
    """
    _correct(pool, told.corrections, now, wall)
    if told.closed_for is not None:
        pool.closed_until = max(pool.closed_until, now + round(told.closed_for * MICROSECONDS))
    if told.learned is not None:
        pool.learned = told.learned
    if told.claim is not None:
        claims.report(told.claim, now)


def use_of(pool: Pool, key: PoolKey, workers: int, now: int, wall: int) -> PoolUse:
    """What is known of a pool. It changes nothing: another limit may count for longer than the one asked with last.

    Args:
        pool: The pool.
        key: Its key.
        workers: How many processes share it.
        now: The present moment, by the store's steady clock.
        wall: Microseconds since 1970.
    """
    at = max(pool.calendar_clock, wall) if pool.calendar_clock else now
    used = 0 if pool.limit is None else _used(pool, pool.limit, at)
    return PoolUse(key, pool.limit, used, max(pool.closed_until - now, 0) / MICROSECONDS, workers, pool.learned)


def hold(pool: Pool, limit: Limit | None) -> None:
    """Hold a pool to a limit from now on."""
    pool.limit = limit
    if limit is not None and limit.calendar is not bool(pool.calendar_clock):
        # Moments of one clock say nothing on the other.
        pool.calendar_clock = int(limit.calendar)
        pool.forget_uses()


def window_now(pool: Pool, now: int, wall: int) -> int:
    """The present moment, by the clock that a pool's window goes by.

    A wall clock that is set back stands still until it is where it was: what was used is not to come. One that was
    wrong by more than a day has counted nothing that is worth keeping.

    Args:
        pool: The pool.
        now: The present moment, by the store's steady clock.
        wall: Microseconds since 1970.
    """
    if not pool.calendar_clock:
        return now
    if pool.calendar_clock > wall + DAY:
        pool.calendar_clock = wall
        pool.forget_uses()
    pool.calendar_clock = max(pool.calendar_clock, wall)
    return pool.calendar_clock


def _slot(pool: Pool, ask: Admit, steady: int, wall: int, *, takes: bool) -> Admission:
    closed_for = max(pool.closed_until - steady, 0)
    longest = round(ask.longest_wait * MICROSECONDS)
    limit = ask.limit
    hold(pool, limit)
    if limit is None:
        if not takes:
            return Admission(learned=pool.learned)
        fits = closed_for <= longest
        return Admission(
            wait=closed_for / MICROSECONDS,
            slot=steady + closed_for if fits else None,
            closed=closed_for > 0,
            learned=pool.learned,
        )
    now = window_now(pool, steady, wall)
    window = pool.window
    _correct(pool, ask.corrections, steady, wall)
    if ask.past:
        window.add(*((now - use.age, use.cost) for use in ask.past))
    if not takes:
        return Admission(used=window.used(limit, now), learned=pool.learned)
    # Where the wall clock was set back, this one stands still until that is where it was; a closing goes on.
    shown = min(now, wall) if limit.calendar else now
    opens = max(now, shown + closed_for)
    if ask.holding is None:
        slot, taken = window.reserve(limit, now, cost=ask.cost, not_before=opens, longest_wait=longest)
    else:
        slot, taken = window.confirm(limit, ask.holding, now, cost=ask.cost, not_before=opens, longest_wait=longest)
    wait = slot - shown if slot > now else closed_for
    if taken and shown < now and wait > longest:
        window.give_back(slot, min(ask.cost, limit.count))
        taken = False
    return Admission(
        wait=wait / MICROSECONDS,
        slot=slot if taken else None,
        closed=closed_for > 0,
        used=window.used(limit, now),
        learned=pool.learned,
    )


def _correct(pool: Pool, corrections: tuple[Correction, ...], now: int, wall: int) -> None:
    if corrections:
        moment = window_now(pool, now, wall)
        for correction in corrections:
            pool.window.correct(correction, moment, pool.limit)


def _used(pool: Pool, limit: Limit, now: int) -> int:
    """What is used of a limit in the window that ends now, found without forgetting what is not."""

    def end(moment: int) -> int:
        return window_end(moment, limit)

    counted = pool.moments.until(now) - bisect_right(pool.moments, now, key=end)
    return counted - (bisect_right(pool.free, now) - bisect_right(pool.free, now, key=end))
