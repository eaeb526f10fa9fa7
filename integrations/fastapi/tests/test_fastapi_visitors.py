"""Visitors who leave before they are answered: what is cancelled, and what is left alone."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import suppress
from typing import Any

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request
from fastapi_calls import UPSERT, Scoped, app_with, upsert, upsert_sync
from fastapi_visits import Insiders, Visit
from insider_otel_fastapi import Insider, SyncInsider, override
from insider_otel_fastapi.httpx2 import Insider as Insider2
from starlette.requests import ClientDisconnect

from insider_otel import RequestScope, background
from insider_otel.testing import CapturedSpans

pytestmark = pytest.mark.anyio

CANCELLED = ["call user.upsert cancelled", "  POST /api/user/v1/upsert unanswered"]
SUCCEEDED = ["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]


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


class Unhurried(Visit):
    """As on servers whose ``send`` takes a while: others go on before it returns."""

    async def send(self, message: Any) -> None:
        """The app answers."""
        await super().send(message)
        await anyio.wait_all_tasks_blocked()


@pytest.mark.parametrize(("ending", "status"), [("a mistake", 500), ("a failed call", 502)])
async def test_a_task_that_outlives_a_request_which_failed_is_not_for_a_visitor(ending: str, status: int) -> None:
    """Its call goes on, and it may call again: nobody has left."""
    app = app_with(error_responses=True)
    tasks: list[asyncio.Task[list[int]]] = []

    async def work(insider: Any) -> list[int]:
        return [(await upsert(insider)).status_code for _ in range(2)]

    @app.post("/")
    async def signup(insider: Insider) -> None:
        tasks.append(asyncio.create_task(work(insider)))
        await insiders.asked.acquire()
        if ending == "a mistake":
            raise LookupError("a mistake")
        (await insider.post(UPSERT.url, headers={**UPSERT.headers, "X-Refused": "1"})).raise_for_status()

    async def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(400) if "X-Refused" in request.headers else await insiders.handle(request)

    insiders, visit = Insiders(), Unhurried()
    with override(app, httpx.MockTransport(answer)), anyio.fail_after(60):
        with suppress(LookupError):
            await visit.to(app)
        insiders.answers.set()
        assert await tasks[0] == [200, 200]
    assert visit.status == status


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
