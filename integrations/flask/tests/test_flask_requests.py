"""The scope of a request: its deadline, how long it is open, and that nothing of it is left behind."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from flask import Flask, Response, send_file, stream_with_context
from flask.views import MethodView
from flask_calls import call, remaining
from insider_otel_flask import InsiderOTel, deadline, override
from opentelemetry import baggage, context
from werkzeug.middleware.dispatcher import DispatcherMiddleware
from werkzeug.test import EnvironBuilder
from werkzeug.wsgi import FileWrapper

from insider_otel import RequestScope, call_of
from insider_otel.http.scope import current_scope
from insider_otel.testing import CapturedSpans, FakeInsider, set_testing

AppFactory = Callable[..., Flask]


def seconds_left(answer: Any) -> float | None:
    text = answer.get_data(as_text=True)
    return None if text == "None" else float(text)


def run(app: Flask, path: str = "/", file_wrapper: type | None = None) -> Any:
    """The body of a response, as a server sees it: not begun, and the server's to close."""
    environ = EnvironBuilder(path).get_environ()
    if file_wrapper is not None:
        environ["wsgi.file_wrapper"] = file_wrapper
    return app(environ, lambda *_: lambda _: None)


# ------------------------------------------------------------------------------------------------------ deadlines


def test_a_request_has_five_seconds(make_app: AppFactory) -> None:
    app = make_app()
    app.add_url_rule("/", view_func=lambda: str(remaining()), endpoint="index")
    left = seconds_left(app.test_client().get("/"))
    assert left is not None
    assert 0.0 < left <= 5.0


def test_a_request_has_what_the_app_gives_it(make_app: AppFactory) -> None:
    app = make_app(request_deadline=None)
    app.add_url_rule("/", view_func=lambda: str(remaining()), endpoint="index")
    assert seconds_left(app.test_client().get("/")) is None


@pytest.mark.parametrize(("given", "least", "most"), [(2.0, 0.0, 2.0), (600.0, 500.0, 600.0), (None, None, None)])
def test_a_view_may_have_more_or_less(
    make_app: AppFactory, given: float | None, least: float | None, most: float | None
) -> None:
    app = make_app()

    @app.get("/plain")
    @deadline(given)
    def plain() -> str:
        return str(remaining())

    @app.get("/async")
    @deadline(given)
    async def coroutine() -> str:
        return str(remaining())

    class Methods(MethodView):
        decorators = [deadline(given)]  # noqa: RUF012  (as Flask types it)

        def get(self) -> str:
            return str(remaining())

    app.add_url_rule("/class", view_func=Methods.as_view("methods"))
    for path in ("/plain", "/async", "/class"):
        left = seconds_left(app.test_client().get(path))
        if least is None or most is None:
            assert left is None
        else:
            assert left is not None
            assert least < left <= most


def test_what_the_request_has_used_counts(make_app: AppFactory) -> None:
    """A view's deadline runs from the beginning of the request, not from that of the view."""
    app = make_app()

    @app.before_request
    def log_in() -> None:
        time.sleep(0.05)

    @app.get("/")
    @deadline(100.0)
    def index() -> str:
        return str(remaining())

    left = seconds_left(app.test_client().get("/"))
    assert left is not None
    assert left <= 99.95


def test_the_deadline_ends_a_call(make_app: AppFactory) -> None:
    fake = FakeInsider()
    fake.script("user.upsert", "timeout")
    with fake.serve() as served:
        app = make_app(hosts=served.hosts, request_deadline=300.0)

        @app.get("/")
        @deadline(0.3)
        def index() -> str:
            began = time.monotonic()
            with pytest.raises(httpx.TimeoutException) as caught, httpx.Client(timeout=300.0) as patient:
                call(base_url=served.url, client=patient)
            assert time.monotonic() - began < 100.0
            return str(call_of(caught.value).verdict.category)

        assert app.test_client().get("/").text == "timeout"


def test_a_view_called_by_hand_keeps_its_deadline(make_app: AppFactory) -> None:
    app = make_app()

    @deadline(1.0)
    def view() -> float | None:
        return remaining()

    with app.test_request_context():
        left = view()
    assert left is not None
    assert left <= 1.0


# ------------------------------------------------------------------------------------------ how long a scope is open


def test_everything_of_a_request_is_in_its_scope(make_app: AppFactory) -> None:
    """Also what runs before the view and after the response was sent."""
    app = make_app()
    seen: dict[str, tuple[RequestScope | None, bool]] = {}

    def see(where: str) -> None:
        scope = current_scope()
        seen[where] = (scope, scope is not None and not scope.is_closed)

    app.before_request(lambda: see("before"))

    @app.after_request
    def after(response: Response) -> Response:
        see("after")
        response.call_on_close(lambda: see("closed"))
        return response

    app.teardown_request(lambda _: see("teardown"))

    @app.get("/")
    def index() -> str:
        see("view")
        return ""

    app.test_client().get("/", buffered=True)
    assert list(seen) == ["before", "view", "after", "teardown", "closed"]
    assert len({id(scope) for scope, _ in seen.values()}) == 1
    assert all(is_open for _, is_open in seen.values())
    scope, _ = seen["view"]
    assert scope is not None
    assert scope.is_closed


@pytest.mark.parametrize("keeps_context", [True, False], ids=["stream_with_context", "generator"])
@pytest.mark.parametrize("ends", ["exhausted", "aborted", "raises"])
def test_a_streamed_body_is_in_the_scope_until_it_is_closed(
    make_app: AppFactory, keeps_context: bool, ends: str
) -> None:
    app = make_app()
    seen: list[RequestScope | None] = []

    def generate() -> Iterator[str]:
        try:
            for number in range(3):
                seen.append(current_scope())
                if number == 1 and ends == "raises":
                    raise ZeroDivisionError
                yield str(number)
        finally:
            seen.append(current_scope())

    @app.get("/")
    def index() -> Response:
        seen.append(current_scope())
        return Response(stream_with_context(generate()) if keeps_context else generate())

    body = run(app)
    scope = seen[0]
    assert scope is not None
    chunks = iter(body)
    assert next(chunks) == b"0"
    closed = [scope.is_closed]
    assert current_scope() is None
    if ends == "exhausted":
        assert list(chunks) == [b"1", b"2"]
    elif ends == "raises":
        with pytest.raises(ZeroDivisionError):
            next(chunks)
    closed.append(scope.is_closed)
    body.close()
    closed.append(scope.is_closed)
    assert closed == [False, False, True]
    assert set(seen) == {scope}


def test_a_file_is_still_the_servers_own_to_send(make_app: AppFactory) -> None:
    """Servers send files by ``sendfile`` where they recognise their own wrapper."""
    app = make_app()
    scopes: list[RequestScope | None] = []

    @app.get("/")
    def index() -> Response:
        scopes.append(current_scope())
        return send_file(io.BytesIO(b"catalog"), mimetype="text/csv")

    body = run(app, file_wrapper=FileWrapper)
    assert isinstance(body, FileWrapper)
    assert scopes[0] is not None
    assert scopes[0].is_closed
    assert b"".join(body) == b"catalog"
    body.close()


def test_an_exception_that_leaves_the_app_closes_the_scope(make_app: AppFactory) -> None:
    app = make_app()
    app.testing = True
    scopes: list[RequestScope | None] = []

    @app.get("/")
    def index() -> str:
        scopes.append(current_scope())
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        app.test_client().get("/")
    assert scopes[0] is not None
    assert scopes[0].is_closed
    assert current_scope() is None


# ------------------------------------------------------------------------------------------------- nothing is left


def test_a_thread_is_left_as_it_was(make_app: AppFactory) -> None:
    """Workers reuse their threads: neither a scope nor a place in a trace may come into the next request."""
    app = make_app()
    seen: list[tuple[RequestScope | None, object]] = []

    @app.get("/careless")
    def careless() -> Response:
        seen.append((current_scope(), baggage.get_baggage("visitor")))
        context.attach(baggage.set_baggage("visitor", "jane"))

        def generate() -> Iterator[str]:
            seen.append((current_scope(), baggage.get_baggage("visitor")))
            yield "never closed"

        return Response(generate())

    def visit() -> tuple[RequestScope | None, object]:
        next(iter(run(app, "/careless")))
        return current_scope(), baggage.get_baggage("visitor")

    with ThreadPoolExecutor(1) as thread:
        left = [thread.submit(visit).result() for _ in range(3)]
    assert left == [(None, None)] * 3
    assert [visitor for _, visitor in seen] == [None, "jane"] * 3
    assert len({scope for scope, _ in seen}) == 3


def test_requests_at_the_same_time_have_nothing_in_common(
    make_app: AppFactory, insider_fake: FakeInsider, insider_spans: CapturedSpans
) -> None:
    app = make_app()

    @app.get("/<int:count>")
    def index(count: int) -> dict[str, int]:
        for _ in range(count):
            call()
        scope = current_scope()
        assert scope is not None
        return scope.summary()

    def visit(count: int) -> tuple[int, int]:
        answer = app.test_client().get(f"/{count}")
        assert answer.json is not None
        return count, answer.json["insider.request.calls"]

    with override(app, insider_fake), set_testing(), ThreadPoolExecutor(8) as threads:
        counted = list(threads.map(visit, [number % 5 for number in range(100)]))
    assert all(expected == found for expected, found in counted)
    assert len(insider_spans.calls()) == sum(expected for expected, _ in counted)


def test_a_test_client_still_keeps_the_context_of_its_last_request(make_app: AppFactory) -> None:
    from flask import g, request

    app = make_app()

    @app.get("/")
    def index() -> str:
        g.visitor = "jane"
        return ""

    with app.test_client() as client:
        client.get("/?page=2")
        assert request.args["page"] == "2"
        assert current_scope() is None


# ------------------------------------------------------------------------------------------------ apps within apps


def test_an_app_within_an_app_counts_in_both_and_cannot_outlast_it(
    insider_fake: FakeInsider, insider_spans: CapturedSpans
) -> None:
    shop, office = Flask("shop"), Flask("office")
    counts: dict[str, int] = {}

    @office.get("/")
    def index() -> str:
        call()
        return str(remaining())

    def note(app: Flask) -> Any:
        scope = current_scope()
        assert scope is not None
        counts[app.name] = scope.summary()["insider.request.calls"]
        return ""

    office.teardown_request(lambda _: note(office))
    inner: Any = DispatcherMiddleware(shop.wsgi_app, {"/office": office})

    def noting(environ: Any, start_response: Any) -> Any:
        body = inner(environ, start_response)
        note(shop)
        return body

    shop.wsgi_app = noting  # type: ignore[method-assign]
    extension = InsiderOTel(tracer_provider=insider_spans.tracer_provider)
    for app, seconds in ((shop, 2.0), (office, 60.0)):
        app.config["INSIDER_OTEL_REQUEST_DEADLINE"] = seconds
        extension.init_app(app)
    with override(office, insider_fake):
        left = seconds_left(shop.test_client().get("/office/"))
    assert left is not None
    assert left <= 2.0
    assert counts == {"office": 1, "shop": 1}
