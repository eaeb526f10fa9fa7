"""Whole traces in process: the summary on the server span, whoever was installed first, however the request ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest
from flask import Flask, Response, stream_with_context
from flask_calls import call
from insider_otel_flask import InsiderOTel, async_client, insider, override
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind
from werkzeug.middleware.dispatcher import DispatcherMiddleware

from insider_otel.testing import CapturedSpans, FakeInsider, set_testing

CALL = ["  call user.upsert succeeded", "    POST /api/user/v1/upsert 200"]


@pytest.fixture(params=["before", "after"])
def app(request: pytest.FixtureRequest, insider_spans: CapturedSpans, insider_fake: FakeInsider) -> Iterator[Flask]:
    """An app with FlaskInstrumentor, installed before the extension or after it, and a fake Insider to send to."""
    app = Flask("shop")
    provider = insider_spans.tracer_provider

    def instrument() -> None:
        FlaskInstrumentor().instrument_app(app, tracer_provider=provider)  # type: ignore[no-untyped-call]

    if request.param == "before":
        instrument()
    InsiderOTel(app, tracer_provider=provider)
    if request.param == "after":
        instrument()
    with override(app, insider_fake):
        yield app


def server_span(spans: CapturedSpans) -> ReadableSpan:
    (span,) = [span for span in spans.all() if span.kind is SpanKind.SERVER]
    return span


def summary(span: ReadableSpan) -> dict[str, Any]:
    prefix = "insider.request."
    return {
        name.removeprefix(prefix): value for name, value in (span.attributes or {}).items() if name.startswith(prefix)
    }


@pytest.mark.parametrize("with_httpx", [True, False], ids=["httpx instrumented", "httpx not instrumented"])
def test_the_summary_is_on_the_server_span(
    app: Flask, insider_spans: CapturedSpans, insider_fake: FakeInsider, with_httpx: bool
) -> None:
    app.add_url_rule("/signup", view_func=lambda: call().text, endpoint="signup")
    insider_fake.script("user.upsert", "service_unavailable", "ok")
    with ExitStack() as stack:
        if with_httpx:
            HTTPXClientInstrumentor().instrument(tracer_provider=insider_spans.tracer_provider)
            stack.callback(HTTPXClientInstrumentor().uninstrument)
        stack.enter_context(set_testing(attempts=2))
        assert app.test_client().get("/signup").status_code == 200
    assert insider_spans.tree() == [
        "server GET /signup",
        "  call user.upsert succeeded",
        "    POST /api/user/v1/upsert 503",
        "    wait retry",
        "    POST /api/user/v1/upsert 200",
    ]
    found = summary(server_span(insider_spans))
    assert found.pop("wait_ms") >= 0
    assert found == {"calls": 1, "failed_calls": 0, "retries": 1, "duplicates": 0, "rate_limited": 0, "deferred": 0}


def test_a_request_without_calls_has_no_summary(app: Flask, insider_spans: CapturedSpans) -> None:
    app.add_url_rule("/", view_func=lambda: "", endpoint="index")
    app.test_client().get("/")
    assert summary(server_span(insider_spans)) == {}


def test_a_page_that_is_not_found_has_its_summary(app: Flask, insider_spans: CapturedSpans) -> None:
    app.before_request(lambda: call() and None)
    assert app.test_client().get("/nowhere").status_code == 404
    assert summary(server_span(insider_spans))["calls"] == 1


def test_an_exception_has_its_summary(app: Flask, insider_spans: CapturedSpans) -> None:
    @app.get("/")
    def index() -> str:
        call()
        raise ZeroDivisionError

    assert app.test_client().get("/").status_code == 500
    assert summary(server_span(insider_spans))["calls"] == 1


def test_calls_of_an_async_view_belong_to_its_request(app: Flask, insider_spans: CapturedSpans) -> None:
    @app.get("/")
    async def index() -> str:
        import asyncio

        from insider_otel.testing import sample_request

        sample = sample_request("user.upsert")
        client = await async_client()
        send = client.request
        await asyncio.gather(
            *(send(sample.method, sample.url, headers=sample.headers, content=sample.content) for _ in range(3))
        )
        return ""

    for _ in range(2):
        assert app.test_client().get("/").status_code == 200
        assert insider_spans.tree() == ["server GET /", *CALL * 3]
        assert summary(server_span(insider_spans))["calls"] == 3
        insider_spans.clear()


@pytest.mark.parametrize("keeps_context", [True, False], ids=["stream_with_context", "generator"])
def test_a_streamed_body_has_its_calls_in_the_summary(
    app: Flask, insider_spans: CapturedSpans, keeps_context: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """The server span is there until the body is made, and covers it."""

    @app.get("/")
    def index() -> Response:
        call()
        client = insider._get_current_object()  # type: ignore[attr-defined]

        def generate() -> Iterator[bytes]:
            for _ in range(2):
                yield call(client=client).content

        return Response(stream_with_context(generate()) if keeps_context else generate())

    answer = app.test_client().get("/")
    assert answer.data.count(b"successful") == 2
    assert insider_spans.tree() == ["server GET /", *CALL * 3]
    server = server_span(insider_spans)
    assert summary(server)["calls"] == 3
    assert all((span.end_time or 0) <= (server.end_time or 0) for span in insider_spans.all())
    assert not caplog.records


def test_a_body_streamed_by_an_app_mounted_in_another_has_its_calls_in_the_summary(
    app: Flask, insider_spans: CapturedSpans
) -> None:
    """Both use the extension: the scope of the one is in that of the other."""

    @app.get("/orders")
    def orders() -> Response:
        call()

        def generate() -> Iterator[bytes]:
            for _ in range(2):
                yield call().content

        return Response(stream_with_context(generate()))

    site = Flask("site")
    site.wsgi_app = DispatcherMiddleware(site.wsgi_app, {"/shop": app.wsgi_app})  # type: ignore[method-assign]
    InsiderOTel(site, tracer_provider=insider_spans.tracer_provider)
    assert site.test_client().get("/shop/orders", buffered=True).status_code == 200
    assert insider_spans.tree() == ["server GET /orders", *CALL * 3]
    assert summary(server_span(insider_spans))["calls"] == 3


def test_a_streamed_body_without_calls_leaves_the_server_span_as_it_would_be(
    app: Flask, insider_spans: CapturedSpans
) -> None:
    made: list[int] = []

    @app.get("/")
    def index() -> Response:
        def generate() -> Iterator[bytes]:
            made.append(time.time_ns())
            yield b"catalog"

        return Response(generate())

    assert app.test_client().get("/").data == b"catalog"
    assert (server_span(insider_spans).end_time or 0) <= made[0]


def test_a_visitor_who_goes_away_ends_the_server_span(app: Flask, insider_spans: CapturedSpans) -> None:
    @app.get("/")
    def index() -> Response:
        def generate() -> Iterator[bytes]:
            yield call().content
            yield call().content

        return Response(stream_with_context(generate()))

    answer = app.test_client().get("/")
    next(answer.iter_encoded())
    assert not [span for span in insider_spans.all() if span.kind is SpanKind.SERVER]
    answer.close()
    assert summary(server_span(insider_spans))["calls"] == 1


def test_a_span_of_the_body_stays_current_in_it(app: Flask, insider_spans: CapturedSpans) -> None:
    tracer = insider_spans.tracer_provider.get_tracer("shop")

    @app.get("/")
    def index() -> Response:
        def generate() -> Iterator[bytes]:
            with tracer.start_as_current_span("export"):
                yield b"begun"
                yield call().content

        return Response(stream_with_context(generate()))

    assert app.test_client().get("/", buffered=True).status_code == 200
    assert insider_spans.tree() == ["server GET /", "  internal export", *("  " + line for line in CALL)]


def test_what_is_done_when_the_response_is_sent_belongs_to_the_trace(app: Flask, insider_spans: CapturedSpans) -> None:
    @app.get("/")
    def index() -> Response:
        response = Response("sent")

        @response.call_on_close
        def afterwards() -> None:
            with app.app_context():
                call()

        return response

    app.test_client().get("/", buffered=True)
    assert insider_spans.tree() == ["server GET /", *CALL]


def test_without_the_stock_instrumentation_the_calls_are_the_traces(
    insider_spans: CapturedSpans, insider_fake: FakeInsider
) -> None:
    app = Flask("shop")
    InsiderOTel(app, tracer_provider=insider_spans.tracer_provider)
    app.add_url_rule("/", view_func=lambda: call().text, endpoint="index")
    with override(app, insider_fake):
        app.test_client().get("/")
    assert insider_spans.tree() == ["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]


def test_two_apps_have_their_own_summaries(app: Flask, insider_spans: CapturedSpans, insider_fake: FakeInsider) -> None:
    office = Flask("office")
    InsiderOTel(office, tracer_provider=insider_spans.tracer_provider)
    FlaskInstrumentor().instrument_app(office, tracer_provider=insider_spans.tracer_provider)  # type: ignore[no-untyped-call]
    app.add_url_rule("/shop", view_func=lambda: call().text, endpoint="index")

    @office.get("/office")
    def index() -> str:
        call()
        call("mail.send")
        return ""

    with override(office, insider_fake):
        for each, path in ((app, "/shop"), (office, "/office"), (app, "/shop")):
            each.test_client().get(path)
    servers = [span for span in insider_spans.all() if span.kind is SpanKind.SERVER]
    assert [(span.name, summary(span)["calls"]) for span in servers] == [
        ("GET /shop", 1),
        ("GET /office", 2),
        ("GET /shop", 1),
    ]
