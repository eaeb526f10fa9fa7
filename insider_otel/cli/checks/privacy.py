"""What leaves the process beside the spans of insider-otel, and should not."""

from __future__ import annotations

import re
from collections.abc import Iterator

from insider_otel.api.operations import IN_BODY, operations
from insider_otel.cli.checks.environment import Environment, Finding, Level

_PARTNER = "x-partner-name"  # says who, and opens nothing
_COOKIES = {"cookie", "set-cookie"}
_CAPTURE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"


def captured_headers(environment: Environment) -> Iterator[Finding]:
    """Credentials that header capture would export."""
    sanitized = environment.words(f"{_CAPTURE}SANITIZE_FIELDS")
    carried = {
        name.lower() for operation in operations() for name in operation.credentials if not name.startswith(IN_BODY)
    }
    secret = sorted(carried - {_PARTNER} | _COOKIES)
    for side in ("CLIENT_REQUEST", "CLIENT_RESPONSE", "SERVER_REQUEST", "SERVER_RESPONSE"):
        name = f"{_CAPTURE}{side}"
        try:
            captured = [header for header in secret if _matches(environment.words(name), header)]
            exposed = [header for header in captured if not _searched(sanitized, header)]
        except re.error as error:
            yield Finding(
                Level.ERROR,
                f"{name} or {_CAPTURE}SANITIZE_FIELDS is no list of regular expressions: {error}",
                "Instrumentations that read it fail to start.",
                "Correct it.",
            )
            return
        if exposed:
            yield Finding(
                Level.ERROR,
                f"{name} captures {', '.join(exposed)}",
                "Spans of other instrumentations then carry credentials; insider-otel's own never do.",
                f"Take them out, or add them to {_CAPTURE}SANITIZE_FIELDS.",
            )


def _matches(expressions: list[str], header: str) -> bool:
    return any(re.fullmatch(expression, header, re.IGNORECASE) for expression in expressions)


def _searched(expressions: list[str], header: str) -> bool:
    return any(re.search(expression, header, re.IGNORECASE) for expression in expressions)


def url_logging(environment: Environment) -> Iterator[Finding]:
    """The httpx logger, which writes each request's full URL."""
    exported = environment.is_true("OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED")
    # Log correlation sets the root logger's level, to INFO by default.
    level = environment.variable("OTEL_PYTHON_LOG_LEVEL").lower()
    written = environment.is_true("OTEL_PYTHON_LOG_CORRELATION") and level in ("", "info", "debug")
    what = "the httpx logger writes full URLs at INFO"
    if exported:
        what += ", and OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED exports the log"
    if written:
        what += ", and OTEL_PYTHON_LOG_CORRELATION turns that level on"
    yield Finding(
        Level.WARNING if exported or written else Level.NOTE,
        what,
        "A URL's query may hold a user's id, and the redaction of spans does not reach the log.",
        'logging.getLogger("httpx").setLevel(logging.WARNING), and the same for "httpx2" if you use it.',
    )
