"""insider-otel: OpenTelemetry middleware for calls to Insider (useinsider.com)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from insider_otel._version import __version__
from insider_otel.api.classify import classify
from insider_otel.api.operations import Limit, Operation
from insider_otel.api.verdict import Category, Fault, RateLimit, Retry, Verdict
from insider_otel.http.health import health
from insider_otel.http.record import Call, call_of
from insider_otel.http.scope import RequestScope, background, request_scope
from insider_otel.http.transport import AsyncInsiderTransport, InsiderTransport
from insider_otel.policy.settings import Dedupe, Events, Mode, Settings, SettingsError
from insider_otel.policy.steps import Outcome, Stop

if TYPE_CHECKING:
    from insider_otel.delivery.defer import defer
    from insider_otel.http.instrumentor import InsiderInstrumentor
    from insider_otel.outbox.content import CannotDefer
    from insider_otel.outbox.protocol import OutboxError

__all__ = [
    "AsyncInsiderTransport",
    "Call",
    "CannotDefer",
    "Category",
    "Dedupe",
    "Events",
    "Fault",
    "InsiderInstrumentor",
    "InsiderTransport",
    "Limit",
    "Mode",
    "Operation",
    "OutboxError",
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
    "defer",
    "health",
    "request_scope",
]


# What is loaded when it is asked for: the instrumentor's base class is half of all there is to import, and who defers
# nothing needs no outbox.
_HOMES = {
    "CannotDefer": "insider_otel.outbox.content",
    "InsiderInstrumentor": "insider_otel.http.instrumentor",
    "OutboxError": "insider_otel.outbox.protocol",
    "defer": "insider_otel.delivery.defer",
}


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
