"""What the tests of this folder ask for and look at."""

from __future__ import annotations

import time
from collections.abc import Callable

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import Admission, Admit, PoolKey
from insider_otel.state.redis_store import RedisStore

POOL = PoolKey("catalog.ingest", b"o" * 16)
LIMIT = Limit(3, 10.0)
CLAIM = b"c" * 16


def use_all(store: RedisStore, pool: PoolKey = POOL, limit: Limit = LIMIT) -> list[Admission]:
    """Take all that a limit allows at once."""
    return [store.perform(Admit(pool, limit, worker=b"w")) for _ in range(limit.count)]


def record(pool: PoolKey = POOL, kind: str = "pool") -> str:
    """The key of a part of a pool's record."""
    return f"{{insider-otel:{pool.owner.hex()}}}:{kind}:{pool.pool}"


def wait_until(holds: Callable[[], bool], within: float = 10) -> None:
    """Wait for something that is to hold soon."""
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
