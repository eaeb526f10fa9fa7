"""Limits and claims in a sqlite file, for all processes of one machine."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from insider_otel.api.operations import Limit
from insider_otel.state.claims import MOST_CLAIMS
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Correction,
    ListPools,
    PoolUse,
    Report,
    Request,
    StoreError,
)
from insider_otel.state.sqlite_claims import Claims
from insider_otel.state.sqlite_file import SQLiteFile
from insider_otel.state.sqlite_rows import SCHEMA, VERSION, Pool, read_clock

if TYPE_CHECKING:
    from anyio import CapacityLimiter
    from anyio.lowlevel import RunVar


class SQLiteStore:
    """Limits and claims in a file that all processes of one machine share. Its time is the machine's monotonic clock,
    so it matters to nobody if the wall clock is set.

    Args:
        path: The file; it is made when it is first used, readable by its owner alone. On a local disk, not a network's.
        timeout: Seconds after which the store gives up.
        monotonic: Returns seconds by a clock that all processes have in common and that starts anew with the machine.
        wall_clock: Returns seconds since 1970, by which calendar days are told.
        most_claims: How many claims are kept.

    Raises:
        StoreError: The file's directory does not exist.
    """

    name = "sqlite"

    __slots__ = ("_file", "_monotonic", "_most_claims", "_timeout", "_wall_clock", "address")

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        timeout: float = 0.05,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        most_claims: int = MOST_CLAIMS,
    ) -> None:
        # The app may change its directory later.
        absolute = Path(path).absolute()
        if not absolute.parent.is_dir():
            raise StoreError(
                f"the directory {absolute.parent} of the state file {absolute.name} does not exist: make it"
            )
        self.address = f"sqlite:///{absolute}"
        self._file = SQLiteFile(absolute, SCHEMA, VERSION)
        self._timeout = timeout
        self._monotonic = monotonic
        self._wall_clock = wall_clock
        self._most_claims = most_claims

    def perform(self, request: Request) -> Any:
        """Do what is asked, in one transaction."""
        return self._perform(request, time.monotonic() + self._timeout)

    async def perform_async(self, request: Request) -> Any:
        """``perform``, in a thread."""
        from anyio import fail_after, to_thread  # noqa: PLC0415  (sync clients need no anyio)

        deadline = time.monotonic() + self._timeout
        try:
            # Twice as long: an event loop that is busy itself is no trouble of the store's.
            with fail_after(2 * self._timeout):
                # A thread that has begun is waited for, also by a call that was cancelled.
                return await to_thread.run_sync(self._perform, request, deadline, limiter=_limiter())
        except TimeoutError as error:
            raise StoreError(f"{self.address}: other calls have kept it busy for too long") from error

    def close(self) -> None:
        """Close the file; whoever uses the store again opens it again."""
        self._file.close()

    def _perform(self, request: Request, deadline: float) -> Any:
        with self._file.transaction(deadline, writing=not isinstance(request, ListPools)) as connection:
            monotonic, wall = round(self._monotonic() * MICROSECONDS), round(self._wall_clock() * MICROSECONDS)
            match request:
                case Admit():
                    now = read_clock(connection, monotonic, wall, writing=True)
                    return _Transaction(connection, now, wall, self._most_claims).admit(request)
                case Report():
                    now = read_clock(connection, monotonic, wall, writing=True)
                    return _Transaction(connection, now, wall, self._most_claims).report(request)
                case ListPools():
                    now = read_clock(connection, monotonic, wall, writing=False)
                    return _Transaction(connection, now, wall, self._most_claims).list_pools(deadline)


class _Transaction:
    """What is done for one request.

    Args:
        connection: The connection, on which a transaction has begun.
        now: The store's time.
        wall: Microseconds since 1970.
        most_claims: How many claims are kept.
    """

    __slots__ = ("_claims", "_connection", "_now", "_wall")

    def __init__(self, connection: sqlite3.Connection, now: int, wall: int, most_claims: int) -> None:
        self._connection = connection
        self._claims = Claims(connection, most_claims)
        self._now = now
        self._wall = wall

    def admit(self, ask: Admit) -> Admission:
        claim, age, token = None, 0.0, None
        if ask.claim is not None:
            claim, age, token = self._claims.ask(ask.claim, self._now)
        pool = Pool.open(self._connection, ask.pool, self._now)
        admission = self._slot(pool, ask, takes=claim is not ClaimState.DONE)
        if ask.worker:
            pool.see(self._connection, ask.worker, self._now)
        pool.save(self._connection, self._now)
        admission = replace(admission, born=pool.born, workers=pool.workers(self._connection, self._now))
        if ask.claim is None:
            return admission
        if admission.slot is None and token is not None and ask.claim.token is None:
            self._claims.report(ClaimReport(ask.claim.key, token, ClaimEnd.RELEASE), self._now)
            return admission
        return replace(admission, claim=claim, claim_age=age, token=token)

    def report(self, report: Report) -> None:
        pool = Pool.open(self._connection, report.pool, self._now)
        self._correct(pool, report.corrections)
        if report.closed_for is not None:
            pool.closed_until = max(pool.closed_until, self._now + round(report.closed_for * MICROSECONDS))
        if report.learned is not None:
            pool.learned = report.learned
        pool.save(self._connection, self._now)
        if report.claim is not None:
            self._claims.report(report.claim, self._now)

    def list_pools(self, deadline: float) -> tuple[PoolUse, ...]:
        uses: list[PoolUse] = []
        for pool in Pool.all(self._connection):
            if time.monotonic() > deadline:
                raise StoreError("there are too many pools to list in time: give the state a longer timeout")
            used = 0 if pool.limit is None else pool.window.used(pool.limit, self._window_now(pool.limit))
            closed_for = max(pool.closed_until - self._now, 0) / MICROSECONDS
            workers = pool.workers(self._connection, self._now)
            uses.append(PoolUse(pool.key, pool.limit, used, closed_for, workers, pool.learned))
        return tuple(uses)

    def _slot(self, pool: Pool, ask: Admit, *, takes: bool) -> Admission:
        closed_for = max(pool.closed_until - self._now, 0)
        longest = round(ask.longest_wait * MICROSECONDS)
        limit = ask.limit
        pool.hold(limit)
        if limit is None:
            if not takes:
                return Admission(learned=pool.learned)
            fits = closed_for <= longest
            return Admission(
                wait=closed_for / MICROSECONDS,
                slot=self._now + closed_for if fits else None,
                closed=closed_for > 0,
                learned=pool.learned,
            )
        now = self._window_now(limit)
        self._correct(pool, ask.corrections)
        pool.window.add(*((now - use.age, use.cost) for use in ask.past))
        if not takes:
            return Admission(used=pool.window.used(limit, now), learned=pool.learned)
        opens = now + closed_for
        if ask.holding is None:
            slot, taken = pool.window.reserve(limit, now, cost=ask.cost, not_before=opens, longest_wait=longest)
        else:
            slot, taken = pool.window.confirm(
                limit, ask.holding, now, cost=ask.cost, not_before=opens, longest_wait=longest
            )
        return Admission(
            wait=max(slot - now, 0) / MICROSECONDS,
            slot=slot if taken else None,
            closed=closed_for > 0,
            used=pool.window.used(limit, now),
            learned=pool.learned,
        )

    def _correct(self, pool: Pool, corrections: tuple[Correction, ...]) -> None:
        now = self._wall if pool.by_calendar else self._now
        for correction in corrections:
            pool.window.correct(correction, now)

    def _window_now(self, limit: Limit) -> int:
        return self._wall if limit.calendar else self._now


@cache
def _limiters() -> RunVar[CapacityLimiter]:
    from anyio.lowlevel import RunVar  # noqa: PLC0415  (sync clients need no anyio)

    return RunVar("insider_otel.sqlite")


def _limiter() -> CapacityLimiter:
    """One thread at a time for each event loop: the threads would only wait for each other. Not those of the app's own
    ``to_thread``, which may all be busy.
    """
    from anyio import CapacityLimiter  # noqa: PLC0415

    limiters = _limiters()
    limiter = limiters.get(None)
    if limiter is None:
        limiter = CapacityLimiter(1)
        limiters.set(limiter)
    return limiter
