"""An OTLP/HTTP receiver on a socket: what an app really exports, as plain objects and as trees."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

# Seconds; a busy machine may need many times what it needs at rest.
_PATIENCE = 60.0


@dataclass(frozen=True, slots=True)
class Event:
    """An event of a span."""

    name: str
    attributes: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Span:
    """A span as it was exported.

    Attributes:
        parent_id: Id of its parent; empty for none.
        kind: ``server``, ``client``, ``internal``, ``producer`` or ``consumer``.
        status: ``unset``, ``ok`` or ``error``.
        start: Nanoseconds since 1970; so is ``end``.
        scope: Name of the instrumentation that made it.
    """

    trace_id: str
    span_id: str
    parent_id: str
    name: str
    kind: str
    status: str
    description: str
    attributes: dict[str, Any]
    events: list[Event]
    start: int
    end: int
    scope: str
    resource: dict[str, Any]

    @property
    def summary(self) -> dict[str, Any]:
        """Its ``insider.request.*`` attributes, without that prefix."""
        prefix = "insider.request."
        return {key.removeprefix(prefix): value for key, value in self.attributes.items() if key.startswith(prefix)}

    def __str__(self) -> str:
        """In the words of ``CapturedSpans.tree()``, so that tests in process and over the wire read alike."""
        attributes = self.attributes
        if self.kind == "internal" and "insider.outcome" in attributes:
            return f"call {attributes['insider.operation']} {attributes['insider.outcome']}"
        if "insider.wait.reason" in attributes:
            return f"wait {attributes['insider.wait.reason']}"
        if self.kind == "client":
            result = attributes.get("http.response.status_code")
            if result is None:
                result = str(attributes.get("error.type", "unanswered")).rpartition(".")[2]
            return f"{self.name} {result}"
        return f"{self.kind} {self.name}"


@dataclass(frozen=True, slots=True)
class Tree:
    """A span and what was done in it."""

    span: Span
    children: list[Tree] = field(default_factory=list)

    def lines(self) -> list[str]:
        """One line for each span, a child two blanks further in than its parent, in order of their start."""
        return [str(self.span), *("  " + line for child in self.children for line in child.lines())]

    def spans(self) -> list[Span]:
        """Every span of it."""
        return [self.span, *(span for child in self.children for span in child.spans())]


class Receiver:
    """What was received.

    Attributes:
        port: Its port on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.port = port
        self._spans: list[Span] = []
        self._changed = threading.Condition()

    @property
    def url(self) -> str:
        """Its base URL: the value of ``OTEL_EXPORTER_OTLP_ENDPOINT``."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def environ(self) -> dict[str, str]:
        """The variables by which an app exports its spans here, soon, and nothing else."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.url,
            "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
            "OTEL_TRACES_EXPORTER": "otlp",
            "OTEL_METRICS_EXPORTER": "none",
            "OTEL_LOGS_EXPORTER": "none",
            "OTEL_BSP_SCHEDULE_DELAY": "50",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
        }

    def spans(self) -> list[Span]:
        """Every span so far, in the order in which they started."""
        with self._changed:
            return sorted(self._spans, key=lambda span: span.start)

    def trees(self) -> list[Tree]:
        """The traces so far. A span whose parent did not arrive, or is elsewhere, is a root."""
        return _trees(self.spans())

    def wait_for_trees(self, count: int, *, kind: str = "server", seconds: float = _PATIENCE) -> list[Tree]:
        """The traces, once so many roots of a kind are here.

        An exporter sends spans in the order of their end: with a root comes all that ended before it.

        Args:
            count: How many.
            kind: Their kind.
            seconds: How long to wait.

        Raises:
            AssertionError: They did not come in time, or more came; it says what did.
        """

        def roots() -> list[Tree]:
            return [tree for tree in self.trees() if tree.span.kind == kind]

        self.wait_until(lambda: len(roots()) >= count, seconds=seconds)
        found = roots()
        assert len(found) == count, f"{len(found)} traces instead of {count}:\n{self.describe()}"
        return found

    def wait_until(self, condition: Callable[[], bool], *, seconds: float = _PATIENCE) -> None:
        """Wait until something holds that depends on the spans.

        Raises:
            AssertionError: It did not in time; says what came.
        """
        ends = time.monotonic() + seconds
        while not condition():
            with self._changed:
                if not self._changed.wait(min(ends - time.monotonic(), 0.5)) and time.monotonic() >= ends:
                    break
        assert condition(), f"not within {seconds:g} s; what came:\n{self.describe()}"

    def describe(self) -> str:
        """All that came, as text."""
        return "\n".join(line for tree in self.trees() for line in tree.lines()) or "(nothing)"

    def clear(self) -> None:
        """Forget every span so far."""
        with self._changed:
            self._spans.clear()

    def take(self, body: bytes) -> None:
        """An export came."""
        spans = list(_read(ExportTraceServiceRequest.FromString(body)))
        with self._changed:
            self._spans += spans
            self._changed.notify_all()


@contextmanager
def otlp_receiver() -> Generator[Receiver]:
    """A receiver on a free port of 127.0.0.1, for the length of a ``with`` block."""
    server = _Server(("127.0.0.1", 0), _Handler)
    server.receiver = Receiver(server.server_address[1])
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), name="otlp-receiver", daemon=True)
    thread.start()
    try:
        yield server.receiver
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 128
    receiver: Receiver

    def handle_error(self, request: Any, client_address: Any) -> None:
        """An app that was stopped in the middle of an export is no error of ours."""


class _Handler(BaseHTTPRequestHandler):
    # HTTP/1.0: every export has a connection of its own, and none is left open at the end.
    protocol_version = "HTTP/1.0"
    server: _Server

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            self.server.receiver.take(body)
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002  (the base class's name)
        """Nobody reads it."""


def _read(request: ExportTraceServiceRequest) -> Iterable[Span]:
    for resource_spans in request.resource_spans:
        resource = _attributes(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Span(
                    trace_id=span.trace_id.hex(),
                    span_id=span.span_id.hex(),
                    parent_id=span.parent_span_id.hex(),
                    name=span.name,
                    kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
                    status=trace_pb2.Status.StatusCode.Name(span.status.code).removeprefix("STATUS_CODE_").lower(),
                    description=span.status.message,
                    attributes=_attributes(span.attributes),
                    events=[Event(event.name, _attributes(event.attributes)) for event in span.events],
                    start=span.start_time_unix_nano,
                    end=span.end_time_unix_nano,
                    scope=scope_spans.scope.name,
                    resource=resource,
                )


def _attributes(pairs: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in pairs}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(each) for each in value.array_value.values]
    if kind == "kvlist_value":
        return _attributes(value.kvlist_value.values)
    return None if kind is None else getattr(value, kind)


def _trees(spans: list[Span]) -> list[Tree]:
    trees = {span.span_id: Tree(span) for span in spans}
    roots: list[Tree] = []
    for tree in trees.values():
        parent = trees.get(tree.span.parent_id)
        (roots if parent is None else parent.children).append(tree)
    return roots
