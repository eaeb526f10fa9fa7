"""Takes the metrics that an app exports by OTLP over HTTP; the test kit's receiver takes the spans."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric


@contextmanager
def metrics_receiver() -> Iterator[tuple[str, list[Metric]]]:
    """Run one on a free port: the value of ``OTEL_EXPORTER_OTLP_METRICS_ENDPOINT``, and every metric that came."""
    received: list[Metric] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            for resource in ExportMetricsServiceRequest.FromString(body).resource_metrics:
                received.extend(metric for scope in resource.scope_metrics for metric in scope.metrics)
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
            """Nobody reads it."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="metrics-receiver")
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/v1/metrics", received
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
