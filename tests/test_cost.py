"""What a call costs, counted in calls of functions and not in time, so that it is the same on every machine.

A change that makes the library do twice as much shows here. How long it takes is another question, and for the
benchmarks to say: a function of Python takes longer than one of C.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

import httpx
import pytest
from opentelemetry.instrumentation.httpx import SyncOpenTelemetryTransport
from opentelemetry.metrics import MeterProvider, NoOpMeterProvider
from opentelemetry.sdk.metrics import MeterProvider as SDKMeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider as SDKTracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, ALWAYS_ON
from opentelemetry.trace import NoOpTracerProvider, TracerProvider

from insider_otel import InsiderTransport
from insider_otel.testing import sample_request

pytestmark = pytest.mark.once

Providers = tuple[TracerProvider, MeterProvider]


class Instant(httpx.BaseTransport):
    """Answers in process."""

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json={"data": {"successful": {"count": 1}, "fail": {"count": 0}}})


def functions_called(transport: httpx.BaseTransport, url: str | None = None) -> int:
    """How many functions, of Python and C, a call through a client with this transport calls."""
    sample, counted = sample_request("user.upsert"), 0

    def count(_frame: FrameType, event: str, _argument: Any) -> None:
        nonlocal counted
        counted += event in {"call", "c_call"}

    with httpx.Client(transport=transport) as client:

        def call() -> None:
            client.post(url or sample.url, headers=sample.headers, content=sample.content)

        for _ in range(10):
            call()  # what is done once is done
        counts = []
        for _ in range(5):
            counted = 0
            sys.setprofile(count)
            try:
                call()
            finally:
                sys.setprofile(None)
            counts.append(counted)
    # The garbage collector may have called some functions of its own.
    return min(counts)


def sdk(sampler: Any) -> Providers:
    return SDKTracerProvider(sampler=sampler), SDKMeterProvider([InMemoryMetricReader()])


@pytest.mark.parametrize(
    ("providers", "at_most"),
    [
        pytest.param(lambda: sdk(ALWAYS_ON), 1.25, id="sampled"),
        pytest.param(lambda: sdk(ALWAYS_OFF), 1.05, id="not sampled"),
        pytest.param(lambda: (NoOpTracerProvider(), NoOpMeterProvider()), 0.8, id="no SDK"),
    ],
)
def test_a_call_calls_hardly_more_functions_than_with_the_stock_instrumentation(
    providers: Callable[[], Providers], at_most: float
) -> None:
    """Although there are two spans instead of one, a verdict and a slot of the rate limit."""
    tracers, meters = providers()
    bare = functions_called(Instant())
    stock = functions_called(SyncOpenTelemetryTransport(Instant(), tracer_provider=tracers, meter_provider=meters))
    ours = functions_called(InsiderTransport(Instant(), tracer_provider=tracers, meter_provider=meters))
    ratio = (ours - bare) / (stock - bare)
    assert ratio <= at_most, (bare, stock, ours)


def test_a_call_to_another_host_costs_next_to_nothing() -> None:
    url = "https://example.com/"
    assert functions_called(InsiderTransport(Instant()), url) - functions_called(Instant(), url) <= 10
