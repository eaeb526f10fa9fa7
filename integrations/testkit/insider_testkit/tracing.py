"""What an app under test does to export its spans: the set-up that any app has, by the OTEL_* variables."""

from __future__ import annotations

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor


def export_spans() -> TracerProvider:
    """Export every span of this process, by OTLP over HTTP, to where the environment says; ``Receiver.environ`` does.

    Returns:
        The provider, which is the global one now.
    """
    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)
    return provider
