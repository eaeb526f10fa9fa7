"""`insider-otel demo` sends its traces and metrics where it is told, and says what did not arrive."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from .demo_process import SECRETS, demo, scenes


@dataclass
class Collector:
    """Takes OTLP over HTTP.

    Attributes:
        url: Its address.
        refuses: Paths that it does not take, with the status of its answer.
        bodies: What it was sent, by path.
    """

    url: str
    refuses: Mapping[str, int]
    bodies: dict[str, list[bytes]] = field(default_factory=dict)

    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies.get("/v1/traces", [])]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def services(self) -> set[str]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies.get("/v1/traces", [])]
        return {
            attribute.value.string_value
            for request in requests
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }

    def metrics(self) -> set[str]:
        requests = [ExportMetricsServiceRequest.FromString(body) for body in self.bodies.get("/v1/metrics", [])]
        return {
            metric.name
            for request in requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@contextmanager
def collector(**refuses: int) -> Iterator[Collector]:
    """A collector on a free port; ``metrics=404`` is one that takes traces only, as Jaeger does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = taken.refuses.get(self.path, 200)
            if status == 200:
                taken.bodies.setdefault(self.path, []).append(body)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        taken = Collector(
            f"http://127.0.0.1:{server.server_port}", {f"/v1/{name}": status for name, status in refuses.items()}
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield taken
        finally:
            server.shutdown()
            thread.join()


def test_the_traces_it_shows_are_the_traces_it_sends() -> None:
    with collector() as there:
        done = demo("--scenario", "quick-retry", "--scenario", "lost-records", OTEL_EXPORTER_OTLP_ENDPOINT=there.url)
        assert (done.returncode, done.stderr) == (0, "")
        traces: dict[str, list[Span]] = {}
        for span in there.spans():
            traces.setdefault(span.trace_id.hex(), []).append(span)
        assert set(traces) == set(re.findall(r"  \S+ +([0-9a-f]{32})\n", done.stdout))
        healed, lost = traces.values()
        assert tree(healed) == [
            "POST /signup",
            "  insider user.upsert",
            "    POST /api/user/v1/upsert",
            "    insider wait",
            "    POST /api/user/v1/upsert",
        ]
        assert tree(lost) == ["POST /import", "  insider user.upsert", "    POST /api/user/v1/upsert"]
        assert there.services() == {"insider-otel-demo"}
        assert there.metrics() >= {"http.client.request.duration", "insider.client.retries", "insider.client.records"}
        sent = b"".join(body for bodies in there.bodies.values() for body in bodies)
        assert [secret for secret in SECRETS if secret.encode() in sent] == []


def tree(spans: list[Span]) -> list[str]:
    """The names of spans, each below its parent, in the order of their start."""
    lines: list[str] = []

    def add(parent: bytes, depth: int) -> None:
        for span in sorted(spans, key=lambda span: span.start_time_unix_nano):
            if span.parent_span_id == parent:
                lines.append("  " * depth + span.name)
                add(span.span_id, depth + 1)

    add(b"", 0)
    return lines


def test_it_says_where_to_look() -> None:
    with collector() as there:
        done = demo("--scenario", "otp-typo", OTEL_EXPORTER_OTLP_ENDPOINT=there.url + "/", OTEL_SERVICE_NAME="my-shop")
        assert done.returncode == 0
        assert there.services() == {"my-shop"}
        assert f"Sending 1 trace to {there.url}/v1/traces\n" in done.stdout
        assert "Jaeger   Search: service my-shop, tags insider.operation=verify.check\n" in done.stdout
        assert 'Tempo    { resource.service.name = "my-shop" && span.insider.operation != nil }\n' in done.stdout
        assert f"The metrics are at {there.url}/v1/metrics.\n" in done.stdout


def test_a_place_for_traces_alone_is_good_enough() -> None:
    """Jaeger and Tempo take no metrics, and everybody sets the one variable for them."""
    with collector(metrics=404) as there:
        done = demo("--scenario", "success", OTEL_EXPORTER_OTLP_ENDPOINT=there.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(there.spans()) == 3
        assert f"No metrics were taken at {there.url}/v1/metrics" in done.stdout


def test_metrics_that_were_to_go_to_a_place_of_their_own_must_arrive() -> None:
    with collector(metrics=404) as there:
        done = demo(
            "--scenario",
            "success",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{there.url}/v1/traces",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{there.url}/v1/metrics",
        )
        assert done.returncode == 1
        assert f"insider-otel: the metrics did not reach {there.url}/v1/metrics: " in done.stderr


def test_without_a_place_for_metrics_none_are_sent() -> None:
    with collector() as there:
        done = demo("--scenario", "success", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{there.url}/v1/traces")
        assert (done.returncode, done.stderr) == (0, "")
        assert list(there.bodies) == ["/v1/traces"]


def test_an_endpoint_where_nothing_listens_is_one_line_and_exit_1() -> None:
    """All is shown before, and neither a stack trace nor a password."""
    with socket.socket() as deaf:
        # Nobody else can have the port, and nobody listens on it.
        deaf.bind(("127.0.0.1", 0))
        port = deaf.getsockname()[1]
        done = demo(
            "--scenario",
            "success",
            OTEL_EXPORTER_OTLP_ENDPOINT=f"http://me:my-password@127.0.0.1:{port}",
            OTEL_EXPORTER_OTLP_TIMEOUT="1",
        )
    assert done.returncode == 1
    assert list(scenes(done.stdout)) == ["success"]
    assert done.stderr == (
        f"insider-otel: the traces did not reach http://127.0.0.1:{port}/v1/traces: "
        "nothing answers there: Connection refused (OTEL_EXPORTER_OTLP_ENDPOINT)\n"
    )
    assert "my-password" not in done.stdout


def test_an_endpoint_that_does_not_take_traces_is_one_line_and_exit_1() -> None:
    with collector(traces=400) as there:
        done = demo("--scenario", "success", OTEL_EXPORTER_OTLP_ENDPOINT=there.url)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "It has to speak OTLP over HTTP, usually on port 4318, not 4317" in done.stderr
