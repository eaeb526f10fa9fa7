"""What stays behind of a call that is over: nothing."""

from __future__ import annotations

import gc
import itertools
import tracemalloc
from typing import Any

import pytest

from insider_otel.http.exchange import Exchange
from insider_otel.testing import FakeClock

from .conftest import Flavour, Rig
from .test_calls import UPSERT
from .test_concurrency import MODULES, SETTINGS

LONG = b"[" + b"1," * 200_000 + b"1]"
FATES: list[Any] = [
    pytest.param([200], id="success"),
    pytest.param([503, 503, 200], id="healed"),
    pytest.param([503, 503, 503], id="failure"),
    pytest.param(["ReadTimeout", "ReadError", "ConnectError"], id="exception"),
    pytest.param([(200, LONG)], id="long answer"),
    pytest.param([(200, LONG, "ReadError")], id="long answer that breaks off"),
    pytest.param([(200, b"[", "ReadError")] * 3, id="answer that breaks off"),
    pytest.param([(401, b"[", "ReadError")], id="refusal that breaks off"),
]


@pytest.mark.parametrize("fate", FATES)
def test_a_call_that_is_over_is_gone_without_the_garbage_collector(rig: Rig, fate: list[Any]) -> None:
    """An exception's traceback holds the frames it passed: one that holds the exception makes a cycle of them all."""
    module, count = rig.flavour.module, 10
    answers = itertools.cycle(fate)

    def fail(name: str, request: Any) -> Any:
        raise getattr(module, name)("broken", request=request)

    def handler(request: Any) -> Any:
        answer = next(answers)
        if isinstance(answer, str):
            fail(answer, request)
        status, content, *error = (answer, b"{}") if isinstance(answer, int) else answer

        async def break_off_async() -> None:
            fail(error[0], request)

        def break_off() -> None:
            fail(error[0], request)

        then = {"then": break_off_async if rig.flavour.is_async else break_off} if error else {}
        return module.Response(status, stream=rig.flavour.body(content, **then))

    transport = rig.wrap(rig.flavour.answering(handler), settings=SETTINGS)
    alive: list[Exchange] = []

    def use(client: Any) -> None:
        for _ in range(count):
            try:
                client.post(UPSERT, json={})
            except module.TransportError:
                continue
        alive.extend(exchanges())

    async def use_async(client: Any) -> None:
        for _ in range(count):
            try:
                await client.post(UPSERT, json={})
            except module.TransportError:
                continue
        alive.extend(exchanges())

    gc.collect()
    of_other_tests = exchanges()
    gc.disable()
    try:
        rig.flavour.using(use_async if rig.flavour.is_async else use, transport=transport)
    finally:
        gc.enable()
    assert not [each for each in alive if not any(each is other for other in of_other_tests)]


def exchanges() -> list[Exchange]:
    return [thing for thing in gc.get_objects() if isinstance(thing, Exchange)]


@MODULES
def test_memory_does_not_grow_with_the_number_of_calls(module: Any, insider_spans: Any) -> None:
    """Ever new keys, pools that are closed, failures and exceptions: nothing of them is kept."""
    rig = Rig(Flavour(module, is_async=False), insider_spans, FakeClock())
    numbers, replies = itertools.count(), itertools.cycle([200, 503, 200, "ReadTimeout", 429, 200])

    def handler(request: Any) -> Any:
        reply = next(replies)
        if isinstance(reply, str):
            raise getattr(module, reply)("broken", request=request)
        return module.Response(reply, json={})

    def memory_after(calls: int) -> int:
        for _ in range(calls):
            client.post(UPSERT, json={}, headers={"X-REQUEST-TOKEN": f"key-{next(numbers)}"})
        rig.spans.clear()
        rig.clock.sleeps.clear()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    calls = 300
    with module.Client(transport=rig.wrap(module.MockTransport(handler), settings=SETTINGS)) as client:
        tracemalloc.start()
        try:
            # Python's own free lists fill up first.
            growth = -memory_after(calls) + memory_after(calls)
        finally:
            tracemalloc.stop()
    assert growth < 200 * calls
