"""A real Redis server for the tests of this folder, empty for each; and a store on it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import redis

from insider_otel.state.redis_store import RedisStore
from tests.state.redis_server import RedisServer, redis_server, skip_without_program


@pytest.fixture(scope="session")
def running_server() -> Iterator[RedisServer]:
    skip_without_program()
    with redis_server() as server:
        yield server


@pytest.fixture
def admin(running_server: RedisServer) -> Iterator[Any]:
    """A client of the driver itself, on an empty server."""
    with redis.Redis.from_url(running_server.url) as client:
        client.flushall()
        client.script_flush()
        yield client


@pytest.fixture
def server(running_server: RedisServer, admin: Any) -> RedisServer:
    """A server that is empty, and that a test leaves running."""
    return running_server


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    store = RedisStore(server.url, timeout=5)
    yield store
    store.close()
