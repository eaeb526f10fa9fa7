"""Failed calls that nobody handled: answered with 502, 503 or 504 where the app wants that, after its own handlers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from flask import Blueprint, Flask
from flask_calls import call
from insider_otel_flask import InsiderOTel, override
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from werkzeug.exceptions import HTTPException

from insider_otel.testing import CapturedSpans, FakeInsider, reply, set_testing

AppFactory = Callable[..., Flask]


@pytest.fixture
def app(make_app: AppFactory, insider_fake: FakeInsider) -> Iterator[Flask]:
    """A shop with a page that lets a failed call out of its view."""
    app = make_app(error_responses=True)

    @app.get("/")
    def index() -> str:
        call().raise_for_status()
        return "welcome"

    with override(app, insider_fake), set_testing():
        yield app


@pytest.mark.parametrize(
    ("step", "status"),
    [
        ("503", 503),
        ("timeout", 504),
        ("reset", 502),
        ("500", 502),
        ("400", 502),
        ("429", 503),
    ],
)
def test_a_failed_call_is_no_error_of_the_shop(
    app: Flask, insider_fake: FakeInsider, step: str, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    insider_fake.script("user.upsert", step)
    answer = app.test_client().get("/")
    assert answer.status_code == status
    assert answer.mimetype == "text/html"
    assert not caplog.records


def test_the_visitor_learns_when_to_come_back(app: Flask, insider_fake: FakeInsider) -> None:
    insider_fake.script("user.upsert", reply(429, headers={"Retry-After": "7"}))
    assert app.test_client().get("/").headers["Retry-After"] == "7"


def test_who_prefers_json_gets_it(app: Flask, insider_fake: FakeInsider) -> None:
    insider_fake.script("user.upsert", reply(429, headers={"Retry-After": "7"}), "timeout", "timeout")
    client = app.test_client()
    answer = client.get("/", headers={"Accept": "application/json"})
    assert answer.json == {
        "code": 503,
        "name": "Service Unavailable",
        "description": "A service this page needs is busy. Please try again in a moment.",
    }
    assert (answer.headers["Retry-After"], answer.headers["Vary"]) == ("7", "Accept")
    assert client.get("/", headers={"Accept": "text/html, application/json;q=0.9"}).mimetype == "text/html"
    assert client.get("/", headers={"Accept": "*/*"}).mimetype == "text/html"


def test_nothing_that_insider_said_reaches_the_visitor_or_the_server_span(
    insider_fake: FakeInsider, insider_spans: CapturedSpans
) -> None:
    app = Flask("shop")
    app.config["INSIDER_OTEL_ERROR_RESPONSES"] = True
    InsiderOTel(app, tracer_provider=insider_spans.tracer_provider)
    FlaskInstrumentor().instrument_app(app, tracer_provider=insider_spans.tracer_provider)  # type: ignore[no-untyped-call]

    @app.get("/")
    def index() -> str:
        insider_fake.script("user.upsert", reply(400, {"error": "jane@example.com is blocked"}))
        call().raise_for_status()
        return ""

    with override(app, insider_fake), set_testing():
        answer = app.test_client().get("/")
    assert answer.status_code == 502
    assert "jane" not in answer.text
    assert "useinsider" not in answer.text
    insider_spans.assert_no_secrets("jane@example.com", "fake-key")
    (server,) = [span for span in insider_spans.all() if span.name == "GET /"]
    assert not server.events


def test_it_is_off_unless_it_is_asked_for(make_app: AppFactory, insider_fake: FakeInsider) -> None:
    app = make_app()
    app.add_url_rule("/", view_func=lambda: call().raise_for_status().text, endpoint="index")
    insider_fake.script("user.upsert", "400")
    with override(app, insider_fake), set_testing():
        assert app.test_client().get("/").status_code == 500


def test_failures_of_others_are_errors_as_ever(app: Flask, caplog: pytest.LogCaptureFixture) -> None:
    @app.get("/other")
    def other() -> str:
        with httpx.Client(transport=httpx.MockTransport(lambda _: httpx.Response(503))) as client:
            client.get("https://other.example.com").raise_for_status()
        return ""

    assert app.test_client().get("/other").status_code == 500
    assert "Exception on /other" in caplog.text
    app.testing = True
    with pytest.raises(httpx.HTTPStatusError):
        app.test_client().get("/other")
    assert app.test_client().get("/nowhere").status_code == 404


@pytest.mark.parametrize("handled", [Exception, httpx.HTTPError, httpx.HTTPStatusError])
@pytest.mark.parametrize("registered", ["before", "after"])
def test_an_error_handler_of_the_app_comes_first(
    insider_fake: FakeInsider, handled: type[Exception], registered: str
) -> None:
    app = Flask("shop")
    app.config["INSIDER_OTEL_ERROR_RESPONSES"] = True
    if registered == "after":
        InsiderOTel(app)
    app.register_error_handler(handled, lambda _: ("the shop's own", 418))
    if registered == "before":
        InsiderOTel(app)
    app.add_url_rule("/", view_func=lambda: call().raise_for_status().text, endpoint="index")
    insider_fake.script("user.upsert", "503")
    with override(app, insider_fake), set_testing():
        assert app.test_client().get("/").status_code == 418


def test_an_error_handler_of_a_blueprint_comes_first(app: Flask, insider_fake: FakeInsider) -> None:
    orders = Blueprint("orders", __name__)
    orders.register_error_handler(httpx.HTTPError, lambda _: ("the blueprint's own", 418))
    orders.add_url_rule("/orders", view_func=lambda: call().raise_for_status().text, endpoint="index")
    app.register_blueprint(orders)
    insider_fake.script("user.upsert", "503")
    assert app.test_client().get("/orders").status_code == 418


def test_an_error_handler_that_passes_the_failure_on_leaves_it_to_us(app: Flask, insider_fake: FakeInsider) -> None:
    @app.errorhandler(httpx.HTTPError)
    def log(error: Exception) -> Any:
        raise error

    insider_fake.script("user.upsert", "503")
    assert app.test_client().get("/").status_code == 503


@pytest.mark.parametrize("handled", [503, HTTPException])
def test_the_shops_own_page_for_a_status_is_used(app: Flask, insider_fake: FakeInsider, handled: Any) -> None:
    @app.errorhandler(handled)
    def busy(error: HTTPException) -> Any:
        return f"The shop is busy: {error.code}", error.code or 0, {"X-Page": "own"}

    insider_fake.script("user.upsert", "503")
    answer = app.test_client().get("/")
    assert (answer.status_code, answer.text, answer.headers["X-Page"]) == (503, "The shop is busy: 503", "own")


def test_the_shops_page_for_a_500_is_for_errors_of_the_shop(app: Flask, insider_fake: FakeInsider) -> None:
    app.register_error_handler(500, lambda _: ("broken", 500))
    app.add_url_rule("/broken", view_func=lambda: str(1 / 0), endpoint="broken")
    insider_fake.script("user.upsert", "503")
    assert app.test_client().get("/").status_code == 503
    assert app.test_client().get("/broken").text == "broken"


def test_a_failure_in_an_async_view_is_answered_too(app: Flask, insider_fake: FakeInsider) -> None:
    @app.get("/async")
    async def coroutine() -> str:
        return str(call().raise_for_status().text)

    insider_fake.script("user.upsert", "503")
    assert app.test_client().get("/async").status_code == 503


def test_the_debugger_of_http_exceptions_sees_the_failure_itself(app: Flask, insider_fake: FakeInsider) -> None:
    app.config.update(TRAP_HTTP_EXCEPTIONS=True, PROPAGATE_EXCEPTIONS=True)
    insider_fake.script("user.upsert", "503")
    with pytest.raises(httpx.HTTPStatusError):
        app.test_client().get("/")
