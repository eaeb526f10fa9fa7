"""What the views of these tests do: call Insider, and tell what their scope is."""

from __future__ import annotations

from typing import Any

from insider_otel_flask import insider

from insider_otel.http.scope import current_scope
from insider_otel.testing import sample_request


def call(operation: str = "user.upsert", *, client: Any = insider, base_url: str | None = None) -> Any:
    """A good call to Insider."""
    sample = sample_request(operation, base_url=base_url)
    return client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)


def remaining() -> float | None:
    """Seconds that the request has left here; None if nothing binds."""
    scope = current_scope()
    return None if scope is None else scope.remaining
