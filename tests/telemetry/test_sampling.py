"""What a sampler, and a span processor at the start of a span, can go by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import SpanKind

from insider_otel import InsiderTransport

HOST = "https://unification.useinsider.com"


class Looking(Sampler):
    """Takes all, and keeps what it is shown of attempts."""

    def __init__(self) -> None:
        self.shown: list[dict[str, Any]] = []

    def should_sample(
        self,
        parent_context: Any,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Mapping[str, Any] | None = None,
        links: Sequence[Any] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        if kind is SpanKind.CLIENT:
            self.shown.append(dict(attributes or {}))
        return SamplingResult(Decision.RECORD_AND_SAMPLE, attributes)

    def get_description(self) -> str:
        return "looking"


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("/api/user/v1/upsert", "/api/user/v1/upsert"),
        ("/api/user/v1/jane@example.com?page=2&token=secret", "/api/user/v1/REDACTED?page=2&token=REDACTED"),
    ],
)
def test_a_sampler_is_shown_the_url_of_an_attempt_as_it_is_exported(sent: str, shown: str) -> None:
    """The conventions ask for ``url.full`` at the start: samplers drop by it what they would otherwise keep."""
    sampler, exporter, reader = Looking(), InMemorySpanExporter(), InMemoryMetricReader()
    tracer_provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    tracer_provider.add_span_processor(SimpleSpanProcessor(exporter))
    transport = InsiderTransport(
        httpx.MockTransport(lambda _: httpx.Response(200, json={})),
        tracer_provider=tracer_provider,
        meter_provider=MeterProvider([reader], shutdown_on_exit=False),
    )
    with httpx.Client(transport=transport) as client:
        client.get(HOST + sent)
    (seen,), (attempt, _) = sampler.shown, exporter.get_finished_spans()
    assert seen["url.full"] == HOST + shown
    assert attempt.attributes is not None
    assert attempt.attributes["url.full"] == HOST + shown
    metrics = reader.get_metrics_data()
    assert metrics is not None
    assert "url.full" not in metrics.to_json(), "each user would be a series of its own"
