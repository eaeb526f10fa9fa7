"""What happened inside a call, as span events, log-based events, or both: the one place that emits them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import Span

from insider_otel._version import __version__
from insider_otel.telemetry.metrics import SCOPE

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider

AttributeValue = str | int
EventAttributes = Mapping[str, AttributeValue]
EmitEvent = Callable[[str, EventAttributes, Span, Context], None]
"""Emits one event: its name, its attributes, the call's span and the context that holds the span."""


def on_span(name: str, attributes: EventAttributes, span: Span, context: Context) -> None:
    """Emit a span event, if the span is recorded."""
    if span.is_recording():
        span.add_event(name, attributes)


def log_events(logger_provider: LoggerProvider | None = None) -> EmitEvent:
    """What emits log-based events: a log record with an event name, in the call's context, sampled or not.

    Args:
        logger_provider: Where they go; the global provider by default.
    """
    # Only those who ask for log-based events load the logs API.
    from opentelemetry._logs import SeverityNumber, get_logger  # noqa: PLC0415

    logger = get_logger(SCOPE, __version__, logger_provider)

    def emit(name: str, attributes: EventAttributes, span: Span, context: Context) -> None:
        logger.emit(event_name=name, attributes=attributes, context=context, severity_number=SeverityNumber.INFO)

    return emit


def emitter(*, span: bool, log: bool, logger_provider: LoggerProvider | None = None) -> EmitEvent:
    """What emits the events of calls.

    Args:
        span: Emit span events.
        log: Emit log-based events.
        logger_provider: Where log-based events go; the global provider by default.
    """
    if not log:
        return on_span
    to_log = log_events(logger_provider)
    if not span:
        return to_log

    def both(name: str, attributes: EventAttributes, span: Span, context: Context) -> None:
        on_span(name, attributes, span, context)
        to_log(name, attributes, span, context)

    return both
