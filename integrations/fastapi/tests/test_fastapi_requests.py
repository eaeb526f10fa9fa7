"""What a request to an app on FastAPI has: a deadline, answers for failed calls, a scope."""

from __future__ import annotations

import asyncio
import gc
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import httpx
import pytest
from fastapi import BackgroundTasks, Depends, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from fastapi_calls import UPSERT, Scoped, app_with, upsert, upsert_sync
from fastapi_visits import Visit
from insider_otel_fastapi import (
    Insider,
    SyncInsider,
    deadline,
    insider_scope,
    override,
)

from insider_otel import CannotDefer, RequestScope, background
from insider_otel.testing import CapturedSpans, FakeInsider

# ------------------------------------------------------------------------------------------------------ deadline


def test_a_route_has_a_deadline_of_its_own_from_the_beginning_of_the_request() -> None:
    app = app_with(request_deadline=50.0)
    left = {}

    @app.middleware("http")
    async def takes_its_time(request: Request, call_next: Any) -> Any:
        await anyio.sleep(0.1)
        return await call_next(request)

    # Outermost: it begins before what takes its time.
    app.user_middleware.reverse()

    @app.get("/quick", dependencies=[Depends(deadline(20.0))])
    async def quick(scope: Scoped) -> None:
        left["quick"] = scope.remaining

    @app.get("/patient", dependencies=[Depends(deadline(200.0))])
    def patient(scope: Scoped) -> None:
        left["patient"] = scope.remaining

    @app.get("/unbound", dependencies=[Depends(deadline(None))])
    async def unbound(scope: Scoped) -> None:
        left["unbound"] = scope.remaining

    with TestClient(app) as visitor:
        for path in ("/quick", "/patient", "/unbound"):
            assert visitor.get(path).status_code == 200
    assert 0.0 < left["quick"] <= 19.9
    assert 50.0 < left["patient"] <= 199.9
    assert left["unbound"] is None


def test_no_retry_outlasts_the_routes_deadline(insider_fake: FakeInsider) -> None:
    app = app_with()
    insider_fake.script("user.upsert", "service_unavailable", repeat=True)

    @app.post("/signup", dependencies=[Depends(deadline(0))])
    async def signup(insider: Insider) -> None:
        await upsert(insider)

    with override(app, insider_fake), TestClient(app) as visitor, pytest.raises(httpx.ConnectTimeout, match="deadline"):
        visitor.post("/signup")
    assert insider_fake.requests == []


def test_a_wrong_deadline_is_refused_where_it_stands() -> None:
    with pytest.raises(ValueError, match="deadline is -1; it accepts seconds from 0 up"):
        deadline(-1)


# -------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("fault", "status"), [("service_unavailable", 503), ("timeout", 504), ("401", 502), ("reset", 502)]
)
def test_a_failed_call_that_no_endpoint_handles_has_the_answer_of_a_gateway(
    insider_fake: FakeInsider, fault: str, status: int
) -> None:
    app = app_with(error_responses=True, quick_retries=0, spread_retries=0)
    insider_fake.script("user.upsert", fault, repeat=True)

    @app.post("/signup")
    async def signup(insider: Insider) -> None:
        (await upsert(insider)).raise_for_status()

    with override(app, insider_fake), TestClient(app) as visitor:
        response = visitor.post("/signup")
    assert response.status_code == status
    assert list(response.json()) == ["detail"]
    assert "nsider" not in response.text


def test_a_busy_insider_says_when_to_come_back() -> None:
    fake = FakeInsider(limits={"user.upsert": "1/60s"}, retry_after=True)
    app = app_with(error_responses=True, limits={"user.upsert": "off"})

    @app.post("/signup")
    async def signup(insider: Insider) -> None:
        (await upsert(insider)).raise_for_status()

    with override(app, fake), TestClient(app) as visitor:
        visitor.post("/signup")
        response = visitor.post("/signup")
    assert response.status_code == 503
    assert 0 < int(response.headers["Retry-After"]) <= 60


def test_without_the_option_a_failed_call_is_the_apps_own_affair(insider_fake: FakeInsider) -> None:
    app = app_with()
    insider_fake.script("user.upsert", "401")

    @app.post("/signup")
    async def signup(insider: Insider) -> None:
        (await upsert(insider)).raise_for_status()

    with (
        override(app, insider_fake),
        TestClient(app, raise_server_exceptions=False) as visitor,
    ):
        assert visitor.post("/signup").status_code == 500


def test_the_apps_own_exception_handler_comes_first(insider_fake: FakeInsider) -> None:
    app = app_with(error_responses=True)
    insider_fake.script("user.upsert", "401")

    @app.post("/signup")
    async def signup(insider: Insider) -> None:
        (await upsert(insider)).raise_for_status()

    @app.exception_handler(httpx.HTTPStatusError)
    async def own(request: Request, error: httpx.HTTPStatusError) -> JSONResponse:
        return JSONResponse({"own": True}, 418)

    with override(app, insider_fake), TestClient(app) as visitor:
        assert visitor.post("/signup").status_code == 418


def test_mistakes_of_the_app_and_of_other_services_are_not_answered_here() -> None:
    app = app_with(error_responses=True)

    @app.get("/mistake")
    async def mistake() -> None:
        raise LookupError("a mistake")

    @app.get("/other")
    async def other() -> None:
        request = httpx.Request("GET", "https://example.com/")
        httpx.Response(503, request=request).raise_for_status()

    with TestClient(app, raise_server_exceptions=False) as visitor:
        assert visitor.get("/mistake").status_code == 500
        assert visitor.get("/other").status_code == 500


def test_a_response_that_has_started_is_not_started_again(insider_fake: FakeInsider) -> None:
    app = app_with(error_responses=True)
    insider_fake.script("user.upsert", "401")

    @app.get("/stream")
    async def stream(insider: Insider) -> StreamingResponse:
        async def body() -> AsyncIterator[str]:
            yield "one"
            (await upsert(insider)).raise_for_status()

        return StreamingResponse(body())

    # Earlier releases of Starlette leave it in the group of their own tasks.
    broken_off = pytest.raises((httpx.HTTPStatusError, ExceptionGroup), match=r"401|TaskGroup")
    with override(app, insider_fake), TestClient(app) as visitor, broken_off:
        visitor.get("/stream")


# --------------------------------------------------------------------------------------------------------- scope


def test_a_background_task_is_bound_by_no_deadline_and_counts_nowhere(insider_fake: FakeInsider) -> None:
    app = app_with(request_deadline=0.2)
    scopes: list[RequestScope] = []
    statuses: list[int] = []

    async def task(insider: httpx.AsyncClient) -> None:
        await anyio.sleep(0.25)
        statuses.append((await upsert(insider)).status_code)

    @app.post("/later")
    async def later(insider: Insider, scope: Scoped, tasks: BackgroundTasks) -> None:
        scopes.append(scope)
        tasks.add_task(task, insider)

    with override(app, insider_fake), TestClient(app) as visitor:
        visitor.post("/later")
    assert statuses == [200]
    assert scopes[0].summary()["insider.request.calls"] == 0


def test_a_task_of_an_endpoints_own_can_leave_its_request(insider_fake: FakeInsider) -> None:
    app = app_with(request_deadline=0)
    scopes: list[RequestScope] = []

    @app.post("/signup")
    async def signup(insider: Insider, scope: Scoped) -> int:
        scopes.append(scope)
        with background():
            return (await upsert(insider)).status_code

    with override(app, insider_fake), TestClient(app) as visitor:
        assert visitor.post("/signup").json() == 200
    assert scopes[0].summary()["insider.request.calls"] == 0


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "sync"])
def test_the_scope_is_open_while_a_body_is_streamed(insider_fake: FakeInsider, is_async: bool) -> None:
    app = app_with()
    scopes: list[RequestScope] = []
    open_in_body: list[bool] = []

    @app.get("/stream")
    async def stream(insider: Insider, insider_sync: SyncInsider, scope: Scoped) -> StreamingResponse:
        scopes.append(scope)

        async def chunks() -> AsyncIterator[str]:
            for _ in range(2):
                yield str((await upsert(insider)).status_code)
            open_in_body.append(not scope.is_closed)

        def chunks_sync() -> Iterator[str]:
            for _ in range(2):
                yield str(upsert_sync(insider_sync).status_code)
            open_in_body.append(not scope.is_closed)

        return StreamingResponse(chunks() if is_async else chunks_sync())

    with override(app, insider_fake), TestClient(app) as visitor:
        assert visitor.get("/stream").text == "200200"
    assert open_in_body == [True]
    assert scopes[0].is_closed
    assert scopes[0].summary()["insider.request.calls"] == 2


def test_a_websocket_has_clients_but_neither_deadline_nor_summary(insider_fake: FakeInsider) -> None:
    app = app_with(request_deadline=0)

    @app.websocket("/live")
    async def live(socket: WebSocket, insider: Insider) -> None:
        await socket.accept()
        await socket.send_json((await upsert(insider)).status_code)
        with pytest.raises(RuntimeError, match="request_scope"):
            await insider_scope(socket)
        await socket.close()

    with (
        override(app, insider_fake),
        TestClient(app) as visitor,
        visitor.websocket_connect("/live") as socket,
    ):
        assert socket.receive_json() == 200


def test_middleware_further_out_sees_which_route_was_taken() -> None:
    """The ASGI scope is the server's own, and not a copy: what the router notes there is for everybody."""
    app = app_with()
    routes: list[Any] = []

    class Outer:
        def __init__(self, app: Any) -> None:
            self.app = app

        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            await self.app(scope, receive, send)
            routes.append(scope.get("endpoint"))

    @app.get("/")
    async def home() -> None: ...

    app.add_middleware(Outer)
    TestClient(app).get("/")
    assert routes == [home]


@pytest.mark.anyio
async def test_a_cancelled_request_cancels_its_call(insider_spans: CapturedSpans) -> None:
    """What servers and other middleware do when a visitor goes away; its span ends, and nothing is left behind."""
    app = app_with(tracer_provider=insider_spans.tracer_provider)
    arrived = anyio.Event()
    scopes: list[RequestScope] = []

    async def never_answer(request: httpx.Request) -> httpx.Response:
        arrived.set()
        await anyio.sleep_forever()
        raise AssertionError

    @app.post("/signup")
    async def signup(insider: Insider, scope: Scoped) -> None:
        scopes.append(scope)
        await upsert(insider)

    with override(app, httpx.MockTransport(never_answer)):
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://shop") as visitor:
            request = asyncio.create_task(visitor.post("/signup"))
            with anyio.fail_after(60):
                await arrived.wait()
            request.cancel()
            with pytest.raises(asyncio.CancelledError):
                await request
    assert insider_spans.tree() == ["call user.upsert cancelled", "  POST /api/user/v1/upsert unanswered"]
    assert scopes[0].is_closed
    assert scopes[0].summary()["insider.request.calls"] == 1


def test_no_request_leaves_its_scope_to_the_next(insider_fake: FakeInsider) -> None:
    app = app_with()
    scopes: list[RequestScope] = []

    @app.post("/signup")
    def signup(insider: SyncInsider, scope: Scoped) -> None:
        scopes.append(scope)
        upsert_sync(insider)

    with override(app, insider_fake), TestClient(app) as visitor:
        for _ in range(3):
            visitor.post("/signup")
    assert len(set(map(id, scopes))) == 3
    assert [scope.summary()["insider.request.calls"] for scope in scopes] == [1, 1, 1]


async def defer_without_an_outbox(insider: Any) -> AsyncIterator[bytes]:
    extensions = {"insider": {"defer": True}}
    await insider.post(UPSERT.url, headers=UPSERT.headers, content=UPSERT.content, extensions=extensions)
    yield b"kept"


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name == "insider_otel.web"]


def test_what_the_library_refused_is_logged_where_an_answer_hides_it(caplog: pytest.LogCaptureFixture) -> None:
    app = app_with(error_responses=True)

    @app.post("/signup")
    async def signup(insider: Insider) -> None:
        await anext(defer_without_an_outbox(insider))

    with override(app, FakeInsider()), TestClient(app) as visitor:
        response = visitor.post("/signup")
    assert response.status_code == 502
    assert "outbox" not in response.text
    [line] = logged(caplog)
    assert "there is no outbox" in line


def test_what_the_server_logs_as_the_response_has_begun_is_not_logged_twice(caplog: pytest.LogCaptureFixture) -> None:
    app = app_with(error_responses=True)

    @app.post("/signup")
    async def signup(insider: Insider) -> StreamingResponse:
        return StreamingResponse(defer_without_an_outbox(insider))

    with override(app, FakeInsider()), TestClient(app) as visitor, pytest.raises(CannotDefer, match="no outbox"):
        visitor.post("/signup")
    assert logged(caplog) == []


def test_the_scope_of_a_request_that_is_dropped_with_its_event_loop_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever the garbage collector finds it; and nothing is printed there."""
    app = app_with()
    scopes: list[RequestScope] = []
    raised: list[object] = []

    @app.post("/")
    async def signup(scope: Scoped) -> None:
        scopes.append(scope)
        reached.set()
        await asyncio.Event().wait()

    def drop() -> None:
        loop = asyncio.new_event_loop()
        loop.set_exception_handler(lambda loop, context: None)
        task = loop.create_task(Visit().to(app))
        loop.run_until_complete(asyncio.wait_for(reached.wait(), 60))
        loop.close()
        assert not task.done()

    monkeypatch.setattr(sys, "unraisablehook", raised.append)
    reached = asyncio.Event()
    drop()
    gc.collect()
    assert [scope.is_closed for scope in scopes] == [True]
    assert raised == []
