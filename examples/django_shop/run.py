"""The shop, a fake Insider and the traces, all on this machine: ``python examples/django_shop/run.py``.

``--visit`` sends a customer through the shop and ends. With ``OTEL_EXPORTER_OTLP_ENDPOINT`` the traces go there,
otherwise they are drawn here.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import tempfile
import threading
from collections import defaultdict
from pathlib import Path

import django
import httpx
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from opentelemetry import trace
from opentelemetry.instrumentation.django import DjangoInstrumentor
from opentelemetry.sdk.resources import SERVICE_NAME, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from insider_otel.cli.waterfall import waterfall
from insider_otel.testing import FakeInsider


class Drawn(SpanProcessor):
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


def set_up_tracing() -> TracerProvider:
    """What any app does that has traces; nothing of it is insider-otel's."""
    provider = TracerProvider(resource=Resource.create({SERVICE_NAME: "django-shop"}))
    if os.environ.get("OTEL_EXPORTER_OTLP_ENDPOINT"):
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415  (only if it is used)
            OTLPSpanExporter,
        )

        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    else:
        provider.add_span_processor(Drawn())
    trace.set_tracer_provider(provider)
    # It changes MIDDLEWARE, which Django reads when it makes the application.
    DjangoInstrumentor().instrument()
    return provider


def visit(url: str, fake: FakeInsider) -> None:
    """A customer goes through the shop, on a day when Insider's user API hiccups once.

    Args:
        url: The shop's.
        fake: The fake Insider; it knows the code that was sent.
    """
    jane = {"email": "jane@example.com", "phone": "+905550000001"}
    fake.script("user.upsert", "service_unavailable", "ok")
    with httpx.Client(base_url=url, timeout=10) as browser:

        def post(path: str, **form: str) -> None:
            answer = browser.post(path, data=form)
            print(f"\nPOST {path}: {answer.status_code} {answer.text.strip()}")

        post("/signup", **jane)
        post("/orders", email=jane["email"], sku="SKU1", number="1")
        post("/catalog")
        post("/code", phone=jane["phone"])
        post("/code/check", phone=jane["phone"], code="typo")
        post("/code/check", phone=jane["phone"], code=fake.code(jane["phone"]) or "")
        print(f"\nGET /health/insider/: {browser.get('/health/insider/').json()['status']}")


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=0, help="of the shop; any free one by default")
    parser.add_argument("--visit", action="store_true", help="send a customer through the shop, and end")
    options = parser.parse_args()
    fake = FakeInsider()
    with fake.serve() as served, tempfile.TemporaryDirectory() as directory:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "myshop.settings",
            "INSIDER_OTEL_HOSTS": json.dumps(served.hosts),
            "SHOP_DATABASE": str(Path(directory, "shop.sqlite3")),
            "SHOP_INSIDER_URL": served.url,
        }
        provider = set_up_tracing()
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        server = ThreadedWSGIServer(("127.0.0.1", options.port), WSGIRequestHandler)
        server.set_app(get_wsgi_application())
        logging.getLogger("django.server").setLevel(logging.WARNING)
        url = f"http://127.0.0.1:{server.server_port}"
        print(f"The shop is at {url}, a fake Insider at {served.url}", flush=True)
        thread = threading.Thread(target=server.serve_forever, name="shop")
        thread.start()
        try:
            if options.visit:
                visit(url, fake)
            else:
                print(f"Try: curl {url}/signup -d email=jane@example.com -d phone=%2B905550000001   (Ctrl-C ends)")
                thread.join()
        except KeyboardInterrupt:
            pass
        finally:
            server.shutdown()
            thread.join()
            server.server_close()
    provider.shutdown()


if __name__ == "__main__":
    main()
