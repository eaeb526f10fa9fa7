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
_EXCLUDED = "OTEL_PYTHON_HTTPX_EXCLUDED_URLS"
_EXCLUDED_BY_ALL = "OTEL_PYTHON_EXCLUDED_URLS"

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

        Raises:
            ValueError: One of them holds no regular expressions.
        """
        environ = os.environ if environ is None else environ
        variables = (_CAPTURE_REQUEST, _CAPTURE_RESPONSE, _SANITIZE)
        return cls(*(_pattern(environ, variable, re.IGNORECASE) for variable in variables))

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


def excluded_urls(environ: Mapping[str, str] | None = None) -> re.Pattern[str] | None:
    """What ``OTEL_PYTHON_HTTPX_EXCLUDED_URLS`` (or ``OTEL_PYTHON_EXCLUDED_URLS``) leaves out of the traces.

    Args:
        environ: The environment; the process's own by default.

    Returns:
        A pattern to search full URLs with; None if nothing is excluded.

    Raises:
        ValueError: The variable holds no regular expressions.
    """
    environ = os.environ if environ is None else environ
    return _pattern(environ, _EXCLUDED if _EXCLUDED in environ else _EXCLUDED_BY_ALL)


def _pattern(environ: Mapping[str, str], variable: str, flags: re.RegexFlag = re.NOFLAG) -> re.Pattern[str] | None:
    """What matches any of the expressions that a variable lists; None if it lists none."""
    value = environ.get(variable, "")
    alternatives = [name.strip() for name in value.split(",") if name.strip()]
    try:
        return re.compile("|".join(alternatives), flags) if alternatives else None
    except re.error as error:
        raise ValueError(
            f"{variable} is {value!r}; it accepts regular expressions with commas between them, such as .* for anything"
            f" ({error})"
        ) from error
