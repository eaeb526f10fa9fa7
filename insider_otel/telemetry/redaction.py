"""URLs and headers as they may leave the process: by allow-list, so that what nobody thought of stays inside."""

from __future__ import annotations

import re
from functools import cache
from urllib.parse import unquote

from insider_otel.api.operations import operations

REDACTED = "REDACTED"

# These parameters say how much is asked for and in which form, never about whom; each with the values it may have.
_NUMBER = re.compile(r"[0-9]{1,6}")
_WORD = re.compile(r"asc|desc|hour|day|week|month|year", re.IGNORECASE)
_PLAIN_PARAMETERS = {
    "page": _NUMBER,
    "limit": _NUMBER,
    "offset": _NUMBER,
    "size": _NUMBER,
    "order": _WORD,
    "interval": _WORD,
    "locale": re.compile(r"[a-z]{2}([_-][A-Za-z]{2})?"),
    "currency": re.compile(r"[A-Z]{3}"),
}
_PLAIN_NAME = re.compile(r"[A-Za-z_]([A-Za-z_.\[\]-]|[0-9](?![0-9]{3})){0,39}")
# A campaign number or the name of an algorithm; shorter than any phone number, and no "@".
_PLAIN_PLACEHOLDER = re.compile(r"[A-Za-z_-]{1,40}|[0-9]{1,8}")
_VERSION = re.compile(r"v[0-9]{1,2}")

# Insider's credential headers, and what others call theirs; and headers that hold a URL with a query of its own.
_SECRET_HEADER = re.compile(
    r"auth|cookie|key|passw|secret|session|signature|token|^(content-)?location$|^referer$|^link$"
)


def is_secret_header(name: str) -> bool:
    """Whether a header's value never leaves the process, captured or not.

    Args:
        name: The header's name, lower case.
    """
    return _SECRET_HEADER.search(name) is not None


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
    # Without an equals sign there is no telling a name from a value.
    if not equals or not _PLAIN_NAME.fullmatch(unquote(name)):
        return REDACTED
    plain = _PLAIN_PARAMETERS.get(name)
    return parameter if plain is not None and plain.fullmatch(value) else f"{name}={REDACTED}"


@cache
def _documented_words() -> frozenset[str]:
    return frozenset(word for operation in operations() for word in operation.path.split("/") if "{" not in word)
