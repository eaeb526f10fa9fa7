"""What is sent again, when, and who waits meanwhile: what goes wrong with the obvious way to do it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from insider_otel import AsyncInsiderTransport, Settings, Stop, call_of, request_scope
from insider_otel.testing import FakeClock

from .conftest import Flavour, Rig
from .test_calls import ACCEPTED, MAIL, OK, UPSERT
from .wire import Reply, Wire

UNLISTED = "https://unification.useinsider.com/api/user/v9/new"


# -- what is sent again ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "attempts"), [("GET", 2), ("PUT", 2), ("POST", 1), ("PATCH", 1)])
def test_an_unsafe_method_is_known_by_the_request_though_no_response_came(rig: Rig, method: str, attempts: int) -> None:
    """Read from the response, the method is unknown after a timeout, and a POST is sent twice after all."""
    transport = rig.answers("ReadTimeout", OK)
    try:
        call = call_of(rig.flavour.using(lambda client: client.request(method, UNLISTED), transport=transport))
    except rig.flavour.module.ReadTimeout as error:
        call = call_of(error)
        assert call.stopped is Stop.UNSAFE
    assert call.attempts == attempts


def test_what_is_sent_again_is_byte_for_byte_the_same_with_the_same_idempotency_key(rig: Rig, server: Wire) -> None:
    """A body built anew for each attempt has a new idempotency key, and the message goes out twice."""
    server.script = [Reply(status=503), Reply(reset=True), Reply()]
    settings = Settings(hosts={server.address: "architect.useinsider.com"}, quick_delay=0.0)
    response = rig.flavour.post(
        server.url + "/v1/transactional/send",
        transport=rig.wrap(rig.flavour.transport_class(verify=False), settings=settings),
        json={"idempotency_key": "order-4711", "users": [{"email": "jane@example.com"}]},
        headers={"X-Order": "4711"},
    )
    assert call_of(response).operation.name == "architect.send"
    assert [seen.body for seen in server.seen] == [response.request.content] * 3
    assert {seen.headers["x-order"] for seen in server.seen} == {"4711"}


@pytest.mark.parametrize("size", [10, 400_000], ids=["short", "longer than is read for the verdict"])
def test_every_answer_is_closed_exactly_once_and_before_the_next_request(rig: Rig, size: int) -> None:
    """An answer that nobody closes keeps its connection from all others."""
    bodies: list[Any] = []

    def answer(request: Any) -> Any:
        assert [body.closed for body in bodies] == [1] * len(bodies)
        bodies.append(rig.flavour.body(b" " * size))
        return rig.flavour.module.Response(503 if len(bodies) < 3 else 200, stream=bodies[-1])

    response = rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(answer)), json={})
    assert response.status_code == 200
    assert [body.closed for body in bodies] == [1, 1, 1]


@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_a_mock_that_runs_out_of_answers_says_so_itself(module: Any, insider_spans: Any) -> None:
    """A mock raises ``StopIteration`` then, which whatever is written as a generator turns into ``RuntimeError``."""
    rig = Rig(Flavour(module, is_async=False), insider_spans, FakeClock())
    answers = iter([module.Response(503)])
    transport = rig.wrap(rig.flavour.answering(lambda request: next(answers)))
    with pytest.raises(StopIteration):
        rig.flavour.post(UPSERT, transport=transport, json={})
    assert [call.attributes["insider.outcome"] for call in rig.spans.calls()] == ["failed"]


# -- when to come back -------------------------------------------------------------------------------------------------

DATE = "Mon, 03 Jun 2019 11:00:00 GMT"


def with_retry_after(rig: Rig, *values: bytes | str) -> Any:
    """The call after a 503 with this ``Retry-After``, answered by a server whose clock reads ``DATE``."""
    replies = iter([503, 200])
    fields = [(b"Date", DATE.encode())]
    fields += [(b"Retry-After", value if isinstance(value, bytes) else value.encode()) for value in values]

    def handler(request: Any) -> Any:
        return rig.flavour.module.Response(next(replies), headers=fields)

    return call_of(rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler)), json={}))


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("\t42 ", 42.0),
        ("Mon, 3 Jun 2019 11:02:00 UTC", 120.0),
        ("Mon, 03 Jun 2019 11:02:12 GMT", 132.0),
        ("Monday, 03-Jun-19 11:02:12 GMT", 132.0),
        ("Mon Jun  3 11:02:12 2019", 132.0),
    ],
)
def test_a_retry_comes_never_earlier_than_told(rig: Rig, value: str, seconds: float) -> None:
    """A cap on the wait, or a date that is not understood, is a retry before the server wants one."""
    assert with_retry_after(rig, value).attempts == 2
    assert rig.clock.sleeps == [seconds + 0.25]


@pytest.mark.parametrize(
    "values",
    [
        *[
            (v,)
            for v in ("-1", "+5", "1.5", "1e3", "inf", "nan", "", "soon", "120, 60", "Mon, 32 Jun 2019 11:02:12 GMT")
        ],
        ("²".encode("latin-1"),),
        ("٣".encode(),),
        ("Mon, 03 Jun 2019 10:59:00 GMT",),
        ("120", "60"),
    ],
)
def test_what_is_no_retry_after_is_no_wait(rig: Rig, values: tuple[bytes | str, ...]) -> None:
    """``float()`` takes ``inf``, ``1e3`` and ``+5`` for numbers of seconds."""
    assert with_retry_after(rig, *values).attempts == 2
    assert rig.clock.sleeps == [0.25]


@pytest.mark.parametrize("value", ["3600", "99999999999999999999", "Mon, 03 Jun 2099 11:00:00 GMT"])
def test_who_is_told_to_stay_away_for_long_does_not_come_back_early(rig: Rig, value: str) -> None:
    """To wait as long as one may, and then to try all the same, is to come earlier than told."""
    call = with_retry_after(rig, value)
    assert (call.attempts, call.stopped, rig.clock.sleeps) == (1, Stop.DEADLINE, [])


@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_a_pool_that_is_closed_again_and_again_does_not_hold_a_call_for_ever(module: Any, insider_spans: Any) -> None:
    """Others on the same limit may be told "too many" each time just before this call's turn."""
    rig = Rig(Flavour(module, is_async=False), insider_spans, FakeClock())
    transport: Any

    def sleep(seconds: float) -> None:
        assert len(rig.clock.sleeps) < 100
        rig.clock.sleep(seconds)
        with request_scope(deadline=1.0, clock=rig.clock):
            rig.flavour.post(UPSERT, transport=transport, json={})

    transport = rig.wrap(rig.flavour.answering(lambda request: module.Response(429)), sleep=sleep)
    response = rig.flavour.post(UPSERT, transport=transport, json={})
    assert response.status_code == 429
    assert sum(rig.clock.sleeps) <= 2 * Settings().retry_window


def test_others_wait_for_a_closed_pool_as_long_as_the_call_that_was_told(rig: Rig) -> None:
    """The jitter that spreads those who wait together is no part of what they were told."""
    module, replies = rig.flavour.module, iter([429, 200, 429, 200])
    transport = rig.wrap(
        rig.flavour.answering(lambda request: module.Response(next(replies), headers={"Retry-After": "290"}))
    )
    told = rig.flavour.post(UPSERT, transport=transport, json={})
    with request_scope(deadline=1.0, clock=rig.clock):
        rig.flavour.post(UPSERT, transport=transport, json={})
    other = rig.flavour.post(UPSERT, transport=transport, json={})
    assert (told.status_code, other.status_code) == (200, 200)
    assert rig.clock.sleeps == [304.5, 304.5]


# -- taking turns ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_a_coroutine_that_waits_for_its_retry_blocks_no_other(module: Any, backend: str) -> None:
    """``time.sleep`` in a coroutine stops the whole loop; the wait here is the real one, and is not waited out."""
    over: list[str] = []

    async def main() -> None:
        failed = anyio.Event()

        def handler(request: Any) -> Any:
            if request.url == UPSERT and not failed.is_set():
                failed.set()
                return module.Response(503)
            return module.Response(202, json=ACCEPTED[1])

        ours = AsyncInsiderTransport(
            module.MockTransport(handler), settings=Settings(quick_delay=20.0), random=lambda: 0.99
        )
        async with module.AsyncClient(transport=ours) as client:

            async def retried() -> None:
                await client.post(UPSERT, json={})
                over.append("retried")

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(retried)
                await failed.wait()
                await client.post(MAIL, json={})
                over.append("other")
                tasks.cancel_scope.cancel()

    anyio.run(main, backend=backend)
    assert over == ["other"]


def failing_first(module: Any) -> Callable[[Any], Any]:
    """A handler that answers the first attempt of each call, known by its ``x-call`` header, with a 503."""
    seen: set[str] = set()

    def handler(request: Any) -> Any:
        name = request.headers["x-call"]
        status = 200 if name in seen else 503
        seen.add(name)
        return module.Response(status, json={})

    return handler


CALLS = [str(number) for number in range(8)]
ONE_RETRY = Settings(quick_retries=0, spread_retries=1)


@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_threads_that_wait_for_their_retries_wait_together(module: Any, insider_spans: Any) -> None:
    """With a lock held in the wait they wait one after the other; here none goes on until all wait."""
    rig = Rig(Flavour(module, is_async=False), insider_spans, FakeClock())
    together = threading.Barrier(len(CALLS), timeout=10)
    handler = module.MockTransport(failing_first(module))
    ours = rig.wrap(handler, settings=ONE_RETRY, sleep=lambda seconds: together.wait())
    with module.Client(transport=ours) as client, ThreadPoolExecutor(len(CALLS)) as pool:
        responses = pool.map(lambda name: client.post(UPSERT, json={}, headers={"x-call": name}), CALLS)
        assert [call_of(response).attempts for response in responses] == [2] * len(CALLS)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
def test_tasks_that_wait_for_their_retries_wait_together(module: Any, backend: str, insider_spans: Any) -> None:
    rig = Rig(Flavour(module, is_async=True), insider_spans, FakeClock())
    attempts: list[int] = []

    async def main() -> None:
        waiting, all_wait = list[float](), anyio.Event()

        async def together(seconds: float) -> None:
            waiting.append(seconds)
            if len(waiting) == len(CALLS):
                all_wait.set()
            await all_wait.wait()

        ours = rig.wrap(module.MockTransport(failing_first(module)), settings=ONE_RETRY, sleep=together)
        async with module.AsyncClient(transport=ours) as client:

            async def call(name: str) -> None:
                response = await client.post(UPSERT, json={}, headers={"x-call": name})
                attempts.append(call_of(response).attempts)

            with anyio.fail_after(10):
                async with anyio.create_task_group() as tasks:
                    for name in CALLS:
                        tasks.start_soon(call, name)

    anyio.run(main, backend=backend)
    assert attempts == [2] * len(CALLS)
