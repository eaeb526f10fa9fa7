"""What an app sees of its answers is what it sees without us: elapsed, raw bodies, statuses, closing."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anyio
import pytest

from insider_otel import Category, InsiderInstrumentor, Outcome, Settings, Stop, call_of, request_scope

from .conftest import Flavour, Rig
from .stock import uninstrument_all
from .test_calls import OK, UPSERT

KEYS = {"X-PARTNER-NAME": "shop", "X-REQUEST-TOKEN": "token-of-shop"}
LIMITED = Settings(limits={"user.upsert": "1/60s"})


# -- answers that are made here ----------------------------------------------------------------------------------------


@pytest.fixture(params=["refused", "deferred"])
def made_here(request: pytest.FixtureRequest, rig: Rig, tmp_path: Path) -> Any:
    """A transport that answers every call itself from now on."""
    if request.param == "deferred":
        outbox = f"sqlite:///{tmp_path}/outbox.db"
        settings = Settings(outbox=outbox, credentials=lambda operation, account: KEYS)
        return rig.answers(503, settings=settings)
    transport = rig.answers(200, settings=LIMITED)
    rig.flavour.post(UPSERT, transport=transport, headers=KEYS, json={"users": []})
    return transport


def test_an_answer_that_is_made_here_tells_how_long_it_took(rig: Rig, made_here: Any) -> None:
    with request_scope(deadline=0.2, clock=rig.clock):
        response = rig.flavour.post(UPSERT, transport=made_here, headers=KEYS, json={"users": []})
    assert "x-insider-otel" in response.headers
    assert response.elapsed.total_seconds() >= 0
    assert response.json()["message"]


def test_an_answer_that_is_made_here_can_be_streamed(rig: Rig, made_here: Any) -> None:
    announced: list[int] = []

    def note(response: Any) -> None:
        announced.append(int(response.headers["content-length"]))

    with request_scope(deadline=0.2, clock=rig.clock):
        raw = rig.flavour.stream(UPSERT, on_open=note, transport=made_here, headers=KEYS)
    assert announced == [len(raw)]
    assert raw.startswith(b"{")


# -- bodies that break off ---------------------------------------------------------------------------------------------


def breaking_off(flavour: Flavour, status: int, error: Exception) -> Any:
    """A transport whose answer breaks off in its body."""

    def fail() -> None:
        raise error

    async def fail_async() -> None:
        fail()

    then: Callable[[], Any] = fail_async if flavour.is_async else fail
    return flavour.answering(
        lambda request: flavour.module.Response(status, stream=flavour.body(b"as far as it came", then=then))
    )


@pytest.mark.parametrize(
    ("status", "category"), [(400, Category.VALIDATION), (200, Category.NETWORK)], ids=["refusal", "success"]
)
def test_who_streams_an_answer_that_breaks_off_has_its_status_and_what_came_of_it(
    rig: Rig, status: int, category: Category
) -> None:
    error = rig.flavour.module.ReadError("broken")
    transport = rig.wrap(breaking_off(rig.flavour, status, error), settings=Settings(mode="observe"))
    seen: list[Any] = []

    def use(client: Any) -> None:
        with client.stream("POST", UPSERT, json={}) as response:
            seen.append(response)
            for chunk in response.iter_raw():
                seen.append(chunk)  # noqa: PERF402  (none is to be lost with the error)

    async def use_async(client: Any) -> None:
        async with client.stream("POST", UPSERT, json={}) as response:
            seen.append(response)
            async for chunk in response.aiter_raw():
                seen.append(chunk)  # noqa: PERF401

    with pytest.raises(rig.flavour.module.ReadError) as raised:
        rig.flavour.using(use_async if rig.flavour.is_async else use, transport=transport)
    response, *chunks = seen
    assert (response.status_code, chunks, raised.value) == (status, [b"as far as it came"], error)
    assert call_of(response) is call_of(error)
    assert (call_of(error).outcome, call_of(error).verdict.category) == (Outcome.FAILED, category)


# -- a body that is closed by somebody else than reads it --------------------------------------------------------------


def downloads(rig: Rig, bodies: list[Any]) -> Any:
    """Our transport round one that answers with ``bodies``, which are not looked into."""
    headers = {"content-type": "text/csv"}
    return rig.wrap(
        rig.flavour.answering(lambda request: rig.flavour.module.Response(200, headers=headers, stream=bodies.pop(0)))
    )


def test_a_body_can_be_closed_while_another_thread_or_task_reads_it(rig: Rig) -> None:
    """As httpx's own can: the reader is told by the connection that is gone."""
    bodies: list[Any] = []

    def use(client: Any) -> int:
        reading, go_on = threading.Event(), threading.Event()

        def then() -> None:
            reading.set()
            assert go_on.wait(60)

        body = rig.flavour.body(b"id\n", then=then)
        bodies.append(body)
        response = client.send(client.build_request("GET", UPSERT), stream=True)
        reader = threading.Thread(target=lambda: list(response.iter_raw()))
        reader.start()
        try:
            assert reading.wait(60)
            response.close()
            return int(body.closed)
        finally:
            go_on.set()
            reader.join()

    async def use_async(client: Any) -> int:
        reading, go_on = anyio.Event(), anyio.Event()

        async def then() -> None:
            reading.set()
            await go_on.wait()

        body = rig.flavour.body(b"id\n", then=then)
        bodies.append(body)
        response = await client.send(client.build_request("GET", UPSERT), stream=True)

        async def read() -> None:
            async for _ in response.aiter_raw():
                pass

        closed = -1
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(read)
            await reading.wait()
            try:
                await response.aclose()
                closed = body.closed
            finally:
                go_on.set()
        return closed

    closed = rig.flavour.using(use_async if rig.flavour.is_async else use, transport=downloads(rig, bodies))
    assert closed == 1
    assert [call.attributes["insider.outcome"] for call in rig.spans.calls()] == ["succeeded"]


# -- a client that is closed while its call waits ----------------------------------------------------------------------


class Closing:
    """A transport that always answers 503, and whose client is closed before the first answer is here."""

    def __init__(self, flavour: Flavour) -> None:
        self.client: Any = None
        self.sent = 0
        module = flavour.module

        def answer(request: Any) -> Any:
            self.sent += 1
            self.client.close()
            return module.Response(503)

        async def answer_async(request: Any) -> Any:
            self.sent += 1
            await self.client.aclose()
            return module.Response(503)

        self.transport = flavour.answering(answer_async if flavour.is_async else answer)

    def post(self, client: Any) -> Any:
        self.client = client
        return client.post(UPSERT, headers=KEYS, json={"users": []})


def test_a_call_whose_client_is_closed_is_not_sent_again(rig: Rig) -> None:
    closing = Closing(rig.flavour)
    response = rig.flavour.using(closing.post, transport=rig.wrap(closing.transport))
    assert (response.status_code, closing.sent) == (503, 1)
    assert (call_of(response).attempts, call_of(response).stopped) == (1, Stop.DEADLINE)


def test_with_the_instrumentor_it_is_not_either(rig: Rig) -> None:
    closing = Closing(rig.flavour)
    settings = Settings(quick_delay=0.0, spread_retries=0)
    InsiderInstrumentor().instrument(settings=settings, tracer_provider=rig.spans.tracer_provider)
    try:
        response = rig.flavour.using(closing.post, transport=closing.transport)
    finally:
        uninstrument_all()
    assert (response.status_code, closing.sent) == (503, 1)


def test_with_an_outbox_it_goes_on_later(rig: Rig, tmp_path: Path) -> None:
    closing = Closing(rig.flavour)
    settings = Settings(outbox=f"sqlite:///{tmp_path}/outbox.db", credentials=lambda operation, account: KEYS)
    response = rig.flavour.using(closing.post, transport=rig.wrap(closing.transport, settings=settings))
    assert (call_of(response).outcome, closing.sent) == (Outcome.DEFERRED, 1)


def test_a_call_that_was_never_sent_says_that_its_client_is_closed(rig: Rig) -> None:
    """It waited for room in its limit. A client of httpx that is closed says the same."""
    clients: list[Any] = []
    requests: list[Any] = []

    def answer(request: Any) -> Any:
        requests.append(request)
        return rig.flavour.module.Response(200, json=OK[1])

    def sleep(seconds: float) -> None:
        rig.clock.sleep(seconds)
        clients[0].close()

    async def sleep_async(seconds: float) -> None:
        rig.clock.sleep(seconds)
        await clients[0].aclose()

    def use(client: Any) -> Any:
        clients.append(client)
        client.post(UPSERT, headers=KEYS, json={"users": []})
        return client.post(UPSERT, headers=KEYS, json={"users": []})

    async def use_async(client: Any) -> Any:
        clients.append(client)
        await client.post(UPSERT, headers=KEYS, json={"users": []})
        return await client.post(UPSERT, headers=KEYS, json={"users": []})

    is_async = rig.flavour.is_async
    transport = rig.wrap(rig.flavour.answering(answer), settings=LIMITED, sleep=sleep_async if is_async else sleep)
    with pytest.raises(RuntimeError, match="client has been closed") as raised:
        rig.flavour.using(use_async if is_async else use, transport=transport)
    assert len(requests) == 1
    assert (call_of(raised.value).attempts, call_of(raised.value).outcome) == (0, Outcome.FAILED)


def test_a_client_that_leaves_a_transport_does_not_end_the_calls_of_another(rig: Rig) -> None:
    """Clients may share a transport: it is closed once the last of them has left."""
    transports: list[Any] = []

    def client() -> Any:
        return rig.flavour.client_class(transport=transports[0])

    def sleep(seconds: float) -> None:
        rig.clock.sleep(seconds)
        with client():
            pass

    async def sleep_async(seconds: float) -> None:
        rig.clock.sleep(seconds)
        async with client():
            pass

    module, statuses = rig.flavour.module, iter([503, 200])
    busy = rig.flavour.answering(lambda request: module.Response(next(statuses), json=OK[1]))
    transports.append(rig.wrap(busy, sleep=sleep_async if rig.flavour.is_async else sleep))
    response = rig.flavour.post(UPSERT, transport=transports[0], json={})
    assert (response.status_code, call_of(response).attempts) == (200, 2)


def test_nor_those_of_a_client_that_never_entered_it(rig: Rig) -> None:
    """One that lives as long as its app is not opened with ``with``."""
    module, statuses = rig.flavour.module, iter([503, 200])
    transports: list[Any] = []

    def client() -> Any:
        return rig.flavour.client_class(transport=transports[0])

    def sleep(seconds: float) -> None:
        with client():
            rig.clock.sleep(seconds)

    async def sleep_async(seconds: float) -> None:
        async with client():
            rig.clock.sleep(seconds)

    def use(other: Any) -> Any:
        return client().post(UPSERT, json={})

    async def use_async(other: Any) -> Any:
        return await client().post(UPSERT, json={})

    busy = rig.flavour.answering(lambda request: module.Response(next(statuses), json=OK[1]))
    is_async = rig.flavour.is_async
    transports.append(rig.wrap(busy, sleep=sleep_async if is_async else sleep))
    response = rig.flavour.using(use_async if is_async else use, transport=rig.answers(200))
    assert (response.status_code, call_of(response).attempts) == (200, 2)


def test_a_transport_serves_the_client_that_opens_it_again(rig: Rig) -> None:
    transport = rig.answers(200, 503, 200)
    rig.flavour.post(UPSERT, transport=transport, json={})
    response = rig.flavour.post(UPSERT, transport=transport, json={})
    assert (response.status_code, call_of(response).attempts) == (200, 2)
