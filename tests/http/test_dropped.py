"""A call that is dropped in the middle, with the event loop it was made in, is tidied up after by the next."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import logging
import sys
import threading
import time
import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from contextvars import copy_context
from typing import Any

import httpx
import pytest
from opentelemetry.context import get_current
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from insider_otel import AsyncInsiderTransport, InsiderTransport, RequestScope, Settings, call_of, request_scope
from insider_otel.testing import FakeClock

CATALOG = "https://catalog.api.useinsider.com/v2/ingest"
NEVER = 3600.0


@types.coroutine
def forever() -> Generator[None, None, httpx.Response]:
    """Awaited by whoever is driven without an event loop."""
    while True:
        yield


class CollectingClock(FakeClock):
    """A clock at one reading of which the garbage is collected: some are with a lock held."""

    readings = itertools.count()
    collects_at = -1

    def __call__(self) -> float:
        if next(self.readings) == self.collects_at:
            gc.collect()
        return super().__call__()


class Body(httpx.AsyncByteStream):
    """A body that begins and does not end."""

    def __init__(self, rest: Awaitable[None]) -> None:
        self._rest = rest

    async def __aiter__(self) -> AsyncIterator[bytes]:
        yield b"["
        await self._rest


class App(httpx.AsyncBaseTransport):
    """An app whose event loops are closed with calls in them, and its Insider: it may not answer, or not to the end."""

    def __init__(self, spans: Any, clock: CollectingClock, state: str) -> None:
        self.clock = clock
        self.transport = AsyncInsiderTransport(
            self,
            settings=Settings(limits={"catalog.ingest": "2/10s"}, state=state),
            tracer_provider=spans.tracer_provider,
            clock=clock,
            sleep=self.sleep,
        )
        self.sleeps = False
        self.stuck = 0

    async def sleep(self, seconds: float) -> None:
        if not self.sleeps:
            await self.wait()
        await self.clock.async_sleep(seconds)

    async def wait(self) -> None:
        """What does not end."""
        self.stuck += 1
        await asyncio.sleep(NEVER)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        match request.headers["x-ask"]:
            case "silence":
                await self.wait()
            case "beginning":
                return httpx.Response(200, stream=Body(self.wait()))
            case _:
                pass
        return httpx.Response(200, json={})

    async def post(self, ask: str | None = None, partner: str = "shop") -> Any:
        """Make a call."""
        headers = {"X-PARTNER-NAME": partner, "X-REQUEST-TOKEN": "token", "X-ASK": ask or "answer"}
        return await httpx.AsyncClient(transport=self.transport).post(CATALOG, json=[], headers=headers)

    def drop(self, *asks: str | None) -> None:
        """Begin calls, and close the event loop."""

        async def begin() -> None:
            for ask in asks:
                tasks.append(asyncio.ensure_future(self.post(ask)))
                async with asyncio.timeout(60):
                    while sum(task.done() for task in tasks) + self.stuck < len(tasks):  # noqa: ASYNC110  (each by itself)
                        await asyncio.sleep(0.001)

        tasks: list[Any] = []
        loop = asyncio.new_event_loop()
        # It says of each task that it was destroyed.
        loop.set_exception_handler(lambda loop, context: None)
        loop.run_until_complete(begin())
        loop.close()

    def call(self, partner: str = "shop", collects_at: int = 0) -> Any:
        """Make a call in another loop, in the middle of which the garbage is collected."""

        def call() -> None:
            answers.append(asyncio.run(self.post(partner=partner)))

        answers: list[Any] = []
        self.clock.readings, self.clock.collects_at, self.sleeps = itertools.count(), collects_at, True
        thread = threading.Thread(target=call, daemon=True)
        thread.start()
        thread.join(60)
        assert not thread.is_alive(), "it waits for a lock that it holds itself"
        return answers[0]


@pytest.fixture(params=["memory://", "sqlite:///{}/state.db?timeout=5"], ids=["memory", "sqlite"])
def app(request: pytest.FixtureRequest, tmp_path: Any, insider_spans: Any) -> Iterator[App]:
    gc.collect()
    gc.disable()
    gc.freeze()  # what is of other tests need not be looked through each time
    yield App(insider_spans, CollectingClock(), request.param.format(tmp_path))
    gc.unfreeze()
    gc.enable()


@pytest.mark.parametrize(
    ("asks", "waited", "tree"),
    [
        pytest.param(
            (None, None, None, None),
            10.0,
            ["call catalog.ingest cancelled", "  wait rate_limit"],
            id="waiting: the slots are free again, those that were used count",
        ),
        pytest.param(
            (None, "silence"),
            10.0,
            ["call catalog.ingest cancelled", "  POST /v2/ingest unanswered"],
            id="in the air: its slot counts, for Insider may have it",
        ),
        pytest.param(
            (None, "beginning"),
            10.0,
            ["call catalog.ingest cancelled", "  POST /v2/ingest unanswered"],
            id="its answer being read",
        ),
    ],
)
def test_a_dropped_call_is_cancelled_and_tidied_up_after(
    app: App,
    insider_spans: Any,
    caplog: pytest.LogCaptureFixture,
    asks: tuple[str | None, ...],
    waited: float,
    tree: list[str],
) -> None:
    with caplog.at_level(logging.ERROR):
        app.drop(*asks)
        insider_spans.clear()
        app.call(partner="another")  # in which the dropped ones are found
        response = app.call()
    assert response.status_code == 200
    assert call_of(response).waited == pytest.approx(waited, abs=4)
    assert insider_spans.tree()[: len(tree)] == tree
    assert not [record for record in caplog.records if record.name.startswith(("insider_otel", "opentelemetry"))]
    (first, *_) = [call for call in insider_spans.calls() if call.attributes["insider.outcome"] == "succeeded"]
    dropped = [call for call in insider_spans.calls() if call.attributes["insider.outcome"] == "cancelled"]
    assert dropped
    assert all(call.end_time <= first.end_time for call in dropped)


def test_a_dropped_wait_counts_for_as_long_as_it_was(insider_spans: Any) -> None:
    """Nobody waited for the rest of it, up to the moment at which it was found."""
    reader, clock = InMemoryMetricReader(), FakeClock()
    transport = AsyncInsiderTransport(
        httpx.MockTransport(lambda _: httpx.Response(503, json={}, headers={"retry-after": "120"})),
        tracer_provider=insider_spans.tracer_provider,
        meter_provider=MeterProvider([reader]),
        clock=clock,
        sleep=lambda _: forever(),
    )
    call = transport.handle_async_request(httpx.Request("POST", CATALOG, json=[]))
    call.send(None)
    clock.advance(3.0)
    call.close()
    clock.advance(60.0)
    another = InsiderTransport(httpx.MockTransport(lambda _: httpx.Response(200)))
    another.handle_request(httpx.Request("POST", CATALOG, json=[]))
    exported = reader.get_metrics_data()
    assert exported is not None
    metrics = json.loads(exported.to_json())["resource_metrics"][0]["scope_metrics"][0]["metrics"]
    (metric,) = [metric for metric in metrics if metric["name"] == "insider.client.wait.duration"]
    (waited,) = metric["data"]["data_points"]
    assert (waited["count"], waited["sum"]) == (1, 3.0)
    (dropped,) = [each for each in insider_spans.calls() if each.attributes["insider.outcome"] == "cancelled"]
    assert dropped.attributes["insider.wait.ms"] == 3000


@pytest.mark.parametrize("reading", range(16))
def test_the_garbage_collector_may_find_it_with_any_lock_held(app: App, reading: int) -> None:
    app.drop(None, None, None)
    app.call(partner="another", collects_at=reading)
    assert call_of(app.call()).waited == pytest.approx(10.0, abs=4)


class Long(httpx.SyncByteStream):
    """A body of which a call reads the beginning only."""

    def __iter__(self) -> Iterator[bytes]:
        yield b"[" + b"1," * 400_000 + b"1]"


def post_once(spans: Any, **options: Any) -> Callable[[], Any]:
    """Posts through one transport, and gets an answer that nobody has read or closed."""
    transport = InsiderTransport(
        httpx.MockTransport(lambda _: httpx.Response(200, stream=Long())),
        tracer_provider=spans.tracer_provider,
        **options,
    )
    return lambda: transport.handle_request(httpx.Request("POST", CATALOG, json=[]))


def test_a_response_that_is_dropped_ends_its_call_at_that_time(insider_spans: Any) -> None:
    post = post_once(insider_spans)
    post()
    gc.collect()
    dropped_by = time.time_ns()
    assert insider_spans.calls() == []
    response = post()
    (call,) = insider_spans.calls()
    assert call.attributes["insider.outcome"] == "succeeded"
    assert call.end_time <= dropped_by
    response.close()


def test_whoever_tidies_up_makes_its_own_call_whatever_breaks(
    insider_spans: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    post = post_once(insider_spans, meter_provider=MeterProvider([InMemoryMetricReader()]))
    post()
    gc.collect()

    def refuse(*_: object) -> None:
        monkeypatch.undo()
        raise ValueError("jane@example.com")

    monkeypatch.setattr(Histogram, "record", refuse)
    post().close()
    assert [record.getMessage() for record in caplog.records] == [
        "a dropped call could not be tidied up after: ValueError"
    ]


def test_a_request_scope_that_is_dropped_with_its_event_loop_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the garbage collector finds it; and nothing is printed there."""
    scopes: list[RequestScope] = []
    raised: list[object] = []

    async def handle_request() -> None:
        with request_scope(5) as scope:
            scopes.append(scope)
            await asyncio.sleep(NEVER)

    def drop() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        task = loop.create_task(handle_request())
        loop.run_until_complete(asyncio.sleep(0))
        loop.close()
        assert not task.done()

    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    drop()
    gc.collect()
    assert [scope.is_closed for scope in scopes] == [True]
    assert raised == []


def test_a_request_scope_that_is_left_in_another_context_is_told() -> None:
    scope = request_scope(5)
    copy_context().run(scope.__enter__)
    with pytest.raises(ValueError, match="different Context"):
        scope.__exit__(None, None, None)


def test_a_call_that_is_closed_by_hand_leaves_the_context_as_it_was() -> None:
    """By whoever drives coroutines without an event loop: all that is done in the context later would have no spans."""

    class Silent(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            return await forever()

    transport, before = AsyncInsiderTransport(Silent()), get_current()
    call = transport.handle_async_request(httpx.Request("POST", CATALOG, json=[]))
    call.send(None)
    assert get_current() is not before
    call.close()
    assert get_current() is before
