"""A good request of every operation: ``exchanges.toml``."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any
from urllib.parse import urlencode

from insider_otel.api.operations import IN_BODY, Operation, operations_by_name
from insider_otel.testing._names import known
from insider_otel.testing._wire import Reply, as_dict

FAKE_PARTNER = "fakeshop"
"""The partner name in sample requests."""

FAKE_KEY = "fake-key"
"""Every other credential in sample requests."""

PARTNER_HEADER = "X-PARTNER-NAME"


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """A good request, ready for any HTTP client.

    ``client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)``

    Attributes:
        operation: The operation it calls.
        method: HTTP method.
        url: The whole URL.
        headers: Credentials and content type.
        json: The body as an object; None if it has no JSON body.
        content: The body as bytes.
    """

    operation: Operation
    method: str
    url: str
    headers: dict[str, str]
    json: Any
    content: bytes


@dataclass(frozen=True, slots=True)
class Exchange:
    """A table of ``exchanges.toml``.

    Attributes:
        path: The path of the request.
        query: Its query.
        request: Its body, read from JSON.
        form: Whether the body is a form instead.
        reply: What Insider answers, where that is always the same.
    """

    path: str
    query: str
    request: Any
    form: bool
    reply: Reply | None


@cache
def exchanges() -> dict[str, Exchange]:
    """Every exchange, by the name of its operation."""
    table = tomllib.loads(files("insider_otel.testing").joinpath("exchanges.toml").read_text("utf-8"))
    return {
        name: Exchange(
            path=row.get("path", operations_by_name()[name].path),
            query=row.get("query", ""),
            request=json.loads(row["request"]) if "request" in row else None,
            form=row.get("form", False),
            reply=Reply.of(row["status"], row["reply"]) if "reply" in row else None,
        )
        for name, row in table.items()
    }


def sample_request(operation: str, json: Any = None, *, base_url: str | None = None) -> SampleRequest:
    """A request that Insider accepts, with invented data, to try things with.

    Args:
        operation: Name of the operation.
        json: Another body instead of the sample's.
        base_url: Where to send it; the operation's own host by default.

    Raises:
        ValueError: There is no such operation.
    """
    called = known(operations_by_name(), operation, "operation", "`insider-otel operations` lists them")
    exchange = exchanges()[operation]
    body = exchange.request if json is None else json
    headers = {name: credential_value(name) for name in called.credentials if not name.startswith(IN_BODY)}
    content = b""
    if body is not None:
        content = urlencode(as_dict(body)).encode() if exchange.form else _dumps(body)
        headers["Content-Type"] = "application/x-www-form-urlencoded" if exchange.form else "application/json"
    base = f"https://{called.host}" if base_url is None else base_url.rstrip("/")
    return SampleRequest(
        operation=called,
        method=called.methods[0],
        url=base + exchange.path + (f"?{exchange.query}" if exchange.query else ""),
        headers=headers,
        json=None if exchange.form else body,
        content=content,
    )


def credential_value(name: str) -> str:
    """The value of a credential in sample requests.

    Args:
        name: Its header, or ``body:`` and its field.
    """
    if name == PARTNER_HEADER:
        return FAKE_PARTNER
    return f"Bearer {FAKE_KEY}" if name == "Authorization" else FAKE_KEY


def _dumps(body: Any) -> bytes:
    return json.dumps(body).encode()
