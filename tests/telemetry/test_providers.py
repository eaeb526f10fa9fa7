"""Providers are other people's objects: they need have no hash, and may say that they are equal to one another."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import SpanKind

from insider_otel import InsiderTransport
from insider_otel.http.scope import open_scope, within
from insider_otel.telemetry.metrics import observe_utilization
from insider_otel.telemetry.server_span import watch_server_spans
from insider_otel.testing import CapturedSpans, FakeInsider

ROOT = Path(__file__).parents[2]
UTILIZATION = "insider.client.rate_limit.utilization"


@dataclass
class Meters(metrics.MeterProvider):
    """Passes on to another provider; a dataclass, as Logfire's is: without a hash, and equal to others."""

    reader: InMemoryMetricReader = field(default_factory=InMemoryMetricReader, compare=False)

    def __post_init__(self) -> None:
        self.provider = MeterProvider([self.reader], shutdown_on_exit=False)

    def get_meter(self, *arguments: Any, **more: Any) -> metrics.Meter:
        return self.provider.get_meter(*arguments, **more)


@dataclass
class Tracers(trace.TracerProvider):
    """The same for spans; it counts who looks at them."""

    provider: Any
    processors: int = 0

    def get_tracer(self, *arguments: Any, **more: Any) -> trace.Tracer:
        tracer: trace.Tracer = self.provider.get_tracer(*arguments, **more)
        return tracer

    def add_span_processor(self, processor: Any) -> None:
        self.processors += 1
        self.provider.add_span_processor(processor)


@dataclass(eq=False)
class Pools:
    """Something that is measured."""

    pool: str
    used: float = 0.5

    def utilization(self) -> Iterator[tuple[str, float]]:
        yield self.pool, self.used


def utilization(reader: InMemoryMetricReader) -> dict[str, float]:
    """What a provider exports: by pool, the share that is used."""
    data = reader.get_metrics_data()
    return {
        str((point.attributes or {})["insider.pool"]): point.value  # type: ignore[union-attr]
        for resource in (data.resource_metrics if data else ())
        for scope in resource.scope_metrics
        for metric in scope.metrics
        if metric.name == UTILIZATION
        for point in metric.data.data_points
    }


def test_a_transport_takes_providers_without_a_hash(insider_spans: CapturedSpans) -> None:
    tracers, meters = Tracers(insider_spans.tracer_provider), Meters()
    with pytest.raises(TypeError):
        hash(meters)
    InsiderTransport(FakeInsider().transport(), tracer_provider=tracers, meter_provider=meters)


def test_each_of_two_equal_providers_has_gauges_of_its_own() -> None:
    one, other = Meters(), Meters()
    assert one == other
    mails, messages, more = Pools("mail.send"), Pools("sms.send"), Pools("user.upsert")
    observe_utilization(one, mails)
    observe_utilization(other, messages)
    observe_utilization(other, more)
    assert utilization(one.reader) == {"mail.send": 0.5}
    assert utilization(other.reader) == {"sms.send": 0.5, "user.upsert": 0.5}


def test_a_provider_in_the_place_of_one_that_is_gone_has_gauges_too() -> None:
    pools = Pools("mail.send")
    for _ in range(20):
        # Each is where the last one was, as often as not.
        meters = Meters()
        observe_utilization(meters, pools)
        assert utilization(meters.reader) == {"mail.send": 0.5}
        del meters


def test_gauges_tell_of_what_came_before_the_global_provider_was_set_and_of_what_came_after() -> None:
    """In a process of its own: what is global can be set once."""
    script = """
from opentelemetry import metrics
from opentelemetry.sdk.metrics import MeterProvider
from tests.telemetry.test_providers import InMemoryMetricReader, Pools, observe_utilization, utilization

before, after, named, by_stand_in = Pools("mail.send"), Pools("sms.send"), Pools("user.upsert"), Pools("user.delete")
stand_in, reader = metrics.get_meter_provider(), InMemoryMetricReader()
observe_utilization(None, before)
metrics.set_meter_provider(MeterProvider([reader]))
observe_utilization(None, after)
observe_utilization(metrics.get_meter_provider(), named)
observe_utilization(stand_in, by_stand_in)
print(sorted(utilization(reader)))
"""
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, cwd=ROOT)
    assert done.stdout.strip() == "['mail.send', 'sms.send', 'user.delete', 'user.upsert']", done.stderr


def test_the_server_span_is_found_by_a_provider_without_a_hash_which_is_watched_once(
    insider_spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other = Tracers(insider_spans.tracer_provider), Tracers(insider_spans.tracer_provider)
    for tracers in (one, other):
        monkeypatch.setattr("insider_otel.telemetry.server_span.get_tracer_provider", lambda here=tracers: here)
        watch_server_spans()
        scope = open_scope(5)
        with (
            within(scope),
            tracers.get_tracer("framework").start_as_current_span("GET /", kind=SpanKind.SERVER) as span,
        ):
            assert scope.server_span is span
    assert (one.processors, other.processors) == (1, 1)
