"""Visitors who stay: that somebody looks out for their leaving changes nothing for the app."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, HTTPException, Request
from fastapi_calls import UPSERT, app_with, upsert
from fastapi_visits import Visit, insider_that_answers
from insider_otel_fastapi import Insider, async_client, override
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased, Sampler
from starlette.types import ASGIApp, Receive, Scope, Send

pytestmark = pytest.mark.anyio


@pytest.fixture
def app() -> FastAPI:
    return app_with(request_deadline=None)


@pytest.mark.parametrize("calls_before", [0, 1])
async def test_a_body_that_is_read_between_calls_arrives_whole_and_in_order(app: FastAPI, calls_before: int) -> None:
    parts = [str(number).encode() for number in range(5)]
    read: list[bytes] = []

    @app.post("/")
    async def upload(request: Request, insider: Insider) -> None:
        for _ in range(calls_before):
            await upsert(insider)
        async for part in request.stream():
            read.append(part)
            await upsert(insider)

    visit = Visit(*parts)
    with insider_that_answers(app):
        await visit.to(app)
    assert [part for part in read if part] == parts
    assert visit.status == 200


class Refuses:
    """Middleware that reads along, and refuses what it does not like: Starlette's own does what is too long."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request."""

        async def checked() -> Any:
            message = await receive()
            if message.get("body") == b"refused":
                raise HTTPException(413)
            return message

        await self.app(scope, checked, send)


@contextmanager
def insider_that_is_awaited(app: FastAPI) -> Iterator[None]:
    """Whoever looks out has seen all there is before it answers."""

    async def answer(request: httpx.Request) -> httpx.Response:
        await anyio.wait_all_tasks_blocked()
        return httpx.Response(200)

    with override(app, httpx.MockTransport(answer)), anyio.fail_after(60):
        yield


@pytest.mark.parametrize("parts", [[b"one", b"refused"], [b"one", b"refused", b"three"]], ids=["last", "between"])
async def test_a_part_that_middleware_refuses_is_refused_to_the_app(app: FastAPI, parts: list[bytes]) -> None:
    """Also if it was the lookout that came upon it."""
    app.add_middleware(Refuses)
    read: list[bytes] = []

    @app.post("/")
    async def upload(request: Request, insider: Insider) -> None:
        async for part in request.stream():
            read.append(part)
            for _ in range(2):
                await upsert(insider)

    visit = Visit(*parts)
    with insider_that_is_awaited(app):
        await visit.to(app)
    assert read == [b"one"]
    assert visit.status == 413


async def test_an_error_after_the_body_does_not_take_the_body_with_it(
    app: FastAPI, caplog: pytest.LogCaptureFixture
) -> None:
    app.add_middleware(Refuses)
    read: list[bytes] = []

    @app.post("/")
    async def upload(request: Request, insider: Insider) -> None:
        await upsert(insider)
        read.append(await request.body())

    visit = Visit(b"whole")
    visit.messages.put_nowait({"type": "http.request", "body": b"refused"})
    with insider_that_is_awaited(app):
        await visit.to(app)
    assert read == [b"whole"]
    assert visit.status == 200
    gc.collect()
    assert not caplog.records


async def test_a_body_that_is_read_while_insider_is_asked_arrives_whole(app: FastAPI) -> None:
    read: list[bytes] = []

    @app.post("/")
    async def upload(request: Request, insider: Insider) -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(upsert, insider)
            read.append(await request.body())

    visit = Visit(b"one, ", b"two, ", b"three")
    with insider_that_answers(app):
        await visit.to(app)
    assert read == [b"one, two, three"]
    assert visit.status == 200


@pytest.mark.parametrize("parts", [[b"one"], [b"one, ", b"two, ", b"three"]], ids=["one part", "several"])
@pytest.mark.parametrize("first", ["the lookout", "the app"])
async def test_a_body_can_be_passed_on_to_insider_as_it_comes(app: FastAPI, parts: list[bytes], first: str) -> None:
    """The call waits for the body, of which the lookout has the first part, or will have it."""
    passed_on: list[bytes] = []

    async def answer(request: httpx.Request) -> httpx.Response:
        passed_on.append(await request.aread())
        return httpx.Response(200)

    @app.post("/")
    async def pass_on(request: Request, insider: Insider) -> None:
        async def body() -> AsyncIterator[bytes]:
            if first == "the lookout":
                await anyio.wait_all_tasks_blocked()
            async for part in request.stream():
                yield part

        await insider.post(UPSERT.url, headers=UPSERT.headers, content=body())

    visit, whole = Visit(), Visit(*parts)
    visit.messages.get_nowait()
    with override(app, httpx.MockTransport(answer)), anyio.fail_after(60):
        handling = asyncio.create_task(visit.to(app))
        if first == "the app":
            await anyio.wait_all_tasks_blocked()
        while not whole.messages.empty():
            visit.messages.put_nowait(whole.messages.get_nowait())
        await handling
    assert passed_on == [b"".join(parts)]
    assert visit.status == 200


async def test_an_endpoint_can_still_ask_whether_its_visitor_is_there(app: FastAPI) -> None:
    there: list[bool] = []
    visit = Visit()

    @app.post("/")
    async def signup(request: Request, insider: Insider) -> None:
        await request.body()
        await upsert(insider)
        there.append(await request.is_disconnected())
        visit.leave()
        there.append(await request.is_disconnected())

    with insider_that_answers(app):
        await visit.to(app)
    assert there == [False, True]


async def test_nothing_looks_out_once_the_request_is_over(app: FastAPI) -> None:
    @app.post("/")
    async def signup(insider: Insider) -> None:
        await upsert(insider)

    before = asyncio.all_tasks()
    with insider_that_answers(app):
        await Visit().to(app)
    await anyio.wait_all_tasks_blocked()
    assert asyncio.all_tasks() == before


async def test_a_loop_that_an_endpoint_runs_in_its_thread_leaves_the_visitor_to_the_servers_loop(app: FastAPI) -> None:
    loops: set[asyncio.AbstractEventLoop] = set()
    visit = Visit()

    async def receive() -> Any:
        loops.add(asyncio.get_running_loop())
        return await visit.messages.get()

    async def answer(request: httpx.Request) -> httpx.Response:
        await anyio.wait_all_tasks_blocked()
        return httpx.Response(200)

    async def work() -> int:
        status: int = (await upsert(await async_client(app))).status_code
        return status

    @app.post("/")
    def signup() -> int:
        return asyncio.run(work())

    with override(app, httpx.MockTransport(answer)), anyio.fail_after(60):
        await visit.to(app, receive)
    assert visit.sent[1]["body"] == b"200"
    assert loops <= {asyncio.get_running_loop()}


@pytest.mark.skipif(sys.version_info < (3, 12), reason="tasks are begun later")
async def test_tasks_that_are_begun_at_once_change_nothing(app: FastAPI) -> None:
    """The lookout may be over by the time that it is there."""
    asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
    read: list[bytes] = []

    @app.post("/")
    async def pass_on(request: Request, insider: Insider) -> None:
        await insider.post(UPSERT.url, headers=UPSERT.headers, content=request.stream())

    async def answer(request: httpx.Request) -> httpx.Response:
        read.append(await request.aread())
        return httpx.Response(200)

    visit = Visit(b"one, ", b"two, ", b"three")
    with override(app, httpx.MockTransport(answer)), anyio.fail_after(60):
        await visit.to(app)
    assert read == [b"one, two, three"]
    assert visit.status == 200


@pytest.mark.parametrize(
    ("sampler", "exclude_spans", "received"),
    [(ParentBased(ALWAYS_ON), None, 1), (ALWAYS_ON, ["receive"], 0)],
    ids=["a parent-based sampler", "another one, and no spans for what is received"],
)
async def test_who_traces_the_servers_messages_sees_none_that_the_app_did_not_ask_for(
    sampler: Sampler, exclude_spans: Any, received: int
) -> None:
    """The lookout's would be as long as the calls are, one for each."""
    exporter = InMemorySpanExporter()
    tracer_provider = TracerProvider(sampler=sampler)
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    app = app_with(tracer_provider=tracer_provider)
    app.add_middleware(OpenTelemetryMiddleware, tracer_provider=tracer_provider, exclude_spans=exclude_spans)

    @app.post("/")
    async def signup(request: Request, insider: Insider) -> None:
        await request.body()
        for _ in range(3):
            await upsert(insider)

    visit = Visit(b"whole")
    with insider_that_is_awaited(app):
        await visit.to(app)
    assert visit.status == 200
    names = [span.name for span in exporter.get_finished_spans()]
    assert sum(name.endswith("receive") for name in names) == received
    assert sum(name.endswith("user.upsert") for name in names) == 3


async def test_an_app_on_trio_is_served() -> None:
    """It has no client of ours there, and nobody to look out for."""
    app = app_with()

    @app.post("/")
    async def echo(request: Request) -> str:
        return (await request.body()).decode()

    def serve() -> list[Any]:
        import trio

        sent: list[Any] = []
        messages: Iterator[Any] = iter(
            [{"type": "http.request", "body": part, "more_body": part == b"a"} for part in (b"a", b"b")]
        )

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message)

        async def run() -> None:
            scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": []}
            await app(scope, receive, send)

        trio.run(run)
        return sent

    sent = await asyncio.to_thread(serve)
    assert (sent[0]["status"], sent[1]["body"]) == (200, b'"ab"')
