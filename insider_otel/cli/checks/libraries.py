"""The HTTP clients, the servers and the libraries that retry."""

from __future__ import annotations

import re
from collections.abc import Iterator

from insider_otel.cli.checks.environment import Environment, Finding, Level

_RETRY_LIBRARIES = ("backoff", "httpx-retries", "retryhttp", "stamina", "tenacity")
_PRE_FORK_SERVERS = ("celery", "gunicorn", "uwsgi")


def libraries(environment: Environment) -> Iterator[Finding]:
    """The HTTP clients and the OpenTelemetry API."""
    for name in ("insider-otel", "opentelemetry-api", "opentelemetry-instrumentation", "wrapt"):
        if version := environment.versions.get(name):
            yield Finding(Level.OK, f"{name} {version}")
        else:
            yield Finding(
                Level.ERROR,
                f"{name} is not installed in this environment",
                "insider-otel was found by its path only; its entry points and its dependencies may be missing.",
                "pip install insider-otel",
            )
    httpx = environment.versions.get("httpx")
    if httpx is None or not (0, 27) <= _version(httpx) < (1, 0):
        yield Finding(
            Level.ERROR,
            f"httpx {httpx or 'is not installed'}",
            "insider-otel works with httpx 0.27 and later, below 1.",
            "pip install 'httpx>=0.27,<1'",
        )
    else:
        yield Finding(Level.OK, f"httpx {httpx}")
    if httpx2 := environment.versions.get("httpx2"):
        yield Finding(Level.OK, f"httpx2 {httpx2}")


def _version(text: str) -> tuple[int, ...]:
    return tuple(int(number) for number in re.findall(r"\d+", text)[:2])


def retry_libraries(environment: Environment) -> Iterator[Finding]:
    """Retries round our retries."""
    if found := [name for name in _RETRY_LIBRARIES if name in environment.versions]:
        yield Finding(
            Level.NOTE,
            f"{', '.join(found)} is installed",
            "A retry round a call to Insider multiplies the retries inside it, and each round is a call of its own.",
            "Leave calls to Insider to one of them: no retry decorator, or INSIDER_OTEL_MODE=observe.",
        )


def pre_fork(environment: Environment) -> Iterator[Finding]:
    """Servers that fork workers."""
    if found := [name for name in _PRE_FORK_SERVERS if name in environment.versions]:
        yield Finding(
            Level.NOTE,
            f"{', '.join(found)} is installed, which forks workers",
            "Export threads do not survive a fork. Each worker has a retry budget of its own and, with the state "
            "memory://, limits of its own.",
            "Set up the SDK in the worker: gunicorn's post_fork, uWSGI's postfork, Celery's worker_process_init.",
        )
