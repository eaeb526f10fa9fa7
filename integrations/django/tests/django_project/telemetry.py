"""The OpenTelemetry set-up of a server's test: which instrumentation stands where."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any

import django
from insider_testkit.tracing import export_spans
from opentelemetry import trace
from opentelemetry.instrumentation.asgi import OpenTelemetryMiddleware
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.wsgi import OpenTelemetryMiddleware as WSGIMiddleware

# It would make a span of each message, too.
ASGIMiddleware = partial(OpenTelemetryMiddleware, exclude_spans=["receive", "send"])


def serve(get_application: Callable[[], Any], server_middleware: Callable[[Any], Any]) -> Any:
    """The application, with the instrumentation that ``DJANGO_OTEL`` and ``HTTPX_OTEL`` name.

    ``DJANGO_OTEL`` is ``before`` or ``after`` Django is set up, ``inside`` of InsiderMiddleware, round the ``server``'s
    application, ``both`` of the last and the first, or empty.
    """
    os.environ.setdefault("DJANGO_SETTINGS_MODULE", "django_project.settings")
    export_spans()
    if os.environ.get("HTTPX_OTEL"):
        HTTPXClientInstrumentor().instrument()
    place = os.environ.get("DJANGO_OTEL", "")
    if place in {"before", "both"}:
        DjangoInstrumentor().instrument()
    django.setup()
    if place == "after":
        DjangoInstrumentor().instrument()
    if place == "inside":
        DjangoInstrumentor().instrument(middleware_position=1)
    application = get_application()
    return server_middleware(application) if place in {"server", "both"} else application


def flush() -> None:
    """Export what there is."""
    provider: Any = trace.get_tracer_provider()
    provider.force_flush()


__all__ = ["ASGIMiddleware", "WSGIMiddleware", "flush", "serve"]
