"""Work that a request hands to threads: what holds in them, and what does not."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextvars import copy_context

import pytest
from flask import Flask, copy_current_request_context
from flask_calls import call, remaining
from insider_otel_flask import insider, override
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.trace import SpanKind

from insider_otel import background
from insider_otel.http.scope import current_scope
from insider_otel.testing import CapturedSpans, FakeInsider

AppFactory = Callable[..., Flask]
CALL = ["  call user.upsert succeeded", "    POST /api/user/v1/upsert 200"]


@pytest.fixture
def app(make_app: AppFactory, insider_spans: CapturedSpans, insider_fake: FakeInsider) -> Iterator[Flask]:
    """A shop with the stock instrumentation."""
    app = make_app()
    FlaskInstrumentor().instrument_app(app, tracer_provider=insider_spans.tracer_provider)  # type: ignore[no-untyped-call]
    with override(app, insider_fake):
        yield app


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as threads:
        yield threads


def calls_on_the_server_span(spans: CapturedSpans) -> object:
    (server,) = [span for span in spans.all() if span.kind is SpanKind.SERVER]
    return (server.attributes or {}).get("insider.request.calls")


def test_calls_side_by_side_in_copied_contexts_belong_to_the_request(
    app: Flask, insider_spans: CapturedSpans, threads: ThreadPoolExecutor
) -> None:
    @app.get("/")
    def index() -> str:
        futures = [threads.submit(copy_context().run, call) for _ in range(3)]
        deadlines = threads.submit(copy_context().run, remaining).result()
        assert deadlines is not None
        assert [future.result().status_code for future in futures] == [200] * 3
        return ""

    assert app.test_client().get("/").status_code == 200
    assert insider_spans.tree() == ["server GET /", *CALL * 3]
    assert calls_on_the_server_span(insider_spans) == 3


def test_what_outlives_its_request_has_no_deadline_and_stays_in_the_trace(
    app: Flask, insider_spans: CapturedSpans, threads: ThreadPoolExecutor
) -> None:
    response_sent = threading.Event()
    work: list[Future[float | None]] = []

    def afterwards() -> float | None:
        assert response_sent.wait(60)
        assert call().status_code == 200
        return remaining()

    @app.get("/")
    def index() -> str:
        work.append(threads.submit(copy_context().run, afterwards))
        return ""

    app.test_client().get("/", buffered=True)
    response_sent.set()
    assert work[0].result() is None
    assert insider_spans.tree() == ["server GET /", *CALL]
    assert calls_on_the_server_span(insider_spans) is None


def test_work_in_the_background_need_not_hurry_even_while_the_request_lasts(
    app: Flask, insider_spans: CapturedSpans
) -> None:
    @app.get("/")
    def index() -> str:
        with background():
            call()
            return str(remaining())

    assert app.test_client().get("/").text == "None"
    assert insider_spans.tree() == ["server GET /", *CALL]
    assert calls_on_the_server_span(insider_spans) is None


def test_flasks_own_copy_of_the_context_has_the_client_but_neither_deadline_nor_trace(
    app: Flask, insider_spans: CapturedSpans, threads: ThreadPoolExecutor
) -> None:
    @app.get("/")
    def index() -> str:
        @copy_current_request_context
        def work() -> bool:
            call()
            return current_scope() is None

        assert threads.submit(work).result()
        return ""

    assert app.test_client().get("/").status_code == 200
    assert insider_spans.tree() == ["server GET /", "call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]
    assert calls_on_the_server_span(insider_spans) is None


def test_a_bare_thread_has_not_even_the_client(app: Flask, threads: ThreadPoolExecutor) -> None:
    @app.get("/")
    def index() -> str:
        with pytest.raises(RuntimeError, match="no Flask app here"):
            threads.submit(call).result()
        client = insider._get_current_object()  # type: ignore[attr-defined]
        return str(threads.submit(call, client=client).result().status_code)

    assert app.test_client().get("/").text == "200"
