"""Limits and claims in a sqlite file, for all processes of one machine."""

from __future__ import annotations

import os
import sqlite3
import time
from collections.abc import Callable
from typing import Any

from insider_otel.state import rules
from insider_otel.state.claims import MOST_CLAIMS
from insider_otel.state.event_loops import limiter
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ListPools,
    PoolUse,
    Report,
    Request,
    StoreError,
)
from insider_otel.state.sqlite_claims import SQLiteClaims
from insider_otel.state.sqlite_file import FileKind, SQLiteFile, file_path
from insider_otel.state.sqlite_rows import SCHEMA, VERSION, Pool, read_clock

_KIND = FileKind(
    application_id=0x696F746C,  # "iotl"
    version=VERSION,
    schema=SCHEMA,
    if_damaged="Delete the file, with its -wal and -shm: what it holds is forgotten, and a new one is made",
    # Nothing in it is worth a wait for the disk at each transaction.
    synchronous="NORMAL",
)


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
        StoreError: The file's directory does not exist, or the file is a directory itself.
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
        absolute = file_path(path, "state file")
        self.address = f"sqlite:///{absolute}"
        self._file = SQLiteFile(absolute, _KIND)
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
                # One thread at a time: more would only wait for each other. One that has begun is waited for, also by a
                # call that was cancelled.
                return await to_thread.run_sync(self._perform, request, deadline, limiter=limiter("sqlite", 1))
        except TimeoutError as error:
            raise StoreError(f"{self.address}: other calls have kept it busy for too long") from error

    def close(self) -> None:
        """Close the file; whoever uses the store again opens it again."""
        self._file.close()

    def _perform(self, request: Request, deadline: float) -> Any:
        writing = not isinstance(request, ListPools)
        with self._file.transaction(deadline, writing=writing) as connection:
            monotonic, wall = round(self._monotonic() * MICROSECONDS), round(self._wall_clock() * MICROSECONDS)
            now = read_clock(connection, monotonic, wall, writing=writing)
            transaction = _Transaction(connection, now, wall, self._most_claims)
            match request:
                case Admit():
                    return transaction.admit(request)
                case Report():
                    return transaction.report(request)
                case ListPools():
                    return transaction.list_pools(deadline)


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
        self._claims = SQLiteClaims(connection, most_claims)
        self._now = now
        self._wall = wall

    def admit(self, ask: Admit) -> Admission:
        pool = Pool.open(self._connection, ask.pool, self._now)
        admission = rules.admit(pool, self._claims, ask, self._now, self._wall)
        if ask.worker and ask.born in {0, pool.born}:
            pool.see(self._connection, ask.worker, self._now)
        pool.save(self._connection, self._now)
        return admission._replace(born=pool.born, workers=pool.workers(self._connection, self._now))

    def report(self, report: Report) -> None:
        pool = Pool.open(self._connection, report.pool, self._now)
        rules.report(pool, self._claims, report, self._now, self._wall)
        pool.save(self._connection, self._now)

    def list_pools(self, deadline: float) -> tuple[PoolUse, ...]:
        uses: list[PoolUse] = []
        for pool in Pool.all(self._connection):
            if time.monotonic() > deadline:
                raise StoreError("there are too many pools to list in time: give the state a longer timeout")
            workers = pool.workers(self._connection, self._now)
            uses.append(rules.use_of(pool, pool.key, workers, self._now, self._wall))
        return tuple(uses)
