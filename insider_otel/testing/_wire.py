"""What goes in and out of the fake's core, whatever carries it: ASGI, httpx or httpx2."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, cast

_DEEPEST = 100
_TOO_DEEP = f"JSON is nested deeper than {_DEEPEST} levels"


@dataclass(frozen=True, slots=True)
class Request:
    """A request as it arrived.

    Attributes:
        method: HTTP method.
        host: Lower case, without the port.
        path: Without the query.
        query: Without the question mark.
        headers: Names in lower case.
        body: The whole body.
    """

    method: str
    host: str
    path: str
    query: str
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The body, read from JSON; None if it is no JSON."""
        try:
            return read_json(self.body)
        except ValueError:
            return None


@dataclass(frozen=True, slots=True)
class Reply:
    """A response that Insider gives, or might give."""

    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, status: int, body: object = b"", headers: Mapping[str, str] | None = None) -> Reply:
        """A reply from a body in any form.

        Args:
            status: HTTP status code.
            body: Bytes and text are sent as they are; anything else as JSON.
            headers: Headers besides the content type.
        """
        if isinstance(body, bytes):
            content = body
        elif isinstance(body, str):
            content = body.encode()
        else:
            content = json.dumps(body).encode()
        return cls(status, content, headers or {})

    def all_headers(self) -> dict[str, str]:
        """Its headers with the content type the body looks like, as Insider's edge sends them."""
        kind = "application/json" if self.body.lstrip()[:1] in {b"{", b"["} else "text/plain; charset=utf-8"
        described = {"content-type": kind} if self.body else {}
        return {"server": "cloudflare", **described, **{name.lower(): value for name, value in self.headers.items()}}


class End(Enum):
    """How an answer ends."""

    COMPLETE = "complete"
    TRUNCATED = "truncated"
    """The connection closes in the middle of the body."""
    RESET = "reset"
    """The connection is reset instead of an answer."""
    SILENCE = "silence"
    """No answer ever comes."""


@dataclass(frozen=True, slots=True)
class Plan:
    """What a shell has to carry out.

    Attributes:
        reply: What to answer; unused where the answer ends before its status line.
        delay: Seconds to wait before it.
        end: How it ends.
        after_bytes: Bytes of the body that get through before a truncated end.
    """

    reply: Reply
    delay: float = 0.0
    end: End = End.COMPLETE
    after_bytes: int = 0


Decide = Callable[[Request], Plan]
"""The fake's core, as its shells see it: decides what happens to a request."""


def read_json(body: bytes) -> Any:
    """A body, read from JSON.

    Args:
        body: The body.

    Raises:
        ValueError: It is no JSON, or nested deeper than what looks at it can follow.
    """
    try:
        value = json.loads(body)
    except RecursionError:
        raise ValueError(_TOO_DEEP) from None
    level: list[object] = [value]
    for _ in range(_DEEPEST):
        level = [held for each in level for held in (*as_dict(each).values(), *as_list(each))]
        if not level:
            return value
    raise ValueError(_TOO_DEEP)


def as_dict(value: object) -> dict[str, Any]:
    """A JSON object, or an empty one if it is something else."""
    return cast("dict[str, Any]", value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    """A JSON array, or an empty one if it is something else."""
    return cast("list[object]", value) if isinstance(value, list) else []
