"""The stock instrumentation of httpx and httpx2, as far as the installed release has it."""

from __future__ import annotations

import importlib
from typing import Any

import httpx
import pytest

from insider_otel import InsiderInstrumentor
from insider_otel.http.instrumentor import ZeroCodeInstrumentor

from .conftest import Flavour

_MODULE: Any = importlib.import_module("opentelemetry.instrumentation.httpx")
_INSTRUMENTORS = ("HTTPXClientInstrumentor", "HTTPX2ClientInstrumentor")


def stock(name: str) -> Any:
    """A name of the stock instrumentation; early releases did not know httpx2."""
    if not hasattr(_MODULE, name):
        pytest.skip(f"this release of the stock instrumentation has no {name}")
    return getattr(_MODULE, name)


def stock_of(flavour: Flavour) -> Any:
    """The stock instrumentor of a flavour."""
    return stock(_INSTRUMENTORS[flavour.module is not httpx])()


def stock_transport(flavour: Flavour) -> Any:
    """The class of the stock transport of a flavour."""
    family = "" if flavour.module is httpx else "Httpx2"
    return stock(f"{'Async' if flavour.is_async else 'Sync'}OpenTelemetryTransport{family}")


def uninstrument_all() -> None:
    """Turn every instrumentor off, ours and the stock ones."""
    stock_classes = [getattr(_MODULE, name) for name in _INSTRUMENTORS if hasattr(_MODULE, name)]
    for instrumentor in (InsiderInstrumentor, ZeroCodeInstrumentor, *stock_classes):
        if instrumentor().is_instrumented_by_opentelemetry:
            instrumentor().uninstrument()
