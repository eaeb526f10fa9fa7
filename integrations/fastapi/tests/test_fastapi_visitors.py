"""Visitors who leave before they are answered, and those who stay: what is cancelled, and what is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi_calls import UPSERT, Scoped, app_with, upsert, upsert_sync
from insider_otel_fastapi import Insider, SyncInsider, override
from insider_otel_fastapi.httpx2 import Insider as Insider2
from starlette.requests import ClientDisconnect

from insider_otel import RequestScope, background
from insider_otel.testing import CapturedSpans

pytestmark = pytest.mark.anyio

CANCELLED = ["call user.upsert cancelled", "  POST /api/user/v1/upsert unanswered"]
SUCCEEDED = ["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]


class Insiders:
    """An Insider that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.answers = asyncio.Event()

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """A request arrived."""
        self.asked.release()
        await self.answers.wait()
        return httpx.Response(200, json={"data": {"successful": {"count": 1}}})


class Visit:
    """A request, as a server hands it to an app: each of its messages is received once."""

    def __init__(self, *parts: bytes) -> None:
        self.messages = asyncio.Queue[Any]()
        self.sent: list[Any] = []
        for left, part in enumerate(parts or [b""], 1 - len(parts or [b""])):
            self.messages.put_nowait({"type": "http.request", "body": part, "more_body": left < 0})

    def leave(self) -> None:
        """The visitor goes away."""
        self.messages.put_nowait({"type": "http.disconnect"})

    async def send(self, message: Any) -> None:
        """The app answers. As with uvicorn, nothing more is to come after that."""
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.leave()

    async def to(self, app: FastAPI) -> None:
        """Have it handled."""
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [], "app": app}
        await app({**scope, "asgi": {"version": "3.0", "spec_version": "2.3"}}, self.messages.get, self.send)

    @property
    def status(self) -> int | None:
        """The status of the answer."""
        return self.sent[0]["status"] if self.sent else None


async def leave_while_insider_is_asked(app: FastAPI, *, times: int = 1, answered: bool = False) -> Visit:
    """Visit an app, and leave when it has asked Insider so many times, which answers then or never."""
    insider, visit = Insiders(), Visit()
    with override(app, httpx.MockTransport(insider.handle)), anyio.fail_after(60):
        handling = asyncio.create_task(visit.to(app))
        for _ in range(times):
            await insider.asked.acquire()
        visit.leave()
        if answered:
            insider.answers.set()
        await handling
    return visit


@pytest.fixture
def app(insider_spans: CapturedSpans) -> FastAPI:
    return app_with(tracer_provider=insider_spans.tracer_provider, request_deadline=None)


async def test_the_call_that_is_awaited_for_a_visitor_who_leaves_is_cancelled(
    app: FastAPI, insider_spans: CapturedSpans, caplog: pytest.LogCaptureFixture
) -> None:
    scopes: list[RequestScope] = []

    @app.post("/")
    async def signup(insider: Insider, scope: Scoped) -> None:
        scopes.append(scope)
        await upsert(insider)

    visit = await leave_while_insider_is_asked(app)
    assert insider_spans.tree() == CANCELLED
    assert visit.status == 499
    assert scopes[0].is_closed
    assert scopes[0].summary()["insider.request.calls"] == 1
    assert not caplog.records


async def test_a_call_of_httpx2_is_cancelled_too(app: FastAPI, insider_spans: CapturedSpans) -> None:
    import httpx2

    async def answer(request: Any) -> Any:
        response = await insider.handle(request)
        return httpx2.Response(response.status_code)

    @app.post("/")
    async def signup(insider: Insider2) -> None:
        await upsert(insider)

    insider, visit = Insiders(), Visit()
    with override(app, httpx2.MockTransport(answer)), anyio.fail_after(60):
        handling = asyncio.create_task(visit.to(app))
        await insider.asked.acquire()
        visit.leave()
        await handling
    assert insider_spans.tree() == CANCELLED


async def test_the_endpoint_is_not_cancelled_and_cleans_up_as_after_any_exception(app: FastAPI) -> None:
    """A cancelled task could await nothing any more, and FastAPI would not even go on in a plain dependency."""
    done: list[str] = []

    def session() -> Iterator[None]:
        try:
            yield
        except ClientDisconnect:
            done.append("rolled back")
            raise

    @app.post("/", dependencies=[Depends(session)])
    async def signup(insider: Insider) -> str:
        try:
            await upsert(insider)
        finally:
            await anyio.lowlevel.checkpoint()
            done.append("endpoint")
        return "never"

    visit = await leave_while_insider_is_asked(app)
    assert done == ["endpoint", "rolled back"]
    assert visit.status == 499


async def test_calls_side_by_side_are_all_cancelled(app: FastAPI, insider_spans: CapturedSpans) -> None:
    @app.post("/")
    async def signup(insider: Insider) -> None:
        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(upsert, insider)

    visit = await leave_while_insider_is_asked(app, times=3)
    assert sorted(insider_spans.tree()) == sorted(CANCELLED * 3)
    assert visit.status == 499


async def test_no_further_call_is_begun_for_who_has_left(app: FastAPI, insider_spans: CapturedSpans) -> None:
    left: list[bool] = []

    @app.post("/")
    async def signup(request: Request, insider: Insider) -> None:
        for _ in range(2):
            with pytest.raises(ClientDisconnect):
                await upsert(insider)
        left.append(await request.is_disconnected())

    await leave_while_insider_is_asked(app)
    assert insider_spans.tree() == CANCELLED
    assert left == [True]


async def test_a_mistake_of_the_app_is_no_visitor_who_left(app: FastAPI) -> None:
    @app.post("/")
    async def signup(insider: Insider) -> None:
        try:
            await upsert(insider)
        except ClientDisconnect:
            raise LookupError("a mistake") from None

    with pytest.raises(LookupError):
        await leave_while_insider_is_asked(app)


def in_the_background(insider: Any) -> Awaitable[Any]:
    with background():
        # The task keeps the context that it is made in.
        return asyncio.create_task(upsert(insider))


@pytest.mark.parametrize(
    ("options", "call"),
    [({"cancel_on_disconnect": False}, upsert), ({}, in_the_background)],
    ids=["turned off", "in the background"],
)
async def test_what_has_to_arrive_can_be_kept_from_being_cancelled(
    insider_spans: CapturedSpans, options: Any, call: Callable[..., Awaitable[Any]]
) -> None:
    app = app_with(tracer_provider=insider_spans.tracer_provider, **options)

    @app.post("/")
    async def signup(insider: Insider) -> int:
        status: int = (await call(insider)).status_code
        return status

    visit = await leave_while_insider_is_asked(app, answered=True)
    assert insider_spans.tree() == SUCCEEDED
    assert visit.status == 200


async def test_a_background_task_is_not_for_a_visitor(app: FastAPI, insider_spans: CapturedSpans) -> None:
    """Servers say "disconnected" to whoever asks once the response has been sent."""

    @app.post("/")
    async def signup(insider: Insider, tasks: BackgroundTasks) -> None:
        tasks.add_task(upsert, insider)

    visit = await leave_while_insider_is_asked(app, answered=True)
    assert insider_spans.tree() == SUCCEEDED
    assert visit.status == 200


async def test_a_plain_endpoint_goes_on(app: FastAPI, insider_spans: CapturedSpans) -> None:
    """Its thread cannot be cancelled; its call has a deadline."""
    arrived = asyncio.Event()
    loop = asyncio.get_running_loop()
    visit = Visit()

    def answer(request: httpx.Request) -> httpx.Response:
        loop.call_soon_threadsafe(arrived.set)
        asyncio.run_coroutine_threadsafe(has_left.wait(), loop).result(60)
        return httpx.Response(200)

    @app.post("/")
    def signup(insider: SyncInsider) -> int:
        status: int = upsert_sync(insider).status_code
        return status

    has_left = asyncio.Event()
    with override(app, httpx.MockTransport(answer)), anyio.fail_after(60):
        handling = asyncio.create_task(visit.to(app))
        await arrived.wait()
        visit.leave()
        has_left.set()
        await handling
    assert insider_spans.tree()[0] == SUCCEEDED[0]
    assert visit.status == 200


# ------------------------------------------------------------------------------------------------- who stays


@contextmanager
def insider_that_answers(app: FastAPI) -> Iterator[None]:
    insider = Insiders()
    insider.answers.set()
    with override(app, httpx.MockTransport(insider.handle)), anyio.fail_after(60):
        yield


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


async def test_middleware_of_starlettes_base_class_on_either_side(app: FastAPI, insider_spans: CapturedSpans) -> None:
    @app.post("/")
    async def signup(insider: Insider) -> None:
        await upsert(insider)

    async def pass_on(request: Request, call_next: Any) -> Any:
        return await call_next(request)

    app.middleware("http")(pass_on)
    app.user_middleware.append(app.user_middleware[0])
    visit = await leave_while_insider_is_asked(app)
    assert insider_spans.tree() == CANCELLED
    assert visit.status == 499
