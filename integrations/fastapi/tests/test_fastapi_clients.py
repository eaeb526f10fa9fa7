"""Clients of an app on FastAPI: which there are, how long they live, and their options."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack, asynccontextmanager
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from fastapi_calls import Scoped, app_with, upsert, upsert_sync
from insider_otel_fastapi import (
    Insider,
    InsiderMiddleware,
    SyncInsider,
    async_client,
    client,
    override,
)
from insider_otel_fastapi.httpx2 import Insider as Insider2
from insider_otel_fastapi.httpx2 import SyncInsider as SyncInsider2
from insider_otel_fastapi.options import Options
from insider_testkit.frames import assert_frames_hold_none_of

from insider_otel import SettingsError
from insider_otel.testing import FakeInsider, sample_request
from insider_otel.web import OptionsError, Providers, WebOptions


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


def test_on_trio_the_lifespan_ends_as_it_should_and_the_sync_client_with_it() -> None:
    app, sent = app_with(), list[str]()
    messages = iter(["lifespan.startup", "lifespan.shutdown"])

    async def receive() -> dict[str, str]:
        return {"type": next(messages)}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    opened = client(app)
    anyio.run(app, {"type": "lifespan"}, receive, send, backend="trio")
    assert sent == ["lifespan.startup.complete", "lifespan.shutdown.complete"]
    assert opened.is_closed


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
    apps = app_with(request_deadline=20.0), app_with(request_deadline=60.0)
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
    assert first <= 20.0 < second <= 60.0


def test_a_mounted_app_finds_the_clients_of_the_app_above(insider_fake: FakeInsider) -> None:
    app, below = app_with(), FastAPI()

    @below.post("/signup")
    async def signup(insider: Insider) -> int:
        return (await upsert(insider)).status_code

    app.mount("/api", below)
    with override(app, insider_fake), TestClient(app) as visitor:
        assert visitor.post("/api/signup").json() == 200


@pytest.mark.parametrize("faked", ["the app above", "both"])
def test_a_mounted_app_with_clients_of_its_own_sends_to_a_fake_where_the_app_above_does(faked: str) -> None:
    app, below = app_with(), app_with()
    above, own = FakeInsider(), FakeInsider()

    @below.post("/signup")
    async def signup(insider: Insider) -> int:
        return (await upsert(insider)).status_code

    app.mount("/api", below)
    with ExitStack() as fakes, TestClient(app) as visitor:
        fakes.enter_context(override(app, above))
        if faked == "both":
            fakes.enter_context(override(below, own))
        assert visitor.post("/api/signup").json() == 200
    assert len((own if faked == "both" else above).accepted("user.upsert")) == 1


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


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("cancel_on_disconnect", "no", "cancel_on_disconnect is 'no'; it accepts True or False"),
        ("cancel_on_disconnect", None, "cancel_on_disconnect is None; it accepts True or False"),
        ("tracer_provider", "global", "tracer_provider is a str; it accepts a TracerProvider"),
        ("meter_provider", object(), "meter_provider is a object; it accepts a MeterProvider"),
        ("logger_provider", 1, "logger_provider is a int; it accepts a LoggerProvider"),
    ],
)
def test_a_wrong_option_that_has_no_variable_is_named_too(option: str, value: Any, says: str) -> None:
    with pytest.raises(OptionsError, match=f"^{says}"), TestClient(app_with(**{option: value})):
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
    assert Options.__annotations__.keys() - Providers.__annotations__.keys() == WebOptions.names()


@pytest.mark.parametrize("wrong", [{"request_deadline": -1}, {"quick_delay": -1}, {"quick_retry": 1}], ids=str)
def test_an_error_reporter_that_sends_variables_gets_none_of_the_other_values(wrong: dict[str, Any]) -> None:
    key = "a2tr" * 10 + "a2s="
    app = app_with(outbox_key=key, state="redis://:hunter2pass@cache.example.com/0", **wrong)
    with pytest.raises((SettingsError, OptionsError)) as refused, TestClient(app):
        pytest.fail("it has started")
    assert_frames_hold_none_of((key, "hunter2pass"), refused.value)


def test_variables_win_over_options(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIDER_OTEL_REQUEST_DEADLINE", "70")
    app = app_with(request_deadline=3.0)

    @app.get("/")
    async def home(scope: Scoped) -> float | None:
        return scope.remaining

    with TestClient(app) as visitor:
        assert 3.0 < visitor.get("/").json() <= 70.0
