"""What the shops' ``run.py`` have in common, and no real shop has: a fake Insider, drawn traces, a customer."""

from __future__ import annotations

import argparse
import os
import threading
from collections import defaultdict
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import httpx
from opentelemetry import trace
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from insider_otel.cli.waterfall import waterfall
from insider_otel.testing import FakeInsider
from insider_otel.testing.server import ServedFake


def run(name: str, start: Callable[[ServedFake, int], AbstractContextManager[Any]]) -> None:
    """Run a shop with a fake Insider beside it, until Ctrl-C, or for one customer with ``--visit``.

    Args:
        name: Its name in the traces.
        start: Makes the shop's WSGI server, which sends to a fake Insider and listens on a port; 0 for any that is
            free.
    """
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0, help="of the shop; any free one by default")
    parser.add_argument("--visit", action="store_true", help="send a customer through the shop, and end")
    options = parser.parse_args()
    fake = FakeInsider()
    with _tracing(name), fake.serve() as served, start(served, options.port) as server:
        url = f"http://127.0.0.1:{server.server_port}"
        print(f"The shop is at {url}, a fake Insider at {served.url}", flush=True)
        thread = threading.Thread(target=server.serve_forever, name="shop")
        thread.start()
        try:
            if options.visit:
                _visit(url, fake)
            else:
                print(f"Try: curl {url}/signup -d email=jane@example.com -d phone=%2B905550000001   (Ctrl-C ends)")
                thread.join()
        except KeyboardInterrupt:
            pass
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


@contextmanager
def _tracing(name: str) -> Generator[None]:
    """What any app does that has traces; nothing of it is insider-otel's."""
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: name}))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  (only if it is used)
            OTLPSpanExporter,
        )

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    else:
        provider.add_span_processor(_Drawn())
    trace.set_tracer_provider(provider)
    try:
        yield
    finally:
        provider.shutdown()


class _Drawn(SpanProcessor):
    """Draws each trace when its server span ends."""

    def __init__(self) -> None:
        self._spans: dict[int, list[ReadableSpan]] = defaultdict(list)

    def on_end(self, span: ReadableSpan) -> None:
        """A span ended."""
        self._spans[span.context.trace_id].append(span)
        if span.kind is trace.SpanKind.SERVER:
            spans = self._spans.pop(span.context.trace_id)
            summary = {
                name.removeprefix("insider.request."): value
                for name, value in (span.attributes or {}).items()
                if name.startswith("insider.request.") and value
            }
            print("", *waterfall(spans), f"insider.request.*: {summary}", sep="\n", flush=True)


def _visit(url: str, fake: FakeInsider) -> None:
    """A customer goes through the shop, on a day when Insider's user API hiccups once."""
    jane = {"email": "jane@example.com", "phone": "+905550000001"}
    fake.script("user.upsert", "service_unavailable", "ok")
    with httpx.Client(base_url=url, timeout=60) as browser:

        def post(path: str, **form: str) -> None:
            answer = browser.post(path, data=form)
            print(f"\nPOST {path}: {answer.status_code} {answer.text.strip()}")

        post("/signup", **jane)
        post("/orders", email=jane["email"], sku="SKU1", number="1")
        post("/catalog")
        post("/code", phone=jane["phone"])
        post("/code/check", phone=jane["phone"], code="typo")
        post("/code/check", phone=jane["phone"], code=fake.code(jane["phone"]) or "")
        print(f"\nGET /health/insider: {browser.get('/health/insider').json()['status']}")
