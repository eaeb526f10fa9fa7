"""What calls are made with."""

from __future__ import annotations

from typing import Any

from opentelemetry.instrumentation.httpx import AsyncOpenTelemetryTransport, SyncOpenTelemetryTransport

from insider_otel import AsyncInsiderTransport, InsiderTransport

BARE, STOCK, OURS = KINDS = ("bare", "stock", "insider-otel")


def wrapped(kind: str, transport: Any, telemetry: dict[str, Any], *, is_async: bool = False, **options: Any) -> Any:
    """A transport of httpx, as calls are made with it.

    Args:
        kind: One of ``KINDS``.
        transport: What sends.
        telemetry: Where telemetry goes.
        is_async: Whether it is for async clients.
        **options: For the library's transport.
    """
    if kind == STOCK:
        return (AsyncOpenTelemetryTransport if is_async else SyncOpenTelemetryTransport)(transport, **telemetry)
    if kind == OURS:
        return (AsyncInsiderTransport if is_async else InsiderTransport)(transport, **telemetry, **options)
    return transport
