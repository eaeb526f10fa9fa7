"""The telemetry of one call, written bare: the part of its cost that is OpenTelemetry's, whoever makes the spans."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import httpx
from opentelemetry.context import get_current
from opentelemetry.metrics import MeterProvider, get_meter
from opentelemetry.propagate import inject
from opentelemetry.sdk.metrics import MeterProvider as RecordingMeterProvider
from opentelemetry.sdk.metrics.export import Histogram, InMemoryMetricReader, Sum
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace import TracerProvider as RecordingTracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import TracerProvider, get_tracer, set_span_in_context

from benchmarks.common.calls import UPSERT, headers_of, instant_transport
from insider_otel import InsiderTransport

_NAME = "benchmarks"

Point = tuple[str, bool, Mapping[str, Any]]
"""What is measured: the instrument, whether it is a histogram, and the attributes."""


def bare_telemetry(
    tracer_provider: TracerProvider | None = None, meter_provider: MeterProvider | None = None
) -> Callable[[], None]:
    """What makes the same spans and measurements as one call of the library, and does nothing else.

    Each span is given all of its attributes at once, which costs the SDK least.

    Args:
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: Where measurements go; the global provider by default.
    """
    call, attempt, points = _recorded()
    tracer, meter = get_tracer(_NAME, "1", tracer_provider), get_meter(_NAME, "1", meter_provider)
    instruments = [
        (meter.create_histogram(name).record if is_histogram else meter.create_counter(name).add, dict(attributes))
        for name, is_histogram, attributes in points
    ]
    call_attributes, attempt_attributes = dict(call.attributes or {}), dict(attempt.attributes or {})

    def make() -> None:
        above = get_current()
        outer = tracer.start_span(call.name, above, call.kind)
        inside = set_span_in_context(outer, above)
        inner = tracer.start_span(attempt.name, inside, attempt.kind)
        inject({}, set_span_in_context(inner, inside))
        for span, attributes in ((inner, attempt_attributes), (outer, call_attributes)):
            if span.is_recording():
                span.set_attributes(attributes)
            span.end()
        for measure, labels in instruments:
            measure(1, labels, inside)

    return make


def _recorded() -> tuple[ReadableSpan, ReadableSpan, list[Point]]:
    """Make one call with the library: its INTERNAL span, the CLIENT span of its attempt, and what it measured."""
    exporter, reader = InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = RecordingTracerProvider(shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    meter_provider = RecordingMeterProvider([reader], shutdown_on_exit=False)
    transport = InsiderTransport(
        instant_transport(httpx), tracer_provider=tracer_provider, meter_provider=meter_provider
    )
    with httpx.Client(transport=transport) as client:
        client.post(UPSERT.url, content=UPSERT.content, headers=headers_of("recorded"))
    attempt, call = exporter.get_finished_spans()
    data = reader.get_metrics_data()
    assert data is not None, "a call leaves measurements"
    # Gauges are no part of a call: they are asked when they are exported.
    points = [
        (metric.name, isinstance(metric.data, Histogram), point.attributes or {})
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if isinstance(metric.data, Histogram | Sum)
        for point in metric.data.data_points
    ]
    return call, attempt, points
