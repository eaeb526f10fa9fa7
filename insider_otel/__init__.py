"""insider-otel: OpenTelemetry middleware for calls to Insider (useinsider.com)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from insider_otel._version import __version__
from insider_otel.api.classify import classify
from insider_otel.api.operations import Limit
from insider_otel.api.verdict import Category, Fault, RateLimit, Retry, Verdict
from insider_otel.http.health import health
from insider_otel.http.record import Call, call_of
from insider_otel.http.scope import RequestScope, background, request_scope
from insider_otel.http.transport import AsyncInsiderTransport, InsiderTransport
from insider_otel.policy.settings import Dedupe, Events, Mode, Settings, SettingsError
from insider_otel.policy.steps import Outcome, Stop

if TYPE_CHECKING:
    from insider_otel.http.instrumentor import InsiderInstrumentor

__all__ = [
    "AsyncInsiderTransport",
    "Call",
    "Category",
    "Dedupe",
    "Events",
    "Fault",
    "InsiderInstrumentor",
    "InsiderTransport",
    "Limit",
    "Mode",
    "Outcome",
    "RateLimit",
    "RequestScope",
    "Retry",
    "Settings",
    "SettingsError",
    "Stop",
    "Verdict",
    "__version__",
    "background",
    "call_of",
    "classify",
    "health",
    "request_scope",
]


def __getattr__(name: str) -> Any:
    # The instrumentor's base class is half of all there is to import; those who wrap a transport have no need of it.
    if name == "InsiderInstrumentor":
        from insider_otel.http.instrumentor import InsiderInstrumentor  # noqa: PLC0415

        return InsiderInstrumentor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
