"""Documented responses as replies."""

from __future__ import annotations

from functools import cache

from insider_otel.api.responses import responses
from insider_otel.testing._names import known
from insider_otel.testing._wire import Reply

UNKNOWN_STATUS = 202
"""For the one response whose status is not documented: the reply to a duplicate, which is good news."""


@cache
def _replies() -> dict[str, Reply]:
    return {row.id: Reply.of(row.status or UNKNOWN_STATUS, row.body) for row in responses()}


def documented_reply(response: str) -> Reply:
    """The documented response of an id.

    Args:
        response: The id, as in ``responses.toml``.

    Raises:
        ValueError: There is no such response.
    """
    return known(_replies(), response, "response", "`insider-otel responses` lists them")
