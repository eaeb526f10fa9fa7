"""An outbox in a sqlite file: for all processes of one machine, web workers and delivery workers alike."""

from __future__ import annotations

import json
import logging
import os
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Collection, Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, Literal

from insider_otel.outbox.job import Job, read_mapping
from insider_otel.outbox.protocol import JobState, Lease, OutboxError, Pace, Stats, Taken
from insider_otel.outbox.rules import LOOK_AHEAD, Renewals, interrupted, opens_at, room
from insider_otel.state.event_loops import OUTBOX_THREADS, limiter
from insider_otel.state.protocol import StoreError
from insider_otel.state.sqlite_file import FileKind, SQLiteFile, file_path

_LOG_EMPTIED_EVERY = 60.0
_LOG_TRIED_AGAIN = 1.0

_log = logging.getLogger("insider_otel.outbox")

_SCHEMA = (
    # One row for each job; the number is the order they came in. A job is waiting, or dead: given up.
    """
    CREATE TABLE jobs (
        number INTEGER PRIMARY KEY AUTOINCREMENT,
        id TEXT NOT NULL UNIQUE,
        state TEXT NOT NULL CHECK (state IN ('waiting', 'dead')),
        operation TEXT NOT NULL,
        product TEXT NOT NULL,
        pool TEXT NOT NULL,
        content BLOB NOT NULL,
        account TEXT,
        line TEXT,
        context TEXT NOT NULL,
        created REAL NOT NULL,
        due REAL NOT NULL,
        expires REAL NOT NULL,
        attempts INTEGER NOT NULL,
        deliveries INTEGER NOT NULL,
        ambiguous_since REAL,
        verdict TEXT NOT NULL,
        stopped TEXT,
        token TEXT,
        leased_until REAL NOT NULL DEFAULT 0,
        sent_at REAL
    ) STRICT
    """,
    "CREATE INDEX jobs_due ON jobs (pool, due) WHERE state = 'waiting'",
    "CREATE INDEX jobs_line ON jobs (line, number) WHERE state = 'waiting' AND line IS NOT NULL",
    "CREATE INDEX jobs_leased ON jobs (leased_until) WHERE leased_until > 0",
    "CREATE INDEX jobs_created ON jobs (state, created)",
    # When the next delivery of a pool may start, whichever worker makes it.
    "CREATE TABLE pools (pool TEXT PRIMARY KEY, free_at REAL NOT NULL) STRICT, WITHOUT ROWID",
)

# What files of older versions lack. Their workers may go on with a file that has it: they name the columns they write.
_STOPPED_AT = (
    "ALTER TABLE jobs ADD COLUMN stopped_at REAL",
    "CREATE INDEX jobs_stopped ON jobs (stopped_at) WHERE state = 'dead'",
)

_NAMES = tuple(field.name for field in fields(Job))
_COLUMNS = ", ".join(_NAMES)
_MARKS = ", ".join("?" for _ in _NAMES)

# A job of a line waits until those before it are delivered or given up. One that somebody has sent again, after it was
# given up, also waits for a later one that is being sent.
_IS_FIRST = (
    "(line IS NULL OR NOT EXISTS (SELECT 1 FROM jobs AS before WHERE before.line = jobs.line "
    "AND before.number < jobs.number AND before.state = 'waiting') "
    "AND NOT EXISTS (SELECT 1 FROM jobs AS sent WHERE sent.line = jobs.line "
    "AND sent.leased_until > 0 AND sent.leased_until > ?))"
)

_POOLS = (
    "SELECT pool, free_at FROM pools WHERE EXISTS "
    "(SELECT 1 FROM jobs WHERE jobs.pool = pools.pool AND jobs.state = 'waiting') ORDER BY free_at"
)


def _kind(sync: Literal["normal", "full"]) -> FileKind:
    return FileKind(
        application_id=0x696F6F62,  # "ioob"
        version=1,
        schema=(*_SCHEMA, *_STOPPED_AT),
        if_damaged="It holds calls that are yet to be sent: put it aside with its -wal, take out what can be read with "
        "`sqlite3 FILE .recover`, and a new one is made",
        synchronous="FULL" if sync == "full" else "NORMAL",
    )


class SQLiteOutbox:
    """Jobs in a file that all processes of one machine share.

    A job that was put is in the file: it survives the end of any process, at any moment. With ``sync="full"`` it
    survives a machine that loses power as well, and ``put`` waits for the disk.

    What was stored of a job is overwritten in the file when it is done. Workers empty the log beside it once a minute.

    Args:
        path: The file; it is made when it is first used, readable by its owner alone. On a local disk, not a network's.
        timeout: Seconds after which it gives up waiting for other writers.
        sync: Whether a transaction waits for the disk.

    Raises:
        OutboxError: The file's directory does not exist, or the file is a directory itself.
    """

    name = "sqlite"
    poll = 0.05

    __slots__ = (
        "_changes",
        "_empty_log_at",
        "_file",
        "_holds_done",
        "_identity",
        "_path",
        "_renewals",
        "_timeout",
        "address",
    )

    def __init__(
        self, path: str | os.PathLike[str], *, timeout: float = 5.0, sync: Literal["normal", "full"] = "normal"
    ) -> None:
        try:
            absolute = file_path(path, "outbox")
        except StoreError as error:
            raise OutboxError(str(error)) from None
        self.address = f"sqlite:///{absolute}"
        self._path = absolute
        self._file = SQLiteFile(absolute, _kind(sync))
        self._timeout = timeout
        self._identity: tuple[int, int] | None = None
        self._changes = 0
        self._holds_done = False
        self._empty_log_at = 0.0
        self._renewals = Renewals()

    def put(self, job: Job) -> None:
        """Keep a job."""
        with self._writing() as connection:
            connection.execute("INSERT OR IGNORE INTO pools VALUES (?, 0)", (job.pool,))
            connection.execute(f"INSERT INTO jobs (state, {_COLUMNS}) VALUES ('waiting', {_MARKS})", _row(job))  # noqa: S608
        self._changes += 1

    async def put_async(self, job: Job) -> None:
        """``put``, in a thread. A thread that has begun is waited for, also by a call that was cancelled."""
        from anyio import to_thread  # noqa: PLC0415  (sync clients need no anyio)

        await to_thread.run_sync(self.put, job, limiter=limiter("outbox", OUTBOX_THREADS))

    def take(self, most: int, now: float, *, lease: float, pace: Pace, ahead: float = 0.0) -> Taken:
        """Take jobs that are due."""
        leases: list[Lease] = []
        wake: list[float] = []
        with self._writing() as connection:
            for pool, free_at in connection.execute(_POOLS).fetchall():
                step = pace(pool)
                start = opens_at(free_at, now, step, ahead)
                number = room(start - now, step, most - len(leases))
                rows = _due(connection, pool, now, ahead, number) if number > 0 else []
                for row in rows:
                    leases.append(_lease(connection, row, start, now + lease))
                    start += step
                if rows:
                    # A pool without a limit has its turn after the others too.
                    connection.execute("UPDATE pools SET free_at = ? WHERE pool = ?", (start, pool))
                due = _next_due(connection, pool, now)
                if due is not None:
                    wake.append(max(due, start - LOOK_AHEAD))
            # Those whose lease has ended already count as due.
            asked = "SELECT min(leased_until), max(leased_until) FROM jobs WHERE leased_until > 0 AND leased_until > ?"
            ends, last = connection.execute(asked, (now,)).fetchone()
            if ends is not None:
                # A worker that is no more does not say so.
                over_in = self._renewals.over_in(last)
                if over_in <= 0.0:
                    connection.execute(
                        "UPDATE jobs SET token = NULL, leased_until = 0 WHERE leased_until > 0 AND leased_until = ?",
                        (last,),
                    )
                wake += [ends, now + max(over_in, 0.0)]
        if self._holds_done:
            wake.append(self._empty_log(now))
        return Taken(leases, min(wake, default=None))

    def begin(self, lease: Lease, now: float) -> bool:
        """Note that a job is about to be sent."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE jobs SET sent_at = ? WHERE id = ? AND token = ? AND leased_until > ?",
                (now, lease.job.id, lease.token, now),
            )
            return changed.rowcount == 1

    def renew(self, leases: Collection[Lease], until: float) -> None:
        """Keep jobs for longer."""
        with self._writing() as connection:
            connection.executemany(
                "UPDATE jobs SET leased_until = ? WHERE id = ? AND token = ?",
                [(until, lease.job.id, lease.token) for lease in leases],
            )

    def release(self, leases: Collection[Lease]) -> None:
        """Give back jobs that were not sent."""
        with self._writing() as connection:
            connection.executemany(
                "UPDATE jobs SET token = NULL, leased_until = 0 WHERE id = ? AND token = ?",
                [(lease.job.id, lease.token) for lease in leases],
            )
        self._changes += 1

    def delivered(self, lease: Lease) -> None:
        """A job is done, whoever has it now."""
        with self._writing() as connection:
            # Also if the lease ended meanwhile: who has taken it since need not send it.
            connection.execute("DELETE FROM jobs WHERE id = ?", (lease.job.id,))
        self._forgotten()

    def put_back(self, lease: Lease, job: Job) -> bool:
        """A job is to be sent later, or never."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE jobs SET state = ?, due = ?, attempts = ?, deliveries = ?, ambiguous_since = ?, verdict = ?, "
                "stopped = ?, stopped_at = ?, token = NULL, leased_until = 0, sent_at = NULL "
                "WHERE id = ? AND token = ?",
                (
                    "waiting" if job.stopped is None else "dead",
                    job.due,
                    job.attempts,
                    job.deliveries,
                    job.ambiguous_since,
                    json.dumps(dict(job.verdict)),
                    job.stopped,
                    job.stopped_at,
                    job.id,
                    lease.token,
                ),
            )
        self._changes += 1
        return changed.rowcount == 1

    def hold_pool(self, pool: str, until: float) -> None:
        """Take no job of a pool before a moment."""
        with self._writing() as connection:
            connection.execute("UPDATE pools SET free_at = max(free_at, ?) WHERE pool = ?", (until, pool))

    def change(self) -> Any:
        """Something that differs if anybody has written since."""
        with self._reading() as connection:
            # It says nothing of what was written before the connection was opened, nor of what goes through itself.
            (version,) = connection.execute("PRAGMA data_version").fetchone()
            return self._file.openings, version, self._changes

    def jobs(self, state: JobState | None = None, *, most: int = 100) -> Sequence[Job]:
        """Jobs, the oldest first."""
        asked = f"SELECT {_COLUMNS} FROM jobs WHERE state IN (?, ?) ORDER BY number LIMIT ?"  # noqa: S608
        with self._reading() as connection:
            rows = connection.execute(asked, (state or "waiting", state or "dead", most)).fetchall()
        return [_job(row) for row in rows]

    def ids(self, state: JobState | None = None, *, beginning: str = "") -> Sequence[str]:
        """The names of jobs, the oldest first."""
        asked = "SELECT id FROM jobs WHERE state IN (?, ?) AND substr(id, 1, ?) = ? ORDER BY number"
        with self._reading() as connection:
            rows = connection.execute(
                asked, (state or "waiting", state or "dead", len(beginning), beginning)
            ).fetchall()
        return [name for (name,) in rows]

    def job(self, job_id: str) -> Job | None:
        """One job."""
        with self._reading() as connection:
            row = connection.execute(f"SELECT {_COLUMNS} FROM jobs WHERE id = ?", (job_id,)).fetchone()  # noqa: S608
        return None if row is None else _job(row)

    def retry(self, job_id: str, *, now: float, expires: float) -> bool:
        """Have a job sent now; who asks for it has seen what may have become of it, so that is forgotten."""
        with self._writing() as connection:
            changed = connection.execute(
                "UPDATE jobs SET state = 'waiting', due = ?, expires = max(expires, ?), ambiguous_since = NULL, "
                "sent_at = NULL, stopped = NULL, stopped_at = NULL, token = NULL, leased_until = 0 "
                "WHERE id = ? AND leased_until <= ?",
                (now, expires, job_id, now),
            )
        self._changes += 1
        return changed.rowcount == 1

    def discard(self, job_id: str) -> bool:
        """Forget a job."""
        with self._writing() as connection:
            changed = connection.execute("DELETE FROM jobs WHERE id = ? AND leased_until <= ?", (job_id, time.time()))
        self._forgotten()
        return changed.rowcount == 1

    def purge(self, now: float, *, retention: float, most: int) -> Mapping[str, int]:
        """Forget dead letters that were kept for long enough."""
        with self._writing() as connection:
            # By name, for sqlite would take another, and read all that the dead letters hold.
            dead = "jobs INDEXED BY jobs_stopped"
            connection.execute(
                f"UPDATE {dead} SET stopped_at = ? WHERE state = 'dead' AND stopped_at IS NULL",  # noqa: S608
                (now,),
            )
            rows = connection.execute(
                f"DELETE FROM jobs WHERE number IN (SELECT number FROM {dead} WHERE state = 'dead' "  # noqa: S608
                "AND stopped_at <= ? ORDER BY stopped_at LIMIT ?) RETURNING operation",
                (now - retention, most),
            ).fetchall()
        if rows:
            self._forgotten()
        return Counter(operation for (operation,) in rows)

    def stats(self) -> Stats:
        """How full it is."""
        with self._reading() as connection:
            # Each from an index alone: it is asked for every second, and calls that are to be kept wait meanwhile.
            counted = "SELECT count(*), min(created) FROM jobs WHERE state = ?"
            waiting, oldest = connection.execute(counted, ("waiting",)).fetchone()
            dead, _ = connection.execute(counted, ("dead",)).fetchone()
            asked = "SELECT count(*) FROM jobs WHERE leased_until > 0 AND leased_until > ?"
            (leased,) = connection.execute(asked, (time.time(),)).fetchone()
        return Stats(waiting, dead, oldest, leased)

    def close(self) -> None:
        """Close the file; whoever uses the outbox again opens it again."""
        self._file.close()

    def _forgotten(self) -> None:
        """A job is no more, and those behind it in its line may go. The log holds it still."""
        self._holds_done = True
        self._changes += 1

    def _empty_log(self, now: float) -> float:
        """Leave nothing in the log of jobs that are done, but not each time: it waits for the disk.

        Returns:
            When to do so next.
        """
        # One farther ahead was set by a clock that was ahead then.
        if not now < self._empty_log_at <= now + _LOG_EMPTIED_EVERY:
            self._holds_done = False
            if not self._file.empty_log():
                self._holds_done = True
            self._empty_log_at = now + (_LOG_TRIED_AGAIN if self._holds_done else _LOG_EMPTIED_EVERY)
        return self._empty_log_at

    @contextmanager
    def _transaction(self, *, writing: bool) -> Generator[sqlite3.Connection]:
        try:
            deadline = time.monotonic() + self._timeout
            if self._identity is None or self._identify() != self._identity:
                self._meet_file(deadline)
            with self._file.transaction(deadline, writing=writing) as connection:
                yield connection
        except StoreError as error:
            raise OutboxError(str(error)) from error

    @contextmanager
    def _writing(self) -> Generator[sqlite3.Connection]:
        with self._transaction(writing=True) as connection:
            # What is deleted is to be gone, not just no longer found.
            connection.execute("PRAGMA secure_delete = ON")
            yield connection

    @contextmanager
    def _reading(self) -> Generator[sqlite3.Connection]:
        with self._transaction(writing=False) as connection:
            yield connection

    def _meet_file(self, deadline: float) -> None:
        """Add what the file lacks if an older version made it. Say so if it takes the place of the one used before."""
        with self._file.transaction(deadline) as connection:
            columns = {name for _, name, *_ in connection.execute("PRAGMA table_info(jobs)")}
            if "stopped_at" not in columns:
                for statement in _STOPPED_AT:
                    connection.execute(statement)
            identity = self._identify()
        if self._identity not in {None, identity}:
            _log.error(
                "%s was deleted or replaced while it was in use; the deferred calls that it held are not sent "
                "unless it is put back, with all that use the outbox stopped",
                self.address,
            )
        self._identity = identity

    def _identify(self) -> tuple[int, int] | None:
        """Which file is at the path now; None if there is none."""
        try:
            status = os.stat(self._path)
        except OSError:
            # If more is wrong than that, the transaction says so.
            return None
        return status.st_dev, status.st_ino


def _due(connection: sqlite3.Connection, pool: str, now: float, ahead: float, most: int) -> list[tuple[Any, ...]]:
    asked = (
        f"SELECT {_COLUMNS}, sent_at FROM jobs WHERE state = 'waiting' AND pool = ? AND due <= ? "  # noqa: S608
        f"AND leased_until <= ? AND {_IS_FIRST} ORDER BY due, number LIMIT ?"
    )
    return connection.execute(asked, (pool, now + ahead, now, now, most)).fetchall()


def _next_due(connection: sqlite3.Connection, pool: str, now: float) -> float | None:
    """When the next job of a pool is due that no worker has; None if there is none."""
    asked = (
        "SELECT due FROM jobs WHERE state = 'waiting' AND pool = ? AND leased_until <= ? "  # noqa: S608
        f"AND {_IS_FIRST} ORDER BY due LIMIT 1"
    )
    row = connection.execute(asked, (pool, now, now)).fetchone()
    return None if row is None else max(row[0], now)


def _lease(connection: sqlite3.Connection, row: tuple[Any, ...], start: float, until: float) -> Lease:
    *columns, sent_at = row
    job = interrupted(_job(tuple(columns)), sent_at)
    token = secrets.token_hex(8)
    connection.execute(
        "UPDATE jobs SET token = ?, leased_until = ?, attempts = ?, ambiguous_since = ?, sent_at = NULL WHERE id = ?",
        (token, until, job.attempts, job.ambiguous_since, job.id),
    )
    return Lease(job, token, start)


def _row(job: Job) -> tuple[Any, ...]:
    texts = {"context": json.dumps(dict(job.context)), "verdict": json.dumps(dict(job.verdict))}
    return tuple(texts[name] if name in texts else getattr(job, name) for name in _NAMES)


def _job(row: tuple[Any, ...]) -> Job:
    values = dict(zip(_NAMES, row, strict=True))
    values["context"] = read_mapping(values["context"])
    values["verdict"] = read_mapping(values["verdict"])
    return Job(**values)
