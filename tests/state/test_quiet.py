"""A store's own traffic makes no spans in the app's traces, whatever instruments its driver."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import redis
from opentelemetry.instrumentation.redis import RedisInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor

from insider_otel import AsyncInsiderTransport, InsiderTransport, Outcome, Settings, call_of
from insider_otel.state import opening
from insider_otel.testing import FakeInsider, sample_request

from .redis_server import redis_server, skip_without_program

SENT_TWICE = ["call mail.send succeeded", "  POST /mail/v1/send 202", "call mail.send held_back"]


@pytest.fixture(autouse=True)
def drivers_are_instrumented(insider_spans: Any) -> Iterator[None]:
    instrumentors = RedisInstrumentor(), SQLite3Instrumentor()
    for instrumentor in instrumentors:
        instrumentor.instrument(tracer_provider=insider_spans.tracer_provider)
    yield
    for instrumentor in instrumentors:
        instrumentor.uninstrument()


@pytest.fixture(params=["redis", "sqlite"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path / 'state.db'}?timeout=5"
    else:
        skip_without_program()
        with redis_server() as server:
            yield f"{server.url}?timeout=5"
    for state in opening._states.values():
        assert state.store is not None
        state.store.close()
    opening._states.clear()


@pytest.fixture
def options(address: str, insider_spans: Any) -> dict[str, Any]:
    return {"settings": Settings(state=address), "tracer_provider": insider_spans.tracer_provider}


def mail() -> dict[str, Any]:
    """A call that asks for a slot and for its content, and says how it ended."""
    sample = sample_request("mail.send")
    return {"method": sample.method, "url": sample.url, "headers": sample.headers, "content": sample.content}


def test_a_call_makes_no_spans_but_ours(options: dict[str, Any], insider_spans: Any) -> None:
    with httpx.Client(transport=InsiderTransport(FakeInsider().transport(), **options)) as client:
        outcomes = [call_of(client.request(**mail())).outcome for _ in range(2)]
    assert outcomes == [Outcome.SUCCEEDED, Outcome.HELD_BACK]
    assert insider_spans.tree() == SENT_TWICE


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_event_loops_calls_make_no_spans_but_ours(options: dict[str, Any], insider_spans: Any, backend: str) -> None:
    async def run() -> list[Outcome]:
        transport = AsyncInsiderTransport(FakeInsider().transport(), **options)
        async with httpx.AsyncClient(transport=transport) as client:
            return [call_of(await client.request(**mail())).outcome for _ in range(2)]

    assert anyio.run(run, backend=backend) == [Outcome.SUCCEEDED, Outcome.HELD_BACK]
    assert insider_spans.tree() == SENT_TWICE


def test_the_apps_own_use_of_the_drivers_makes_its_spans(address: str, insider_spans: Any, tmp_path: Path) -> None:
    """Else the tests above would prove nothing."""
    if address.startswith("sqlite"):
        connection = sqlite3.connect(tmp_path / "other.db")
        connection.cursor().execute("SELECT 1")
        connection.close()
    else:
        with redis.Redis.from_url(address.partition("?")[0]) as client:
            client.ping()
    assert [span.name for span in insider_spans.all()] in (["SELECT"], ["PING"])
