"""Apps on Starlette, apps wrapped from outside, and the tests of apps."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any
from unittest.mock import AsyncMock

import httpx
import pytest
from fastapi import Request
from fastapi.testclient import TestClient
from fastapi_calls import app_with, upsert
from insider_otel_fastapi import (
    Insider,
    InsiderMiddleware,
    insider_client,
    insider_health,
    insider_scope,
    override,
)
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.sdk.trace import TracerProvider
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route

from insider_otel.testing import CapturedSpans, FakeInsider

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


# ------------------------------------------------------------------------------------------------ a second middleware


def added_twice() -> Any:
    app = app_with()
    app.add_middleware(InsiderMiddleware)
    return app


def added_and_put_round() -> Any:
    return InsiderMiddleware(app_with())


TWICE = pytest.mark.parametrize("make", [added_twice, added_and_put_round])


@TWICE
def test_an_app_with_two_of_them_does_not_start(make: Callable[[], Any]) -> None:
    with pytest.raises(RuntimeError, match="InsiderMiddleware twice"), TestClient(make()):
        raise AssertionError("it started")


@TWICE
def test_nor_does_it_serve_where_there_is_no_lifespan(make: Callable[[], Any]) -> None:
    """Not every server sends the messages of a lifespan."""
    with pytest.raises(RuntimeError, match="InsiderMiddleware twice"):
        TestClient(make()).get("/")


@TWICE
def test_nor_is_a_fake_put_where_its_endpoints_would_not_use_it(
    make: Callable[[], Any], insider_fake: FakeInsider
) -> None:
    with pytest.raises(RuntimeError, match="InsiderMiddleware twice"), override(make(), insider_fake):
        raise AssertionError("the endpoints call the real Insider")


@pytest.mark.anyio
async def test_an_app_that_has_every_attribute_is_looked_through_in_a_bounded_time() -> None:
    app = AsyncMock()
    await InsiderMiddleware(app)({"type": "websocket"}, AsyncMock(), AsyncMock())
    app.assert_awaited_once()
