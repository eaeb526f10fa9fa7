"""Every store behind one face: memory, sqlite, redis and a cluster of it, asked by threads, by asyncio and by trio."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from anyio.from_thread import start_blocking_portal

from insider_otel.state.protocol import Store

from .race import open_store
from .redis_cluster import RedisCluster, redis_cluster
from .redis_server import RedisServer, redis_server, skip_without_program
from .teller import Teller


@pytest.fixture(scope="session")
def redis_for_all() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture(scope="session")
def cluster_for_all() -> Iterator[RedisCluster]:
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
def place(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> str:
    """Where an empty store of a kind is."""
    if kind == "memory":
        return ""
    if kind == "sqlite":
        return str(tmp_path / "state.db")
    skip_without_program()
    if kind == "cluster":
        cluster: RedisCluster = request.getfixturevalue("cluster_for_all")
        cluster.empty()
        return cluster.url
    import redis

    server: RedisServer = request.getfixturevalue("redis_for_all")
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
    return server.url


# The nodes of a cluster are servers, which say the same wherever it runs.
@pytest.fixture(params=["memory", "sqlite", "redis", pytest.param("cluster", marks=pytest.mark.once)])
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
