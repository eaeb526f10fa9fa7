"""Both families, sync and async, over one rig: every promise is kept four times."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import SpanProcessor

from insider_otel import AsyncInsiderTransport, InsiderTransport, Settings
from insider_otel.state.opening import PROCESS_STATE
from insider_otel.testing import FakeClock

from .wire import Wire, wire


@dataclass
class Flavour:
    """One of httpx and httpx2, sync or async, behind one blocking face."""

    module: Any
    is_async: bool

    @property
    def name(self) -> str:
        return f"{self.module.__name__}-{'async' if self.is_async else 'sync'}"

    @property
    def transport_class(self) -> Any:
        return self.module.AsyncHTTPTransport if self.is_async else self.module.HTTPTransport

    @property
    def client_class(self) -> Any:
        return self.module.AsyncClient if self.is_async else self.module.Client

    def answering(self, handler: Callable[[Any], Any]) -> Any:
        """A transport in process that answers with ``handler(request)``."""
        return self.module.MockTransport(handler)

    def body(self, *chunks: bytes, then: Callable[[], Any] = lambda: None) -> Any:
        """A body as it comes from the wire: not read before, and it counts how often it is closed.

        ``then`` is called after the last chunk, and awaited if it is async.
        """

        class Body(self.module.SyncByteStream, self.module.AsyncByteStream):  # type: ignore[misc, name-defined]
            closed = 0
            ended = False

            def __iter__(self) -> Iterator[bytes]:
                try:
                    yield from chunks
                    then()
                finally:
                    self.ended = True

            async def __aiter__(self) -> AsyncIterator[bytes]:
                try:
                    for chunk in chunks:
                        yield chunk
                    awaitable = then()
                    if awaitable is not None:
                        await awaitable
                finally:
                    self.ended = True

            def close(self) -> None:
                self.closed += 1

            async def aclose(self) -> None:
                self.closed += 1

        return Body()

    def using(self, use: Callable[[Any], Any], **options: Any) -> Any:
        """Open a client, let ``use`` make a request with it, close it; returns the response."""
        if not self.is_async:
            with self.client_class(**options) as client:
                return use(client)

        async def run() -> Any:
            async with self.client_class(**options) as client:
                return await use(client)

        return anyio.run(run)

    def post(self, url: str, *, transport: Any = None, client: dict[str, Any] | None = None, **options: Any) -> Any:
        """Post once with a client of its own."""
        more = {} if transport is None else {"transport": transport}
        return self.using(lambda opened: opened.post(url, **options), **more, **(client or {}))

    def stream(
        self, url: str, *, on_open: Callable[[Any], None] = lambda response: None, read: bool = True, **client: Any
    ) -> bytes:
        """Post with ``client.stream``; returns the raw bytes, if they are to be read."""
        if not self.is_async:
            with self.client_class(**client) as opened, opened.stream("POST", url, json={}) as response:
                on_open(response)
                return b"".join(response.iter_raw()) if read else b""

        async def run() -> bytes:
            async with self.client_class(**client) as opened, opened.stream("POST", url, json={}) as response:
                on_open(response)
                return b"".join([chunk async for chunk in response.aiter_raw()]) if read else b""

        return anyio.run(run)


ONE_QUICK_RETRY = Settings(quick_retries=1, quick_delay=0.5)
"""The quick retry of a rig comes after 0.25 s."""


@dataclass
class Rig:
    """A transport of ours with fake time and chance, and what it exported."""

    flavour: Flavour
    spans: Any
    clock: FakeClock
    random: Callable[[], float] = lambda: 0.5
    metrics: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def __post_init__(self) -> None:
        self.meter_provider = MeterProvider([self.metrics])

    def wrap(self, inner: Any = None, *, settings: Settings | None = None, **options: Any) -> Any:
        """Our transport round ``inner``."""
        inner = self.flavour.transport_class() if inner is None else inner
        transport_class = AsyncInsiderTransport if self.flavour.is_async else InsiderTransport
        sleep: Callable[[float], None] | Callable[[float], Awaitable[None]] = (
            self.clock.async_sleep if self.flavour.is_async else self.clock.sleep
        )
        return transport_class(
            inner,
            settings=settings or ONE_QUICK_RETRY,
            **{
                "tracer_provider": self.spans.tracer_provider,
                "meter_provider": self.meter_provider,
                "clock": self.clock,
                "sleep": sleep,
                "random": self.random,
                **options,
            },
        )

    def answers(self, *replies: Any, settings: Settings | None = None) -> Any:
        """Our transport round one that gives ``replies`` in turn: a status, a (status, json) or an exception class."""
        queue = list(replies)

        def handle(request: Any) -> Any:
            reply = queue.pop(0) if len(queue) > 1 else queue[0]
            module = self.flavour.module
            if isinstance(reply, str):
                raise getattr(module, reply)("of https://example.com/?token=secret", request=request)
            status, body = reply if isinstance(reply, tuple) else (reply, None)
            return module.Response(status) if body is None else module.Response(status, json=body)

        return self.wrap(self.flavour.answering(handle), settings=settings)

    def points(self, name: str) -> list[Any]:
        """The data points of one metric."""
        data = self.metrics.get_metrics_data()
        if data is None:
            return []
        return [
            point
            for resource in data.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == name
            for point in metric.data.data_points
        ]


class OpenSpans(SpanProcessor):
    """The names of the spans that were started and have not ended."""

    def __init__(self) -> None:
        self._open: dict[int, str] = {}

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        self._open[span.context.span_id] = span.name

    def on_end(self, span: Any) -> None:
        del self._open[span.context.span_id]

    def names(self) -> list[str]:
        return list(self._open.values())


def event_names(span: Any) -> list[str]:
    """The names of a span's events, in their order."""
    return [event.name for event in span.events]


@pytest.fixture(
    params=[
        pytest.param((httpx, False), id="httpx-sync"),
        pytest.param((httpx, True), id="httpx-async"),
        pytest.param((httpx2, False), id="httpx2-sync"),
        pytest.param((httpx2, True), id="httpx2-async"),
    ]
)
def flavour(request: pytest.FixtureRequest) -> Flavour:
    return Flavour(*request.param)


@pytest.fixture
def open_spans(insider_spans: Any) -> OpenSpans:
    spans = OpenSpans()
    insider_spans.tracer_provider.add_span_processor(spans)
    return spans


@pytest.fixture(autouse=True)
def nothing_is_shared_between_tests() -> None:
    """Transports by the process's own clock share budgets and closed pools, which is what the next test must not."""
    PROCESS_STATE.forget()


@pytest.fixture
def rig(flavour: Flavour, insider_spans: Any) -> Rig:
    return Rig(flavour, insider_spans, FakeClock())


@pytest.fixture
def server() -> Iterator[Wire]:
    with wire() as served:
        yield served
