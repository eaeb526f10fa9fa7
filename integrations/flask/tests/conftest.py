"""For every test of the Flask adapter."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from flask import Flask
from insider_otel_flask import InsiderOTel

from insider_otel import InsiderInstrumentor
from insider_otel.testing import CapturedSpans

# OpenTelemetry reads this once in a process, at the first instrumentor.
os.environ.setdefault("OTEL_SEMCONV_STABILITY_OPT_IN", "http")

AppFactory = Callable[..., Flask]


@pytest.fixture(autouse=True)
def clean_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No option of the developer's own environment, and no instrumentor that is left on."""
    for name in [name for name in os.environ if name.startswith("INSIDER_OTEL_")]:
        monkeypatch.delenv(name)
    yield
    instrumentor = InsiderInstrumentor()
    if instrumentor.is_instrumented_by_opentelemetry:
        instrumentor.uninstrument()


@pytest.fixture
def make_app(insider_spans: CapturedSpans) -> AppFactory:
    """Makes apps that use the extension: ``make_app(request_deadline=2.0)``. Their spans are in ``insider_spans``."""

    def make(name: str = "shop", **options: Any) -> Flask:
        app = Flask(name)
        app.config.from_mapping({f"INSIDER_OTEL_{option.upper()}": value for option, value in options.items()})
        InsiderOTel(app, tracer_provider=insider_spans.tracer_provider)
        return app

    return make
