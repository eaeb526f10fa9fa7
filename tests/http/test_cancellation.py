"""Calls that the app gives up: by cancelling a task, by a timeout of its own, by Ctrl-C."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.trace import StatusCode

from insider_otel import Settings, call_of, request_scope
from insider_otel.testing import FakeClock

from .conftest import Flavour, OpenSpans, Rig
from .test_calls import UPSERT
from .wire import Reply, Wire

LONG = b"[" + b"1," * 200_000
"""The first part of a body that is longer than what is read for a verdict."""


class Stage:
    """The place where the app gives up: a sync call is interrupted there, an async one hangs there."""

    def __init__(self) -> None:
        self.reached = anyio.Event()

    def interrupt(self, seconds: float = 0.0) -> None:
        raise KeyboardInterrupt

    async def hang(self, seconds: float = 0.0) -> None:
        assert not self.reached.is_set(), "the place is reached once"
        self.reached.set()
        await anyio.sleep_forever()


# -- who gives up ------------------------------------------------------------------------------------------------------

Call = Callable[[], Coroutine[Any, Any, None]]


async def by_task_cancel(call: Call, stage: Stage) -> None:
    task = asyncio.ensure_future(call())
    await stage.reached.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


async def by_asyncio_timeout(call: Call, stage: Stage) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(None) as limit:
            limits.append(limit)
            await call()

    limits: list[asyncio.Timeout] = []
    task = asyncio.ensure_future(bounded())
    await stage.reached.wait()
    limits[0].reschedule(0)
    with pytest.raises(TimeoutError):
        await task


async def by_cancel_scope(call: Call, stage: Stage) -> None:
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await stage.reached.wait()
        tasks.cancel_scope.cancel()


@dataclass
class Way:
    """A way to give a call up. A sync call has one: Ctrl-C."""

    module: Any
    backend: str = ""
    give_up: Callable[[Call, Stage], Awaitable[None]] | None = None

    @property
    def flavour(self) -> Flavour:
        return Flavour(self.module, is_async=self.give_up is not None)


ASYNC_WAYS = [
    pytest.param(Way(module, backend, give_up), id=f"{module.__name__}-{backend}-{give_up.__name__}")
    for module in (httpx, httpx2)
    for backend, give_up in (("asyncio", by_task_cancel), ("asyncio", by_asyncio_timeout), ("trio", by_cancel_scope))
]
SYNC_WAYS = [pytest.param(Way(module), id=f"{module.__name__}-by_ctrl_c") for module in (httpx, httpx2)]


# -- where it is given up ----------------------------------------------------------------------------------------------


@dataclass
class Place:
    """Where the app gives up (``sending``, ``body``, ``sleep`` or ``sending again``), and what it got before."""

    where: str
    status: int = 200
    chunk: bytes = b"{}"

    @property
    def errors(self) -> list[str | None]:
        """The ``error.type`` of each attempt: to give up is none; a 503 that came before is one."""
        before: list[str | None] = ["503"] if self.status == 503 else []
        return before if self.where == "sleep" else [*before, None]


PLACES = [
    pytest.param(Place("sending"), id="sending"),
    pytest.param(Place("sending again", status=503, chunk=LONG), id="sending again after a long answer"),
    pytest.param(Place("body", chunk=b'{"data": '), id="reading the answer"),
    pytest.param(Place("body", chunk=LONG), id="reading the rest of a long answer"),
    pytest.param(Place("sleep", status=503), id="waiting"),
    pytest.param(Place("sleep", status=503, chunk=LONG), id="waiting, a long answer unread"),
]


def transport_of(way: Way, place: Place, stage: Stage, rig: Rig) -> tuple[Any, list[Any]]:
    """Our transport, and the bodies of the answers that it gets."""
    flavour, bodies = way.flavour, list[Any]()
    stop = stage.hang if flavour.is_async else stage.interrupt

    def hangs() -> bool:
        return place.where == "sending" or (place.where == "sending again" and bool(bodies))

    def answer(request: Any) -> Any:
        if hangs() and not flavour.is_async:
            stage.interrupt()
        body = flavour.body(place.chunk, **({"then": stop} if place.where == "body" else {}))
        bodies.append(body)
        return way.module.Response(place.status, stream=body)

    async def answer_async(request: Any) -> Any:
        if hangs():
            await stage.hang()
        return answer(request)

    more: dict[str, Any] = {"sleep": stop} if place.where == "sleep" else {}
    return rig.wrap(flavour.answering(answer_async if flavour.is_async else answer), **more), bodies


def give_up(way: Way, place: Place, rig: Rig) -> list[Any]:
    """Make a call and give it up there; the app's own trace context is then back. Returns the answers' bodies."""
    left_in: list[Any] = []

    async def run() -> list[Any]:
        assert way.give_up is not None
        stage = Stage()
        transport, bodies = transport_of(way, place, stage, rig)

        async def call() -> None:
            async with way.module.AsyncClient(transport=transport) as client:
                try:
                    await client.post(UPSERT, json={})
                finally:
                    left_in.append(trace.get_current_span())

        with anyio.fail_after(10):
            await way.give_up(call, stage)
        return bodies

    if way.flavour.is_async:
        bodies = anyio.run(run, backend=way.backend)
    else:
        transport, bodies = transport_of(way, place, Stage(), rig)
        with pytest.raises(KeyboardInterrupt):
            way.flavour.post(UPSERT, transport=transport, json={})
        left_in.append(trace.get_current_span())
    assert left_in == [trace.INVALID_SPAN]
    return bodies


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("way", [*SYNC_WAYS, *ASYNC_WAYS])
def test_a_call_that_is_given_up_is_cancelled_and_nothing_of_it_stays_open(
    way: Way, place: Place, insider_spans: Any, open_spans: OpenSpans
) -> None:
    """What catches ``Exception`` only leaves spans open, answers unclosed and calls uncounted."""
    rig = Rig(way.flavour, insider_spans, FakeClock())
    with request_scope() as scope:
        bodies = give_up(way, place, rig)

    assert open_spans.names() == []
    (call,), attempts = rig.spans.calls(), rig.spans.attempts()
    assert (call.attributes["insider.outcome"], call.attributes["insider.attempts"]) == ("cancelled", len(place.errors))
    assert "error.type" not in call.attributes
    assert call.status.status_code is StatusCode.UNSET
    assert [attempt.attributes.get("error.type") for attempt in attempts] == place.errors
    for attempt, error in zip(attempts, place.errors, strict=True):
        assert attempt.status.status_code is (StatusCode.ERROR if error else StatusCode.UNSET)

    assert [body.closed for body in bodies] == ([] if place.where == "sending" else [1])

    summary = scope.summary()
    assert (summary["insider.request.calls"], summary["insider.request.failed_calls"]) == (1, 0)
    (duration,) = rig.points("insider.client.call.duration")
    assert (duration.count, duration.attributes["insider.outcome"]) == (1, "cancelled")
    requests = rig.points("http.client.request.duration")
    assert {point.attributes.get("error.type"): point.count for point in requests} == dict.fromkeys(place.errors, 1)


# -- on a real socket --------------------------------------------------------------------------------------------------

# httpcore's own iterators of a body that nobody reads to its end are left to the garbage collector; trio minds.
IGNORE_HTTPCORES_OWN = pytest.mark.filterwarnings(r"ignore:Async generator 'httpcore:ResourceWarning")


def test_a_wait_that_is_given_up_counts_for_as_long_as_it_was(rig: Rig) -> None:
    """Insider asks for two minutes, and the app has had enough after three seconds."""

    def give_up(seconds: float) -> None:
        assert seconds >= 120
        rig.clock.advance(3.0)
        raise KeyboardInterrupt

    async def give_up_async(seconds: float) -> None:
        give_up(seconds)

    module = rig.flavour.module
    busy = rig.flavour.answering(lambda request: module.Response(503, json={}, headers={"retry-after": "120"}))
    transport = rig.wrap(busy, sleep=give_up_async if rig.flavour.is_async else give_up, settings=Settings())
    with pytest.raises(KeyboardInterrupt):
        rig.flavour.post(UPSERT, transport=transport, json={})
    (waited,) = rig.points("insider.client.wait.duration")
    (lasted,) = rig.points("insider.client.call.duration")
    (call,) = rig.spans.calls()
    assert (waited.count, waited.sum, lasted.sum) == (1, 3.0, 3.0)
    assert call.attributes["insider.wait.ms"] == 3000
    (wait,) = [span for span in rig.spans.all() if span.name == "insider wait"]
    assert wait.attributes["insider.wait.ms"] >= 120_000, "as it was planned"


@IGNORE_HTTPCORES_OWN
@pytest.mark.parametrize("place", ["sending", "waiting, a long answer unread"])
@pytest.mark.parametrize("way", ASYNC_WAYS)
def test_a_call_that_is_given_up_gives_its_connection_back(
    way: Way, place: str, insider_spans: Any, server: Wire
) -> None:
    """The pool has one connection: if it stayed with the first call, the second would wait for it in vain."""
    rig = Rig(way.flavour, insider_spans, FakeClock())
    settings = Settings(hosts={server.address: "unification.useinsider.com"})
    url = server.url + "/api/user/v1/upsert"
    arrived = threading.Event()
    reply = Reply(stall=True) if place == "sending" else Reply(status=503, body=LONG)
    reply.arrived = arrived
    server.script = [reply]

    async def run() -> Any:
        assert way.give_up is not None
        stage = Stage()
        inner = way.module.AsyncHTTPTransport(verify=False, limits=way.module.Limits(max_connections=1))

        async def arrive() -> None:
            await anyio.to_thread.run_sync(arrived.wait, 10)
            stage.reached.set()

        transport = rig.wrap(inner, settings=settings, sleep=stage.hang)
        async with way.module.AsyncClient(transport=transport, timeout=way.module.Timeout(5.0, pool=0.5)) as client:

            async def call() -> None:
                await client.post(url, json={})

            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    if place == "sending":
                        tasks.start_soon(arrive)
                    await way.give_up(call, stage)
                return await client.post(url, json={})

    assert call_of(anyio.run(run, backend=way.backend)).attempts == 1


@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_an_interrupted_sync_call_gives_its_connection_back(module: Any, insider_spans: Any, server: Wire) -> None:
    rig = Rig(Flavour(module, is_async=False), insider_spans, FakeClock())
    settings = Settings(hosts={server.address: "unification.useinsider.com"})
    url = server.url + "/api/user/v1/upsert"
    server.script = [Reply(status=503, body=LONG)]
    inner = module.HTTPTransport(verify=False, limits=module.Limits(max_connections=1))
    transport = rig.wrap(inner, settings=settings, sleep=Stage().interrupt)
    with module.Client(transport=transport, timeout=module.Timeout(5.0, pool=0.5)) as client:
        with pytest.raises(KeyboardInterrupt):
            client.post(url, json={})
        response = client.post(url, json={})
    assert call_of(response).attempts == 1


def test_a_long_answer_that_is_closed_unread_leaves_no_iterator_behind(rig: Rig) -> None:
    """An async iterator that a verdict began and nobody closed is a warning in trio and a stray task in asyncio."""
    body = rig.flavour.body(LONG, LONG)
    transport = rig.wrap(rig.flavour.answering(lambda request: rig.flavour.module.Response(200, stream=body)))

    def use(client: Any) -> Any:
        response = client.send(client.build_request("POST", UPSERT, json={}), stream=True)
        response.close()
        return body.ended

    async def use_async(client: Any) -> Any:
        response = await client.send(client.build_request("POST", UPSERT, json={}), stream=True)
        await response.aclose()
        return body.ended

    assert rig.flavour.using(use_async if rig.flavour.is_async else use, transport=transport)
    assert body.closed == 1


@pytest.mark.parametrize("body", [b"{}", LONG], ids=["short", "long"])
def test_an_answer_that_cannot_be_closed_ends_its_call_all_the_same(
    rig: Rig, open_spans: OpenSpans, body: bytes
) -> None:
    answer = rig.flavour.body(body)

    def fail() -> None:
        raise rig.flavour.module.CloseError("broken")

    async def fail_async() -> None:
        fail()

    answer.close, answer.aclose = fail, fail_async
    transport = rig.wrap(
        rig.flavour.answering(lambda request: rig.flavour.module.Response(403, stream=answer)),
    )
    with request_scope() as scope, pytest.raises(rig.flavour.module.CloseError):
        rig.flavour.post(UPSERT, transport=transport, json={})
    assert open_spans.names() == []
    assert scope.summary()["insider.request.calls"] == 1
