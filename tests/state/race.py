"""Many processes that begin something together."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from insider_otel.api.operations import Limit
from insider_otel.state.memory import MemoryStore
from insider_otel.state.protocol import Admission, Admit, ClaimAsk, PoolKey, Store

TIMEOUT = 5.0
"""Seconds a store has in tests of what it says: a busy machine is not what they are about."""

_ENDS_WITHIN = 60.0

# A server process forks the others: each begins in milliseconds, with no thread and no connection of the tests' own.
_context = multiprocessing.get_context("forkserver")
_context.set_forkserver_preload(
    [__name__, "insider_otel.state.sqlite_store", *(["insider_otel.state.redis_store"] if find_spec("redis") else [])]
)


def open_store(kind: str, place: str) -> Store:
    """A store of a kind.

    Args:
        kind: ``memory``, ``sqlite``, ``redis`` or ``cluster``.
        place: Its file or URL; the memory of a process has none.
    """
    match kind:
        case "sqlite":
            from insider_otel.state.sqlite_store import SQLiteStore

            return SQLiteStore(Path(place), timeout=TIMEOUT)
        case "redis" | "cluster":
            from insider_otel.state.redis_store import RedisStore

            return RedisStore(place, timeout=TIMEOUT, cluster=kind == "cluster")
    return MemoryStore()


def claim_state(store: Store, key: bytes) -> str:
    """Ask a store for a content; returns what it says."""
    admission: Admission = store.perform(
        Admit(PoolKey("mail.send", b"o" * 16), Limit(1000, 60.0), claim=ClaimAsk(key, 60.0))
    )
    return str(admission.claim)


def claim_state_at(kind: str, place: str, key: bytes) -> str:
    """``claim_state`` of a store that is opened for it."""
    store = open_store(kind, place)
    try:
        return claim_state(store, key)
    finally:
        store.close()


def in_processes(number: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``work`` returns in each of some processes, which begin it together; it may be anything but an exception."""
    barrier, answers = _context.Barrier(number), _context.Queue()
    processes = [_context.Process(target=_work, args=(answers, barrier, work, args)) for _ in range(number)]
    for process in processes:
        process.start()
    received = [answers.get(timeout=_ENDS_WITHIN) for _ in processes]
    for process in processes:
        process.join(_ENDS_WITHIN)
        process.close()
    for answer in received:
        if isinstance(answer, Exception):
            raise answer
    return received


def _work(answers: Any, barrier: Any, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    barrier.wait(_ENDS_WITHIN)
    try:
        answer = work(*args)
    except Exception as error:  # noqa: BLE001  (raised again in the test)
        answer = AssertionError(f"{type(error).__name__}: {error}")
    answers.put(answer)
