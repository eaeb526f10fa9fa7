"""A file that an older version of insider-otel made: nothing of it is lost, and older workers may go on with it."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from tests.state.race import in_processes

from .conftest import PATIENT
from .jobs import NOW, job, put, take

DAY = 86_400.0

BEFORE_RETENTION = """
    PRAGMA journal_mode = WAL;
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
    ) STRICT;
    CREATE INDEX jobs_due ON jobs (pool, due) WHERE state = 'waiting';
    CREATE INDEX jobs_line ON jobs (line, number) WHERE state = 'waiting' AND line IS NOT NULL;
    CREATE INDEX jobs_leased ON jobs (leased_until) WHERE leased_until > 0;
    CREATE INDEX jobs_created ON jobs (state, created);
    CREATE TABLE pools (pool TEXT PRIMARY KEY, free_at REAL NOT NULL) STRICT, WITHOUT ROWID;
    INSERT INTO pools VALUES ('user.upsert', 0);
    PRAGMA application_id = 0x696F6F62;
    PRAGMA user_version = 1;
"""

_PUT = (
    "INSERT INTO jobs (state, id, operation, product, pool, content, context, created, due, expires, attempts, "
    "deliveries, verdict, stopped) VALUES (?, ?, 'user.upsert', 'ucd', 'user.upsert', x'707b7d', ?, ?, ?, ?, 0, 0, "
    "'{}', ?)"
)


@pytest.fixture
def older(path: Path) -> Path:
    """The file, with a job that waits and a dead letter."""
    one = job()
    moments = (one.created, one.due, one.expires)
    trace = '{"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}'
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(BEFORE_RETENTION)
        connection.execute(_PUT, ("waiting", "waits", trace, *moments, None))
        connection.execute(_PUT, ("dead", "given-up", trace, *moments, "unsafe"))
        connection.commit()
    return path


def test_nothing_is_lost_and_what_was_given_up_is_kept_as_long_as_if_it_were_new(older: Path) -> None:
    store = SQLiteOutbox(older)
    waiting, dead = job(id="waits"), job(id="given-up", stopped="unsafe")
    assert store.jobs() == [waiting, dead], "who only looks may come first"
    later = NOW + 50 * DAY
    assert store.purge(later, retention=DAY, most=10) == {}
    assert store.jobs() == [waiting, replace(dead, stopped_at=later)]
    assert store.purge(later + DAY, retention=DAY, most=10) == {"user.upsert": 1}
    assert [lease.job for lease in take(store)] == [waiting]
    store.close()


def test_an_older_worker_goes_on_with_a_file_that_a_newer_one_uses(older: Path) -> None:
    store = SQLiteOutbox(older)
    with closing(sqlite3.connect(older)) as old:
        assert old.execute("SELECT count(*) FROM jobs").fetchone() == (2,)
        put(store, id="of-the-newer")
        old.execute(_PUT, ("waiting", "of-the-older", "{}", NOW, NOW, NOW + DAY, None))
        old.execute("UPDATE jobs SET state = 'dead', stopped = 'failed' WHERE id = 'of-the-newer'")
        old.commit()
    assert [each.id for each in store.jobs("dead")] == ["given-up", "of-the-newer"]
    assert store.purge(NOW, retention=DAY, most=10) == {}
    assert {each.stopped_at for each in store.jobs("dead")} == {NOW}
    assert [lease.job.id for lease in take(store)] == ["waits", "of-the-older"]
    store.close()


def test_a_file_that_is_put_back_from_an_older_time_is_made_fit_too(path: Path, older: Path) -> None:
    away = older.rename(path.with_name("away.db"))
    store = SQLiteOutbox(path)
    put(store)
    # With it goes the log beside the file, which would be taken for that of the other.
    store.close()
    away.replace(path)
    assert [each.id for each in store.jobs()] == ["waits", "given-up"]
    store.close()


def test_many_processes_open_an_older_file_at_once(older: Path) -> None:
    in_processes(4, _look, older)


def _look(path: Path) -> None:
    store = SQLiteOutbox(path, timeout=PATIENT)
    assert len(store.jobs()) == 2
    store.close()
