"""The app that the tests serve with real servers. Its variables say what else is installed, and when.

* ``STOCK``: where Flask's own instrumentation comes: ``class`` (before there is an app), ``before`` or ``after`` the
  extension, or ``none``.
* ``HTTPX``: ``on`` if httpx' own instrumentation is on too.
* ``FAKE``: the fake Insider's base URL.
* ``EARLY``: ``on`` if the client is used before the server forks its workers.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextvars import copy_context
from typing import Any

import flask
from flask import Response, stream_with_context
from flask_calls import call, remaining
from insider_otel_flask import InsiderOTel, deadline, health, insider
from insider_testkit.tracing import export_spans
from opentelemetry.instrumentation.flask import FlaskInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from werkzeug.middleware.dispatcher import DispatcherMiddleware

STOCK, FAKE = os.environ["STOCK"], os.environ["FAKE"]
EXTENSION = InsiderOTel()


def create_app(name: str) -> flask.Flask:
    """An app with the views of the tests."""
    # As its own documentation has it: the class is another one once the instrumentation is on.
    app = flask.Flask(name)
    app.config.from_mapping(INSIDER_OTEL_ERROR_RESPONSES=True, INSIDER_OTEL_QUICK_DELAY=0.01)
    if STOCK == "before":
        FlaskInstrumentor().instrument_app(app)  # type: ignore[no-untyped-call]
    EXTENSION.init_app(app)
    if STOCK == "after":
        FlaskInstrumentor().instrument_app(app)  # type: ignore[no-untyped-call]

    @app.get("/calls/<int:count>")
    def calls(count: int) -> dict[str, Any]:
        statuses = [call(base_url=FAKE).status_code for _ in range(count)]
        return {"statuses": statuses, "pid": os.getpid(), "fresh": client() is not EARLY_CLIENT}

    @app.get("/stream")
    def stream() -> Response:
        def generate() -> Iterator[str]:
            for _ in range(3):
                yield f"{call(base_url=FAKE).status_code}\n"

        return Response(stream_with_context(generate()))

    @app.get("/fails")
    def fails() -> str:
        return str(call(base_url=FAKE).raise_for_status().text)

    @app.get("/breaks")
    def breaks() -> str:
        call(base_url=FAKE)
        raise ZeroDivisionError

    @app.get("/hurries")
    @deadline(10.0)
    def hurries() -> dict[str, Any]:
        return {"status": call(base_url=FAKE).status_code, "left": remaining()}

    @app.get("/greenlets")
    def greenlets() -> dict[str, Any]:
        import gevent  # type: ignore[import-untyped]

        def work() -> tuple[int, bool]:
            return call(base_url=FAKE).status_code, remaining() is not None

        spawned = [gevent.spawn(copy_context().run, work) for _ in range(3)]
        gevent.joinall(spawned)
        return {"answers": [each.value for each in spawned]}

    app.before_request(lambda: call(base_url=FAKE) and None if flask.request.path == "/nowhere" else None)
    app.add_url_rule("/health/insider", view_func=health)
    return app


def client() -> Any:
    """The client behind the proxy."""
    return insider._get_current_object()  # type: ignore[attr-defined]


provider = export_spans()
if STOCK == "class":
    FlaskInstrumentor().instrument()
if os.environ.get("HTTPX") == "on":
    HTTPXClientInstrumentor().instrument()
EARLY_CLIENT: Any = None
app = create_app("shop")
office = create_app("office")
both = DispatcherMiddleware(app, {"/office": office})
if os.environ.get("EARLY") == "on":
    with app.app_context():
        call(base_url=FAKE)
        EARLY_CLIENT = client()
    # What is forked must not export spans at that moment: a worker would inherit a lock of the exporter, held for ever.
    provider.force_flush()
