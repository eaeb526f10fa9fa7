"""The adapter in process: what an app sets, what its endpoints get, what visitors see, how it is tested."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from typing import Annotated, Any

import anyio
import httpx
import httpx2
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, Request, WebSocket
from fastapi.responses import JSONResponse, StreamingResponse
from fastapi.testclient import TestClient
from insider_otel_fastapi import (
    Insider,
    InsiderMiddleware,
    SyncInsider,
    async_client,
    client,
    deadline,
    insider_client,
    insider_health,
    insider_scope,
    override,
)
from insider_otel_fastapi.httpx2 import Insider as Insider2
from insider_otel_fastapi.httpx2 import SyncInsider as SyncInsider2
from insider_otel_fastapi.options import Options
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from insider_otel import RequestScope, SettingsError, background
from insider_otel.testing import CapturedSpans, FakeInsider, sample_request
from insider_otel.web import WebOptions

UPSERT = sample_request("user.upsert")
Scoped = Annotated[RequestScope, Depends(insider_scope)]


def app_with(**options: Any) -> FastAPI:
    app = FastAPI(telemetry={"tracing": False})
    app.add_middleware(InsiderMiddleware, **options)
    return app


async def upsert(insider: Any) -> Any:
    return await insider.post(UPSERT.url, headers=UPSERT.headers, content=UPSERT.content)


def upsert_sync(insider: Any) -> Any:
    return insider.post(UPSERT.url, headers=UPSERT.headers, content=UPSERT.content)


@pytest.fixture(params=["httpx", "httpx2", "httpx, sync", "httpx2, sync"])
def signup(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """An endpoint for each kind of client."""

    async def with_httpx(insider: Insider) -> list[Any]:
        return [isinstance(insider, httpx.AsyncClient), (await upsert(insider)).status_code]

    async def with_httpx2(insider: Insider2) -> list[Any]:
        return [isinstance(insider, httpx2.AsyncClient), (await upsert(insider)).status_code]

    def with_httpx_sync(insider: SyncInsider) -> list[Any]:
        return [isinstance(insider, httpx.Client), upsert_sync(insider).status_code]

    def with_httpx2_sync(insider: SyncInsider2) -> list[Any]:
        return [isinstance(insider, httpx2.Client), upsert_sync(insider).status_code]

    endpoints: dict[str, Callable[..., Any]] = {
        "httpx": with_httpx,
        "httpx2": with_httpx2,
        "httpx, sync": with_httpx_sync,
        "httpx2, sync": with_httpx2_sync,
    }
    return endpoints[request.param]


# ------------------------------------------------------------------------------------------------------- clients


def test_an_endpoint_says_by_its_annotation_which_client_it_gets(
    signup: Callable[..., Any], insider_fake: FakeInsider
) -> None:
    app = app_with()
    app.post("/signup")(signup)
    with override(app, insider_fake), TestClient(app) as visitor:
        assert visitor.post("/signup").json() == [True, 200]
    assert len(insider_fake.accepted("user.upsert")) == 1


def test_all_requests_share_one_client_and_it_is_closed_after_the_apps_own_lifespan() -> None:
    seen: list[httpx.AsyncClient] = []
    sync: list[httpx.Client] = []
    open_at_the_end: list[bool] = []

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        seen.append(await async_client(app))
        sync.append(client(app))
        yield
        open_at_the_end.append(not seen[0].is_closed and not sync[0].is_closed)

    app = FastAPI(lifespan=lifespan)
    app.add_middleware(InsiderMiddleware)

    @app.get("/")
    async def home(insider: Insider, insider_sync: SyncInsider) -> None:
        seen.append(insider)
        sync.append(insider_sync)

    with TestClient(app) as visitor:
        visitor.get("/")
        visitor.get("/")
    assert len(set(map(id, seen))) == len(set(map(id, sync))) == 1
    assert open_at_the_end == [True]
    assert seen[0].is_closed
    assert sync[0].is_closed


def test_an_app_can_start_again_after_its_end(insider_fake: FakeInsider) -> None:
    app = app_with()

    @app.post("/signup")
    async def signup(insider: Insider) -> int:
        return (await upsert(insider)).status_code

    with override(app, insider_fake):
        for _ in range(2):
            with TestClient(app) as visitor:
                assert visitor.post("/signup").json() == 200


def test_without_a_lifespan_the_client_is_closed_with_its_loop() -> None:
    seen: list[httpx.AsyncClient] = []
    app = app_with()

    @app.get("/")
    async def home(insider: Insider) -> None:
        seen.append(insider)

    assert TestClient(app).get("/").status_code == 200
    assert seen[0].is_closed


def test_an_endpoint_without_the_middleware_is_told_what_to_add() -> None:
    app = FastAPI()

    @app.get("/")
    async def home(insider: Insider) -> None: ...

    with pytest.raises(RuntimeError, match="add_middleware"):
        TestClient(app).get("/")
    with pytest.raises(RuntimeError, match="add_middleware"):
        client(app)


def test_two_apps_in_a_process_share_neither_clients_nor_fakes() -> None:
    fakes = FakeInsider(), FakeInsider()
    apps = app_with(request_deadline=1.0), app_with(request_deadline=2.0)
    for app in apps:

        @app.post("/signup")
        async def signup(insider: Insider, scope: Scoped) -> float:
            left = scope.remaining
            await upsert(insider)
            assert left is not None
            return left

    with override(apps[0], fakes[0]), override(apps[1], fakes[1]):
        first, second = (TestClient(app).post("/signup").json() for app in apps)
    assert [len(fake.accepted("user.upsert")) for fake in fakes] == [1, 1]
    assert first <= 1.0 < second <= 2.0


def test_a_mounted_app_finds_the_clients_of_the_app_above(insider_fake: FakeInsider) -> None:
    app, below = app_with(), FastAPI()

    @below.post("/signup")
    async def signup(insider: Insider) -> int:
        return (await upsert(insider)).status_code

    app.mount("/api", below)
    with override(app, insider_fake), TestClient(app) as visitor:
        assert visitor.post("/api/signup").json() == 200


def test_code_that_knows_no_adapter_is_covered(served: Any, fake: FakeInsider) -> None:
    app = app_with(hosts=served.hosts)
    sample = sample_request("user.upsert", base_url=served.url)
    fake.script("user.upsert", "service_unavailable")

    @app.post("/signup")
    def signup() -> int:
        return httpx.post(sample.url, headers=sample.headers, content=sample.content).status_code

    with TestClient(app) as visitor:
        assert visitor.post("/signup").json() == 200
    assert len(fake.requests) == 2


# ------------------------------------------------------------------------------------------------------- options


def test_a_wrong_option_stops_the_start_and_is_named() -> None:
    app = app_with(request_dedline=3.0)
    with pytest.raises(SettingsError, match="request_dedline is no option of insider-otel"), TestClient(app):
        pass


@pytest.mark.anyio
async def test_a_server_is_told_that_the_start_failed() -> None:
    """It would take a mere exception for an app without a lifespan, and serve it."""
    sent: list[Any] = []

    async def receive() -> dict[str, str]:
        return {"type": "lifespan.startup"}

    async def send(message: Any) -> None:
        sent.append(message)

    with pytest.raises(SettingsError):
        await app_with(request_deadline=-1)({"type": "lifespan"}, receive, send)
    (message,) = sent
    assert message["type"] == "lifespan.startup.failed"
    assert "request_deadline (INSIDER_OTEL_REQUEST_DEADLINE) is -1" in message["message"]


def test_type_checkers_know_every_option() -> None:
    assert frozenset(Options.__annotations__) == WebOptions.names()


def test_variables_win_over_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIDER_OTEL_REQUEST_DEADLINE", "7")
    app = app_with(request_deadline=3.0)

    @app.get("/")
    async def home(scope: Scoped) -> float | None:
        return scope.remaining

    with TestClient(app) as visitor:
        assert 3.0 < visitor.get("/").json() <= 7.0


# ------------------------------------------------------------------------------------------------------ deadline


def test_a_route_has_a_deadline_of_its_own_from_the_beginning_of_the_request() -> None:
    app = app_with(request_deadline=5.0)
    left = {}

    @app.middleware("http")
    async def takes_its_time(request: Request, call_next: Any) -> Any:
        await anyio.sleep(0.1)
        return await call_next(request)

    # Outermost: it begins before what takes its time.
    app.user_middleware.reverse()

    @app.get("/quick", dependencies=[Depends(deadline(2.0))])
    async def quick(scope: Scoped) -> None:
        left["quick"] = scope.remaining

    @app.get("/patient", dependencies=[Depends(deadline(20.0))])
    def patient(scope: Scoped) -> None:
        left["patient"] = scope.remaining

    @app.get("/unbound", dependencies=[Depends(deadline(None))])
    async def unbound(scope: Scoped) -> None:
        left["unbound"] = scope.remaining

    with TestClient(app) as visitor:
        for path in ("/quick", "/patient", "/unbound"):
            assert visitor.get(path).status_code == 200
    assert 1.0 < left["quick"] <= 1.9
    assert 5.0 < left["patient"] <= 19.9
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
            with anyio.fail_after(5):
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


# ----------------------------------------------------------------------------------------------------- Starlette


def test_in_starlette_the_dependencies_are_called_with_the_request(insider_fake: FakeInsider) -> None:
    async def signup(request: Request) -> PlainTextResponse:
        (await insider_scope(request)).set_deadline(2.0)
        insider = await insider_client(request)
        return PlainTextResponse(str((await upsert(insider)).status_code))

    app = Starlette(
        routes=[Route("/signup", signup, methods=["POST"]), Route("/health/insider", insider_health)],
        middleware=[Middleware(InsiderMiddleware)],
    )
    with override(app, insider_fake), TestClient(app) as visitor:
        assert visitor.post("/signup").text == "200"
        assert visitor.get("/health/insider").json()["status"] == "ok"


def contrib_traces(app: Any, provider: TracerProvider) -> Any:
    return OpenTelemetryMiddleware(app, tracer_provider=provider, exclude_spans=["send", "receive"])


def starlette_traces(app: Any, provider: TracerProvider) -> Any:
    module = pytest.importorskip("starlette.middleware.opentelemetry", reason="this Starlette makes no spans itself")
    return module.OpenTelemetryMiddleware(app, tracer_provider=provider)


@pytest.mark.parametrize("traces", [contrib_traces, starlette_traces])
@pytest.mark.parametrize("insider_is_outside", [True, False])
def test_round_any_asgi_app_and_on_either_side_of_the_server_span(
    insider_fake: FakeInsider,
    insider_is_outside: bool,
    traces: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The span that is made further in is seen as it starts, if its provider is the global one."""
    spans = CapturedSpans()
    monkeypatch.setattr("insider_otel.telemetry.server_span.get_tracer_provider", lambda: spans.tracer_provider)

    async def signup(request: Request) -> PlainTextResponse:
        return PlainTextResponse(str((await upsert(await insider_client(request))).status_code))

    starlette = Starlette(routes=[Mount("/shop", routes=[Route("/signup", signup, methods=["POST"])])])

    def traced(app: Any) -> Any:
        return traces(app, spans.tracer_provider)

    def with_insider(app: Any) -> InsiderMiddleware:
        return InsiderMiddleware(app, tracer_provider=spans.tracer_provider)

    app = with_insider(traced(starlette)) if insider_is_outside else traced(with_insider(starlette))
    with override(app, insider_fake), TestClient(app) as visitor:
        assert visitor.post("/shop/signup").text == "200"
    (server,) = (span for span in spans.all() if span.kind.name == "SERVER")
    assert server.attributes
    assert server.attributes["insider.request.calls"] == 1
    assert spans.tree()[1:] == ["  call user.upsert succeeded", "    POST /api/user/v1/upsert 200"]


# ------------------------------------------------------------------------------------------------ tests of users


def test_a_dependency_can_be_overridden_as_any_other() -> None:
    app = app_with()
    asked: list[str] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request.url.path)
        return httpx.Response(202)

    @app.post("/signup")
    async def signup(insider: Insider) -> int:
        return (await upsert(insider)).status_code

    app.dependency_overrides[insider_client] = lambda: httpx.AsyncClient(transport=httpx.MockTransport(answer))
    with TestClient(app) as visitor:
        assert visitor.post("/signup").json() == 202
    assert asked == ["/api/user/v1/upsert"]


def test_an_override_keeps_the_policies_and_ends_with_its_block(insider_fake: FakeInsider) -> None:
    app = app_with()
    insider_fake.script("user.upsert", "service_unavailable")
    clients: list[httpx.AsyncClient] = []

    @app.post("/signup")
    async def signup(insider: Insider) -> int:
        clients.append(insider)
        return (await upsert(insider)).status_code

    @app.get("/")
    async def home(insider: Insider) -> None:
        clients.append(insider)

    with TestClient(app) as visitor:
        visitor.get("/")
        with override(app, insider_fake):
            assert visitor.post("/signup").json() == 200
        visitor.get("/")
    assert len(insider_fake.requests) == 2
    assert clients[0] is clients[2] is not clients[1]
    gc.collect()


def test_the_health_page_is_one_line_and_is_not_kept_by_caches(insider_fake: FakeInsider) -> None:
    app = app_with(quick_retries=0, spread_retries=0)
    app.get("/health/insider")(insider_health)
    insider_fake.script("user.upsert", "service_unavailable", repeat=True)

    @app.post("/signup")
    async def signup(insider: Insider) -> None:
        await upsert(insider)

    with override(app, insider_fake), TestClient(app) as visitor:
        visitor.post("/signup")
        response = visitor.get("/health/insider")
    assert (response.status_code, response.headers["Cache-Control"]) == (200, "no-store")
    assert response.json()["status"] == "degraded"
    assert response.json()["products"]["unification"]["category"] == "unavailable"


def test_providers_of_an_apps_own_get_its_spans(insider_fake: FakeInsider, insider_spans: CapturedSpans) -> None:
    app = app_with(tracer_provider=insider_spans.tracer_provider)

    @app.post("/signup")
    async def signup(insider: Insider) -> None:
        await upsert(insider)

    with override(app, insider_fake), TestClient(app) as visitor:
        visitor.post("/signup")
    assert insider_spans.tree() == ["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]
