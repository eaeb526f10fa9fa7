"""Header capture by the environment variables of the stock HTTP instrumentations.

An attribute is named as the stable semantic conventions say: ``http.response.header.content-type``, with the header's
name in lower case. The stock instrumentations for Python still write ``content_type``, as earlier conventions said.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from insider_otel.telemetry.redaction import is_secret_header

_CAPTURE_REQUEST = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST"
_CAPTURE_RESPONSE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE"
_SANITIZE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS"

_SANITIZED = "[REDACTED]"

Pairs = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class HeaderCapture:
    """Which headers become span attributes.

    Attributes:
        request: Matches the names of request headers to capture; None for none.
        response: The same for response headers.
        sanitize: Matches names whose values are replaced.
    """

    request: re.Pattern[str] | None = None
    response: re.Pattern[str] | None = None
    sanitize: re.Pattern[str] | None = None

    @classmethod
    def from_env(cls, environ: Mapping[str, str] | None = None) -> HeaderCapture:
        """Read the three variables that the stock instrumentations read.

        Args:
            environ: The environment; the process's own by default.
        """
        environ = os.environ if environ is None else environ
        return cls(*(_pattern(environ.get(name, "")) for name in (_CAPTURE_REQUEST, _CAPTURE_RESPONSE, _SANITIZE)))

    def of_request(self, headers: Pairs) -> dict[str, list[str]]:
        """Attributes for the captured headers of a request."""
        return self._attributes(self.request, "http.request.header.", headers)

    def of_response(self, headers: Pairs) -> dict[str, list[str]]:
        """Attributes for the captured headers of a response."""
        return self._attributes(self.response, "http.response.header.", headers)

    def _attributes(self, captured: re.Pattern[str] | None, prefix: str, headers: Pairs) -> dict[str, list[str]]:
        attributes: dict[str, list[str]] = {}
        if captured is None:
            return attributes
        for name, value in headers:
            lower = name.lower()
            if captured.fullmatch(lower):
                secret = is_secret_header(lower) or (self.sanitize is not None and self.sanitize.search(lower))
                attributes.setdefault(prefix + lower, []).append(_SANITIZED if secret else value)
        return attributes


def _pattern(names: str) -> re.Pattern[str] | None:
    alternatives = [name.strip() for name in names.split(",") if name.strip()]
    return re.compile("|".join(alternatives), re.IGNORECASE) if alternatives else None


def excluded_urls(environ: Mapping[str, str] | None = None) -> re.Pattern[str] | None:
    """What ``OTEL_PYTHON_HTTPX_EXCLUDED_URLS`` (or ``OTEL_PYTHON_EXCLUDED_URLS``) leaves out of the traces.

    Args:
        environ: The environment; the process's own by default.

    Returns:
        A pattern to search full URLs with; None if nothing is excluded.
    """
    environ = os.environ if environ is None else environ
    names = environ.get("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", environ.get("OTEL_PYTHON_EXCLUDED_URLS", ""))
    alternatives = [name.strip() for name in names.split(",") if name.strip()]
    return re.compile("|".join(alternatives)) if alternatives else None
