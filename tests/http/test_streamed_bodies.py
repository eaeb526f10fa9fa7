"""A body that is made while it is sent: what makes it is the app's own code, and its requests are no part of ours."""

from __future__ import annotations

import traceback
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from opentelemetry import context
from opentelemetry.instrumentation.utils import is_http_instrumentation_enabled, suppress_http_instrumentation
from opentelemetry.trace import get_current_span

from insider_otel import Settings

from .conftest import Rig
from .stock import stock_of, uninstrument_all
from .test_calls import OK, UPSERT
from .wire import Wire

READ = "https://unification.useinsider.com/api/user/v1/profile"


@pytest.fixture(autouse=True)
def nothing_stays_instrumented() -> Iterator[None]:
    yield
    uninstrument_all()


def body_of(rig: Rig, *makers: Callable[[], Any]) -> Any:
    """A generator that makes each of its chunks by a function."""

    def chunks() -> Iterator[bytes]:
        for make in makers:
            yield make()

    async def async_chunks() -> AsyncIterator[bytes]:
        for make in makers:
            made = make()
            yield made if isinstance(made, bytes) else await made

    return async_chunks() if rig.flavour.is_async else chunks()


def fetching(client: Any, url: str) -> Callable[[], Any]:
    """What makes a chunk of the answer of somebody else."""

    def fetch() -> Any:
        return client.get(url).content

    async def fetch_async() -> Any:
        return (await client.get(url)).content

    return fetch_async if hasattr(client, "aclose") else fetch


def send(rig: Rig, transport: Any, makers: Callable[[Any], list[Callable[[], Any]]]) -> Any:
    """Post a body that is made, among others, with the client that sends it."""
    return rig.flavour.using(
        lambda client: client.post(UPSERT, content=body_of(rig, *makers(client))), transport=transport
    )


def test_what_a_body_is_fetched_from_is_traced_and_gets_trace_headers(rig: Rig, server: Wire) -> None:
    stock_of(rig.flavour).instrument(tracer_provider=rig.spans.tracer_provider)
    crm = f"http://localhost:{server.port}/crm"
    transport = rig.wrap(settings=Settings(hosts={server.address: "unification.useinsider.com"}))
    rig.flavour.using(
        lambda client: client.post(
            server.url + "/api/user/v1/upsert", content=body_of(rig, lambda: b"[", fetching(client, crm), lambda: b"]")
        ),
        transport=transport,
    )
    _, attempt, fetched = rig.spans.all()
    assert (fetched.name, attempt.name) == ("GET", "POST /api/user/v1/upsert")
    assert fetched.parent.span_id == attempt.context.span_id
    headers = {seen.target: seen.headers["traceparent"].split("-")[2] for seen in server.seen}
    assert headers == {
        "/crm": f"{fetched.context.span_id:016x}",
        "/api/user/v1/upsert": f"{attempt.context.span_id:016x}",
    }


def test_the_calls_that_make_a_body_are_calls_too(rig: Rig) -> None:
    def handle(request: Any) -> Any:
        assert not is_http_instrumentation_enabled(), "below an attempt others keep silent"
        return rig.flavour.module.Response(OK[0], json=OK[1])

    transport = rig.wrap(rig.flavour.answering(handle))
    send(rig, transport, lambda client: [fetching(client, f"{READ}?page={page}") for page in (1, 2)])
    assert [span.kind.name for span in rig.spans.all()] == ["INTERNAL", "CLIENT"] * 3
    assert sum(point.count for point in rig.points("insider.client.call.duration")) == 3


def test_an_app_that_wants_no_spans_gets_none_of_its_body_either(rig: Rig) -> None:
    transport = rig.answers(OK)
    with suppress_http_instrumentation():
        send(rig, transport, lambda client: [fetching(client, READ)])
    assert rig.spans.all() == []


def test_a_file_that_fetches_what_is_read_of_it_is_the_apps_too(rig: Rig) -> None:
    class Remote:
        """As that of a library for buckets."""

        def __init__(self) -> None:
            self.read_as: list[bool] = []

        def read(self, size: int = -1) -> bytes:
            self.read_as.append(is_http_instrumentation_enabled())
            return b"" if len(self.read_as) > 1 else b"a,b"

    remote = Remote()
    rig.flavour.post(UPSERT, transport=rig.answers(OK), files={"file": ("users.csv", remote)})
    assert remote.read_as
    assert all(remote.read_as)


def test_a_span_that_a_body_opens_stays_open_from_chunk_to_chunk(rig: Rig) -> None:
    tracer = rig.spans.tracer_provider.get_tracer("shop")
    seen: list[Any] = []

    def look() -> bytes:
        seen.append((get_current_span(), is_http_instrumentation_enabled()))
        return b"x"

    def chunks() -> Iterator[bytes]:
        with tracer.start_as_current_span("export"):
            yield look()
            yield look()
        yield look()

    async def async_chunks() -> AsyncIterator[bytes]:
        for chunk in chunks():
            yield chunk

    before = context.get_current()
    rig.flavour.post(UPSERT, transport=rig.answers(OK), content=async_chunks() if rig.flavour.is_async else chunks())
    assert context.get_current() is before
    assert [(span.name, enabled) for span, enabled in seen] == [
        ("export", True),
        ("export", True),
        ("POST /api/user/v1/upsert", True),
    ]


def test_a_body_that_breaks_breaks_the_call_with_its_own_error(rig: Rig) -> None:
    def broken() -> bytes:
        raise LookupError("no such page")

    with pytest.raises(LookupError, match="no such page") as raised:
        send(rig, rig.answers(OK), lambda client: [lambda: b"jane@example.com", broken])
    ours = [frame.f_locals for frame, _ in traceback.walk_tb(raised.tb) if "insider_otel" in frame.f_code.co_filename]
    assert ours
    assert b"jane@example.com" not in [value for variables in ours for value in variables.values()]
    assert [span.attributes["error.type"] for span in rig.spans.attempts()] == ["LookupError"]


def test_what_sends_finds_a_stream_of_its_own_kind(rig: Rig) -> None:
    module = rig.flavour.module

    def handle(request: Any) -> Any:
        kinds.append((isinstance(streams[0], module.SyncByteStream), isinstance(streams[0], module.AsyncByteStream)))
        return module.Response(200, json={})

    class Below(module.AsyncBaseTransport if rig.flavour.is_async else module.BaseTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            streams.append(request.stream)
            return rig.flavour.answering(handle).handle_request(request)

        async def handle_async_request(self, request: Any) -> Any:
            streams.append(request.stream)
            return await rig.flavour.answering(handle).handle_async_request(request)

    streams: list[Any] = []
    kinds: list[tuple[bool, bool]] = []
    send(rig, rig.wrap(Below()), lambda client: [lambda: b"{}"])
    assert kinds == [(not rig.flavour.is_async, rig.flavour.is_async)]


def test_a_stream_that_is_its_own_iterator_stays_open(rig: Rig) -> None:
    """As files in asynchronous libraries are: the app may send it again, after a redirect for instance."""
    module = rig.flavour.module

    class File(module.SyncByteStream, module.AsyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            self.left = [b"[", b"]"]
            self.is_open = True

        def __iter__(self) -> File:
            return self

        def __next__(self) -> bytes:
            if not self.left:
                raise StopIteration
            return self.left.pop(0)

        def __aiter__(self) -> File:
            return self

        async def __anext__(self) -> bytes:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

        def close(self) -> None:
            self.is_open = False

        async def aclose(self) -> None:
            self.is_open = False

    file = File()
    request = module.Request("POST", UPSERT, stream=file)
    rig.flavour.using(lambda client: client.send(request), transport=rig.answers(200))
    assert (file.left, file.is_open) == ([], True)
