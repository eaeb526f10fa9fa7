"""Start the shop and a fake Insider, and print each page's trace: python examples/fastapi_shop/run.py"""

from __future__ import annotations

import argparse
import json
import os
from typing import Any

import uvicorn
from opentelemetry import trace
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.trace import SpanProcessor
from opentelemetry.trace import SpanKind

from insider_otel.testing import CapturedSpans, FakeInsider

CREDENTIALS = ("SHOP_INSIDER_PARTNER", "SHOP_INSIDER_TOKEN", "SHOP_INSIDER_KEY")
SUMMARY = "insider.request."


class PrintTraces(SpanProcessor):
    """Prints what has ended since the last page, at the end of each page and each background task."""

    def __init__(self, spans: CapturedSpans) -> None:
        self._spans = spans

    def on_end(self, span: Any) -> None:
        """A span ended; those in it have ended before."""
        if span.kind is not SpanKind.SERVER and not span.name.startswith("BackgroundTask"):
            return
        print(*self._spans.tree(), sep="\n")
        summary = {key.removeprefix(SUMMARY): value for key, value in span.attributes.items() if SUMMARY in key}
        if summary:
            print("  insider.request:", *(f"{name}={value}" for name, value in summary.items()))
        print(flush=True)
        self._spans.clear()


def trace_to_terminal() -> None:
    """Print every trace; and export it, if the environment says where to."""
    spans = CapturedSpans()
    spans.tracer_provider.add_span_processor(PrintTraces(spans))
    if "OTEL_EXPORTER_OTLP_ENDPOINT" in os.environ:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  (only who exports needs it)
            OTLPSpanExporter,
        )
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415

        spans.tracer_provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(spans.tracer_provider)


def main() -> None:
    """Serve until Ctrl+C."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8000, help="port of the shop (8000); 0 for any")
    port = parser.parse_args().port
    fake = FakeInsider()
    # The first sign-up meets an Insider that has the hiccups.
    fake.script("user.upsert", "service_unavailable")
    with fake.serve() as insider:
        os.environ["INSIDER_OTEL_HOSTS"] = json.dumps(insider.hosts)
        os.environ["SHOP_INSIDER_URL"] = insider.url
        for name in CREDENTIALS:
            os.environ.setdefault(name, "invented")
        trace_to_terminal()

        from shop import app  # noqa: PLC0415  (it reads the variables)

        @app.get("/fake/code", include_in_schema=False)
        def code(phone: str) -> str | None:
            """What the SMS would say."""
            return fake.code(phone)

        FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])
        uvicorn.run(app, host="127.0.0.1", port=port, access_log=False)


if __name__ == "__main__":
    main()
