"""What tests of the sqlite store have in common."""

from __future__ import annotations

import contextlib
import multiprocessing
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import (
    Admission,
    Admit,
    ListPools,
    PoolKey,
    PoolUse,
)
from insider_otel.state.sqlite_store import SQLiteStore

POOL = PoolKey("user.upsert", b"o" * 16)
PLENTY = Limit(1_000_000, 3600.0)
PATIENT = 10.0
LONGEST = 60.0

# A server process forks the others: each begins in milliseconds, with no thread and no connection of the tests' own.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([f"{__package__}.test_sharing", f"{__package__}.test_trouble"])


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def admit(store: SQLiteStore, limit: Limit = PLENTY, **other: Any) -> Admission:
    admission = store.perform(Admit(POOL, limit, **other))
    assert isinstance(admission, Admission)
    return admission


def use_of(store: SQLiteStore, pool: PoolKey = POOL) -> PoolUse:
    uses: tuple[PoolUse, ...] = store.perform(ListPools())
    return next(use for use in uses if use.pool == pool)


def rows(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


def in_processes(number: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``work`` returns in each of some processes, which begin it together."""
    barrier = processes.Barrier(number)
    answers = processes.Queue()
    children = [processes.Process(target=_report, args=(answers, barrier, work, args)) for _ in range(number)]
    for child in children:
        child.start()
    received = [answers.get(timeout=LONGEST) for _ in children]
    for child in children:
        child.join(LONGEST)
        child.close()
    answers.close()
    answers.join_thread()
    for answer in received:
        if isinstance(answer, Exception):
            raise answer
    return received


def _report(answers: Any, barrier: Any, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    barrier.wait(LONGEST)
    try:
        answer = work(*args)
    except Exception as error:  # noqa: BLE001  (raised again in the test)
        answer = AssertionError(f"{type(error).__name__}: {error}")
    answers.put(answer)


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")
