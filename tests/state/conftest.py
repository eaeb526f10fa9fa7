"""Every store behind one face: memory, sqlite and redis, asked by threads, by asyncio and by trio."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from anyio.from_thread import start_blocking_portal

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import MICROSECONDS, Admission, Admit, ListPools, PoolKey, PoolUse, Report, Store

from .race import open_store
from .redis_server import MISSING, RedisServer, find_program, redis_server

PATIENT = 1e8
"""A longest wait, in seconds, that takes any slot."""


@dataclass
class Teller:
    """A store, asked in one way: by a thread, or from an event loop.

    Attributes:
        store: The store.
        place: Its file or URL.
        perform: ``store.perform``, or what awaits ``store.perform_async`` in an event loop.
    """

    store: Store
    place: str
    perform: Callable[[Any], Any]

    def admit(self, pool: PoolKey, limit: Limit | None = None, **ask: Any) -> Admission:
        """Ask for a slot, for a content, or for both."""
        admission = self.perform(Admit(pool, limit, **ask))
        assert isinstance(admission, Admission)
        return admission

    def slot(self, pool: PoolKey, limit: Limit | None, **ask: Any) -> int:
        """Take a slot, however far away."""
        slot = self.admit(pool, limit, longest_wait=PATIENT, **ask).slot
        assert slot is not None
        return slot

    def use(self, ask: Admit) -> Admission:
        """Ask for a slot, wait for it, and confirm it until the store says that its moment has come."""
        admission: Admission = self.perform(ask)
        deadline = time.monotonic() + 30
        while admission.slot is not None and admission.wait > 0:
            assert time.monotonic() < deadline
            time.sleep(admission.wait)
            admission = self.perform(replace(ask, holding=admission.slot))
        return admission

    def report(self, pool: PoolKey, limit: Limit | None = None, **told: Any) -> None:
        """Tell the store something of a pool."""
        assert self.perform(Report(pool, limit, **told)) is None

    def pools(self) -> dict[PoolKey, PoolUse]:
        """What the store knows of every pool."""
        return {use.pool: use for use in self.perform(ListPools())}

    def now(self) -> int:
        """The present moment by the store's own clock."""
        return self.slot(PoolKey("clock", b"t" * 16), Limit(1_000_000, 0.001))

    def let_pass(self, seconds: float) -> None:
        """Return when that much time has passed on the store's own clock."""
        until = self.now() + round(seconds * MICROSECONDS)
        deadline = time.monotonic() + seconds + 30
        while (left := until - self.now()) > 0:
            assert time.monotonic() < deadline
            time.sleep(left / MICROSECONDS)


@pytest.fixture(scope="session")
def redis_for_all() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def place(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Where an empty store of a kind is."""
    if kind == "memory":
        return ""
    if kind == "sqlite":
        return str(tmp_path / "state.db")
    if find_program() is None:
        pytest.skip(MISSING)
    import redis

    server: RedisServer = request.getfixturevalue("redis_for_all")
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


@pytest.fixture(params=["memory", "sqlite", "redis"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


@pytest.fixture
def store(kind: str, place: str) -> Iterator[Store]:
    """An empty store of each kind."""
    store = open_store(kind, place)
    yield store
    store.close()


@pytest.fixture(params=["sync", "asyncio", "trio"])
def teller(request: pytest.FixtureRequest, store: Store, place: str) -> Iterator[Teller]:
    """An empty store of each kind, asked in each way."""
    if request.param == "sync":
        yield Teller(store, place, store.perform)
        return
    with start_blocking_portal(backend=request.param) as portal:
        yield Teller(store, place, lambda asked: portal.call(store.perform_async, asked))
