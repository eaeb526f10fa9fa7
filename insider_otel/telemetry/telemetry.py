"""Where spans, events and metrics go: what all calls through one transport or instrumentor share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

from opentelemetry.metrics import MeterProvider, NoOpMeter, get_meter
from opentelemetry.trace import NoOpTracer, Tracer, TracerProvider, get_tracer

from insider_otel._version import __version__
from insider_otel.telemetry.captured_headers import HeaderCapture, excluded_urls
from insider_otel.telemetry.events import EmitEvent, emitter
from insider_otel.telemetry.metrics import SCOPE, Instruments

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Where spans, events and metrics go.

    Attributes:
        tracer: Makes the spans.
        instruments: What metrics are recorded to.
        emit: Emits the events.
        headers: Which headers are captured.
        excluded: Matches URLs that are left out of the traces; None for none.
        propagates: Whether trace headers are sent.
    """

    tracer: Tracer
    instruments: Instruments
    emit: EmitEvent
    headers: HeaderCapture
    excluded: re.Pattern[str] | None
    propagates: bool = True

    @classmethod
    def to(
        cls,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        *,
        span_events: bool = True,
        log_events: bool = False,
    ) -> Telemetry:
        """Telemetry to the given providers; the global ones by default.

        Args:
            tracer_provider: Where spans go.
            meter_provider: Where metrics go.
            logger_provider: Where log-based events go.
            span_events: Emit span events.
            log_events: Emit log-based events.
        """
        return cls(
            tracer=get_tracer(SCOPE, __version__, tracer_provider),
            instruments=Instruments(get_meter(SCOPE, __version__, meter_provider)),
            emit=emitter(span=span_events, log=log_events, logger_provider=logger_provider),
            headers=HeaderCapture.from_env(),
            excluded=excluded_urls(),
        )


NO_TELEMETRY = Telemetry(
    tracer=NoOpTracer(),
    instruments=Instruments(NoOpMeter(SCOPE)),
    emit=lambda name, attributes, span, context: None,
    headers=HeaderCapture(),
    excluded=None,
    propagates=False,
)
"""For calls whose tracing is suppressed, or whose URL is excluded: the policies go on, nothing is exported."""
