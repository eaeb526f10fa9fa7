"""URLs and headers as they may leave the process: by allow-list, so that what nobody thought of stays inside."""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import unquote

from insider_otel.api.operations import operations

REDACTED = "REDACTED"

# Values of these query parameters say how much is asked for, never about whom.
_PLAIN_PARAMETERS = frozenset({"page", "limit", "offset", "size", "sort", "order", "locale", "currency", "interval"})
_PLAIN_VALUE = re.compile(r"[A-Za-z0-9_.-]{1,20}")
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.\[\]-]{0,39}")
# A campaign number or the name of an algorithm; shorter than any phone number, and no "@".
_PLAIN_PLACEHOLDER = re.compile(r"[A-Za-z_-]{1,40}|[0-9]{1,8}")
_VERSION = re.compile(r"v[0-9]{1,2}")

CREDENTIAL_HEADERS = frozenset(
    {
        "authorization",
        "proxy-authorization",
        "cookie",
        "set-cookie",
        "x-request-token",
        "x-ins-auth-key",
        "x-api-key",
        "x-insider-api-key",
    }
)
"""Headers whose values never leave the process, captured or not (insider_api: "Secrets and PII")."""


def redacted_path(path: str, template: str) -> str:
    """A URL path without what may identify a person.

    Args:
        path: The path as sent.
        template: The operation's path template; empty for a path that is not documented, of which only version
            segments and the words of documented paths are kept.

    Returns:
        The path, with ``REDACTED`` in place of every segment that is not known to be harmless.
    """
    if path == template:
        return path
    literals = template.split("/")
    segments = path.split("/")
    if len(literals) != len(segments):
        known = _documented_words()
        return "/".join(s if not s or s in known or _VERSION.fullmatch(s) else REDACTED for s in segments)
    return "/".join(
        segment if segment == literal or _PLAIN_PLACEHOLDER.fullmatch(segment) else REDACTED
        for segment, literal in zip(segments, literals, strict=True)
    )


def redacted_query(query: str) -> str:
    """A query string whose values are ``REDACTED`` but for parameters that are known to be harmless."""
    return "&".join(_redacted_parameter(parameter) for parameter in query.split("&")) if query else ""


def _redacted_parameter(parameter: str) -> str:
    name, equals, value = parameter.partition("=")
    if not _PLAIN_NAME.fullmatch(unquote(name)):
        return REDACTED
    if not equals or (name in _PLAIN_PARAMETERS and _PLAIN_VALUE.fullmatch(value)):
        return parameter
    return f"{name}={REDACTED}"


@cache
def _documented_words() -> frozenset[str]:
    return frozenset(word for operation in operations() for word in operation.path.split("/") if "{" not in word)
