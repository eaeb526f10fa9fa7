"""What the fake remembers of each request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from insider_otel.api.operations import Operation
from insider_otel.testing._wire import Request, as_dict, as_list

MASK = "***"

_SECRET_HEADERS = frozenset({"authorization", "cookie", "proxy-authorization"})
_SECRET_FIELDS = frozenset({"api_key", "client_id", "client_secret", "private_key", "refresh_token", "secret"})


@dataclass(frozen=True, slots=True)
class RecordedRequest:
    """A request that the fake got.

    Attributes:
        operation: Name of the operation; ``unlisted`` for an unknown path.
        method: HTTP method.
        host: The host it was meant for.
        path: Path without the query.
        query: Query without the question mark.
        headers: Names in lower case; credentials are masked.
        json: The body, read from JSON, with credentials masked; None if it is no JSON.
        accepted: Whether Insider took it: answered with 2xx and not as a duplicate, or did so before a scripted fault.
        status: Status of the answer; None if there was none.
    """

    operation: str
    method: str
    host: str
    path: str
    query: str
    headers: Mapping[str, str]
    json: Any
    accepted: bool
    status: int | None


def record(operation: Operation, request: Request, *, accepted: bool, status: int | None) -> RecordedRequest:
    """A request as it is remembered.

    Args:
        operation: The operation called.
        request: The request.
        accepted: Whether Insider took it.
        status: Status of the answer; None if there was none.
    """
    secret = _SECRET_HEADERS | {name.lower() for name in operation.credentials}
    return RecordedRequest(
        operation=operation.name,
        method=request.method,
        host=request.host if operation.host == "*" else operation.host,
        path=request.path,
        query=request.query,
        headers={name: MASK if name in secret or _is_key(name) else value for name, value in request.headers.items()},
        json=_masked(request.json()),
        accepted=accepted,
        status=status,
    )


def _is_key(header: str) -> bool:
    return header.startswith("x-") and header.endswith(("-key", "-token"))


def _masked(value: object) -> Any:
    fields, items = as_dict(value), as_list(value)
    if fields:
        return {name: MASK if name in _SECRET_FIELDS else _masked(held) for name, held in fields.items()}
    return [_masked(held) for held in items] if items else value
