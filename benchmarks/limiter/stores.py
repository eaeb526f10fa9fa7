"""Reservations per second: the library's stores and those of its peers, each asked for one slot after the other."""

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import limits
import limits.storage
import limits.strategies
import pyrate_limiter
import redis

from benchmarks.common.timing import Samples, interleaved, repeated
from insider_otel.api.operations import Limit
from insider_otel.policy.state_url import StateURL
from insider_otel.state.availability import Caller
from insider_otel.state.opening import open_store
from insider_otel.state.protocol import Admit, ClaimAsk, PoolKey
from insider_otel.state.shared import SharedState
from tests.state.redis_server import find_program, redis_server

LIMIT = Limit(25_000, 60)
"""The limit of user.upsert."""

BUSY = 20_000
"""What a busy window holds already."""

_ROUNDS = 30
_COUNT = 50
_SHARED_COUNT = 20

Reserve = Callable[[], object]
"""Takes one slot."""


def measure() -> Samples:
    """Seconds per reservation."""
    with ExitStack() as stack:
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="insider-otel-")))
        in_memory = {"memory": _ours(stack, None), "memory, with a claim": _ours(stack, None, claims=True)}
        in_memory |= {"memory: limits": _limits("memory://"), "memory: pyrate-limiter": _pyrate(_pyrate_memory())}
        busy = {"memory, busy": _ours(stack, None), "memory, busy: limits": _limits("memory://")}
        busy["memory, busy: pyrate-limiter"] = _pyrate(_pyrate_memory())
        for reserve in busy.values():
            for _ in range(BUSY):
                reserve()
        in_memory |= busy
        sqlite = StateURL.parse(f"sqlite:///{directory / 'state.db'}")
        shared = {"sqlite": _ours(stack, sqlite), "sqlite, with a claim": _ours(stack, sqlite, claims=True)}
        shared["sqlite: pyrate-limiter"] = _pyrate(stack.enter_context(_pyrate_sqlite(directory / "pyrate.db")))
        if find_program() is not None:
            server = stack.enter_context(redis_server(tcp=True))
            address = StateURL.parse(server.url)
            shared |= {"redis": _ours(stack, address), "redis, with a claim": _ours(stack, address, claims=True)}
            shared["redis: limits"] = _limits(server.url)
            client = stack.enter_context(redis.Redis.from_url(server.url))
            shared["redis: pyrate-limiter"] = _pyrate(pyrate_limiter.RedisBucket.init(_rates(), client, "bucket"))
        blocks = {name: repeated(reserve, _COUNT, perf_counter) for name, reserve in in_memory.items()}
        blocks |= {name: repeated(reserve, _SHARED_COUNT, perf_counter) for name, reserve in shared.items()}
        return interleaved(blocks, _ROUNDS)


def _ours(stack: ExitStack, address: StateURL | None, *, claims: bool = False) -> Reserve:
    """What a call does: with a store that is shared, this process's own memory is told as well."""
    store = None if address is None else open_store(address)
    if store is not None:
        stack.callback(store.close)
    state = SharedState(store)
    pool = PoolKey("claims" if claims else "slots", b"0123456789abcdef")
    numbers = itertools.count()

    def reserve() -> None:
        claim = ClaimAsk(next(numbers).to_bytes(16, "big"), lease=60) if claims else None
        effects = state.admit(Admit(pool, LIMIT, claim=claim), Caller())
        with suppress(StopIteration):
            effect = next(effects)
            while True:
                effect = effects.send(effect.store.perform(effect.request))

    return reserve


def _limits(address: str) -> Reserve:
    limiter = limits.strategies.MovingWindowRateLimiter(limits.storage.storage_from_string(address))
    item = limits.RateLimitItemPerSecond(LIMIT.count, int(LIMIT.window))
    return lambda: limiter.hit(item, "account")


def _rates() -> list[pyrate_limiter.Rate]:
    return [pyrate_limiter.Rate(LIMIT.count, int(LIMIT.window * 1000))]


def _pyrate_memory() -> Any:
    return pyrate_limiter.InMemoryBucket(_rates())


@contextmanager
def _pyrate_sqlite(path: Path) -> Generator[Any]:
    bucket = pyrate_limiter.SQLiteBucket.init_from_file(_rates(), db_path=str(path))
    try:
        yield bucket
    finally:
        with suppress(sqlite3.Error):
            bucket.conn.close()


def _pyrate(bucket: Any) -> Reserve:
    limiter = pyrate_limiter.Limiter(bucket)
    return lambda: limiter.try_acquire("account", blocking=False)
