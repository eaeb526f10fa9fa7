"""What ``insider-otel doctor`` checks: each check reads an environment and says what it found."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from insider_otel.cli.checks.environment import Environment, Finding
from insider_otel.cli.checks.export import endpoint, exporter, sdk
from insider_otel.cli.checks.instrumentation import excluded, settings, stock_instrumentors, zero_code
from insider_otel.cli.checks.libraries import libraries, pre_fork, retry_libraries
from insider_otel.cli.checks.outbox import credentials, outbox
from insider_otel.cli.checks.privacy import captured_headers, url_logging
from insider_otel.cli.checks.state import limits, state

CHECKS: tuple[Callable[[Environment], Iterator[Finding]], ...] = (
    libraries,
    sdk,
    exporter,
    endpoint,
    stock_instrumentors,
    zero_code,
    settings,
    limits,
    state,
    outbox,
    credentials,
    excluded,
    captured_headers,
    url_logging,
    retry_libraries,
    pre_fork,
)


def examine(environment: Environment) -> list[Finding]:
    """Everything the checks have to say about an environment, in their order."""
    return [finding for check in CHECKS for finding in check(environment)]
