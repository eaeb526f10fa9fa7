"""The OpenTelemetry SDK that spans and metrics go to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON


class _Discard(SpanExporter):
    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


@dataclass(frozen=True, slots=True)
class SDK:
    """The OpenTelemetry SDK, set up as in production but for the exporters, which discard: they run elsewhere."""

    sampled: TracerProvider
    unsampled: TracerProvider

    @classmethod
    def start(cls) -> SDK:
        """Start the threads that export."""
        sampled = TracerProvider(sampler=ALWAYS_ON, shutdown_on_exit=False)
        sampled.add_span_processor(BatchSpanProcessor(_Discard()))
        return cls(sampled, TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False))

    def flush(self) -> None:
        """Export what waits to be exported."""
        self.sampled.force_flush()

    def shutdown(self) -> None:
        """End the threads."""
        self.sampled.shutdown()

    def recording(self) -> dict[str, Any]:
        """Options by which calls are sampled."""
        return {"tracer_provider": self.sampled, "meter_provider": _metrics()}

    def dropping(self) -> dict[str, Any]:
        """Options by which they are not; metrics are recorded all the same."""
        return {"tracer_provider": self.unsampled, "meter_provider": _metrics()}


def _metrics() -> MeterProvider:
    return MeterProvider([InMemoryMetricReader()], shutdown_on_exit=False)
