"""The FastAPI shop, a fake Insider with a dial for its faults, and visitors: what compose.yaml runs."""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
import time
from pathlib import Path
from typing import Any

import httpx
import uvicorn
from fastapi import FastAPI, HTTPException
from opentelemetry import metrics, trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

from insider_otel.testing import FakeInsider

SHOP = Path(__file__).parent.parent.parent / "fastapi_shop"
CREDENTIALS = ("SHOP_INSIDER_PARTNER", "SHOP_INSIDER_TOKEN", "SHOP_INSIDER_KEY")
PRODUCT = {"id": "SKU1", "name": "Shoe", "price": 49.9}


def export() -> tuple[TracerProvider, MeterProvider]:
    """Send traces and metrics where ``OTEL_EXPORTER_OTLP_ENDPOINT`` says; nothing of it is insider-otel's."""
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", "shop")})
    tracing = TracerProvider(resource=resource)
    tracing.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracing)
    measuring = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], resource=resource)
    metrics.set_meter_provider(measuring)
    return tracing, measuring


def add_dial(app: FastAPI, fake: FakeInsider) -> None:
    """Let ``/dial`` say how Insider fares."""

    @app.put("/dial", include_in_schema=False)
    def turn(steps: str, operation: str = "*") -> str:
        """From now on the answers are these, again and again: ``503,ok`` fails every other request."""
        try:
            fake.script(operation, *steps.split(","), repeat=True)
        except ValueError as error:
            raise HTTPException(422, str(error)) from None
        return f"{operation}: {steps}"

    @app.delete("/dial", include_in_schema=False)
    def well() -> str:
        """Insider is well again, and has forgotten everything."""
        fake.reset()
        return "well"


class Visitors(threading.Thread):
    """Visitors of the shop, one after the other.

    Args:
        server: The shop's server; it ends after the last of them.
        number: How many there are; None for no end of them.
        pause: Seconds between two.
    """

    def __init__(self, server: uvicorn.Server, number: int | None, pause: float) -> None:
        super().__init__(name="visitors", daemon=True)
        self._server = server
        self._number = number
        self._pause = pause

    def run(self) -> None:
        """Go shopping."""
        while not self._server.started:
            time.sleep(0.05)
        port = self._server.servers[0].sockets[0].getsockname()[1]
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as browser:
            visit = 0
            while visit != self._number:
                visit += 1
                self._visit(browser, visit)
                time.sleep(self._pause)
        self._server.should_exit = True

    def _visit(self, browser: httpx.Client, visit: int) -> None:
        jane = f"jane{visit}@example.com"
        browser.post("/signup", json={"email": jane, "name": "Jane"})
        if visit % 2:
            browser.post("/orders", json={"number": f"A{visit}", "email": jane, "product": "SKU1", "price": 49.9})
        if visit % 20 == 1:
            # A product without an id: Insider takes the other one, and says so in an answer of 200.
            browser.post("/catalog", json=[PRODUCT, {**PRODUCT, "id": ""}])
        if random.random() < 0.3:
            browser.post("/codes", params={"phone": "+905550000001"})


def main() -> None:
    """Serve until Ctrl-C, or until the visitors have gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1", help="address of the shop (127.0.0.1)")
    parser.add_argument("--port", type=int, default=8000, help="port of the shop (8000); 0 for any")
    parser.add_argument("--visits", type=int, help="end after so many visitors; no end by default")
    parser.add_argument("--pause", type=float, default=0.5, help="seconds between two visitors (0.5)")
    options = parser.parse_args()
    fake = FakeInsider(keep=1)
    with fake.serve() as insider:
        os.environ["INSIDER_OTEL_HOSTS"] = json.dumps(insider.hosts)
        os.environ["SHOP_INSIDER_URL"] = insider.url
        for name in CREDENTIALS:
            os.environ.setdefault(name, "invented")
        providers: tuple[Any, ...] = export()
        sys.path.insert(0, str(SHOP))

        from shop import app  # noqa: PLC0415  (it reads the variables)

        add_dial(app, fake)
        FastAPIInstrumentor.instrument_app(app, exclude_spans=["receive", "send"])
        server = uvicorn.Server(uvicorn.Config(app, host=options.host, port=options.port, access_log=False))
        Visitors(server, options.visits, options.pause).start()
        server.run()
        for provider in providers:
            provider.shutdown()


if __name__ == "__main__":
    main()
