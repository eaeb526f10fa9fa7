"""Everything that calls export, by the names that the registry gives it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, Histogram, InMemoryMetricReader, Metric, Sum
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanKind

Attributes = Mapping[str, Any]


def kind_of_span(name: str, kind: SpanKind | None) -> str:
    """What the registry calls a span."""
    match kind:
        case SpanKind.SERVER:
            return "request"
        case SpanKind.CLIENT:
            return "attempt"
        case _ if name.startswith("insider deliver "):
            return "delivery"
        case _:
            return {"insider wait": "wait", "insider outbox": "outbox"}.get(name, "call")


class WatchedSampler(Sampler):
    """Samples everything, and keeps what samplers see."""

    def __init__(self) -> None:
        self.seen: dict[str, list[Attributes]] = defaultdict(list)

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Any = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        self.seen[kind_of_span(name, kind)].append(dict(attributes or {}))
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes, trace_state)

    def get_description(self) -> str:
        return "WatchedSampler"


@dataclass
class Exported:
    """What was exported.

    Attributes:
        signals: The attributes of each that was exported, by kind and name: ``("span", "call")``.
        at_start: What samplers saw of each span.
        log_events: The attributes of each log-based event, by name.
        metrics: Instrument, unit and description of each metric.
    """

    signals: dict[tuple[str, str], list[Attributes]] = field(default_factory=lambda: defaultdict(list))
    at_start: dict[str, list[Attributes]] = field(default_factory=dict)
    log_events: dict[str, list[Attributes]] = field(default_factory=lambda: defaultdict(list))
    metrics: dict[str, tuple[str, str, str]] = field(default_factory=dict)

    def values(self, attribute: str) -> set[Any]:
        """Every value that an attribute had, wherever it was."""
        return {
            attributes[attribute]
            for exports in self.signals.values()
            for attributes in exports
            if attribute in attributes
        }


class Recorder:
    """Providers that keep what they are given; no global one is touched."""

    def __init__(self) -> None:
        self._sampler = WatchedSampler()
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self._logs = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
        self.tracer_provider = TracerProvider(sampler=self._sampler, shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._metrics], shutdown_on_exit=False)
        self.logger_provider = LoggerProvider(shutdown_on_exit=False)
        self.logger_provider.add_log_record_processor(SimpleLogRecordProcessor(self._logs))

    def exported(self) -> Exported:
        """What they were given so far."""
        exported = Exported(at_start=self._sampler.seen)
        for span in self._spans.get_finished_spans():
            exported.signals["span", kind_of_span(span.name, span.kind)].append(dict(span.attributes or {}))
            for event in span.events:
                exported.signals["event", event.name].append(dict(event.attributes or {}))
        for log in self._logs.get_finished_logs():
            exported.log_events[str(log.log_record.event_name)].append(dict(log.log_record.attributes or {}))
        for metric in self._read_metrics():
            exported.metrics[metric.name] = (_instrument(metric), metric.unit or "", metric.description or "")
            points = [dict(point.attributes or {}) for point in metric.data.data_points]
            exported.signals["metric", metric.name] += points
        return exported

    def _read_metrics(self) -> list[Metric]:
        data = self._metrics.get_metrics_data()
        assert data is not None
        return [
            metric
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            if scope.scope.name == "insider_otel"
            for metric in scope.metrics
        ]


def _instrument(metric: Metric) -> str:
    match metric.data:
        case Histogram():
            return "histogram"
        case Sum(is_monotonic=True):
            return "counter"
        case Gauge():
            return "gauge"
        case other:
            raise AssertionError(f"{metric.name} is of a kind that the registry has no word for here: {other}")
