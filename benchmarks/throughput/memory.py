"""Memory: of a call in flight, and of a process that has made many calls."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
import threading
import tracemalloc
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import psutil

from benchmarks.common.calls import UPSERT, headers_of, instant_transport
from benchmarks.common.sdk import SDK
from benchmarks.throughput.kinds import wrapped
from benchmarks.throughput.rates import IN_FLIGHT, THREADS

CALLS_PER_SECOND = 30
SECONDS = 600
QUARTERS = 4


class _AsyncHeld(httpx.AsyncBaseTransport):
    """Holds every request until all are there and have been looked at."""

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.all_there = asyncio.Event()
        self.go_on = asyncio.Event()
        self._answers = instant_transport(httpx)

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.expected -= 1
        if not self.expected:
            self.all_there.set()
        await self.go_on.wait()
        response: httpx.Response = await self._answers.handle_async_request(request)
        return response


class _Held(httpx.BaseTransport):
    """The same for threads."""

    def __init__(self, expected: int) -> None:
        self.there = threading.Barrier(expected + 1)
        self.go_on = threading.Event()
        self._answers = instant_transport(httpx)

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        self.there.wait()
        self.go_on.wait()
        response: httpx.Response = self._answers.handle_request(request)
        return response


def of_tasks(kind: str, body_size: int) -> float:
    """Bytes that each of ``IN_FLIGHT`` calls holds while its answer is awaited, the task and httpx's own included.

    Args:
        kind: As for ``rates.with_tasks``.
        body_size: Bytes of its body; each call has its own.
    """
    return asyncio.run(_of_tasks(kind, body_size))


async def _of_tasks(kind: str, body_size: int) -> float:
    sdk = SDK.start()

    async def in_flight(count: int) -> float:
        held = _AsyncHeld(count)
        transport = wrapped(kind, held, sdk.recording(), is_async=True)
        async with httpx.AsyncClient(transport=transport) as client:
            bodies = _bodies(count, body_size)
            before = _traced()
            calls = [
                asyncio.ensure_future(client.post(UPSERT.url, content=body, headers=headers_of(kind)))
                for body in bodies
            ]
            await held.all_there.wait()
            taken = _traced() - before
            held.go_on.set()
            await asyncio.gather(*calls)
        return taken / count

    return await _after_warming_up(in_flight, sdk)


async def _after_warming_up(in_flight: Callable[[int], Any], sdk: SDK) -> float:
    await in_flight(10)
    tracemalloc.start()
    taken: float = await in_flight(IN_FLIGHT)
    tracemalloc.stop()
    sdk.shutdown()
    return taken


def of_threads(kind: str, body_size: int) -> float:
    """``of_tasks`` for ``THREADS`` threads; without the threads' stacks, which Python does not allocate itself."""
    sdk = SDK.start()

    def in_flight(pool: ThreadPoolExecutor, count: int) -> float:
        held = _Held(count)
        transport = wrapped(kind, held, sdk.recording())
        with httpx.Client(transport=transport) as client:
            bodies = _bodies(count, body_size)
            before = _traced()
            calls = [pool.submit(client.post, UPSERT.url, content=body, headers=headers_of(kind)) for body in bodies]
            held.there.wait()
            taken = _traced() - before
            held.go_on.set()
            for call in calls:
                call.result()
        return taken / count

    with ThreadPoolExecutor(THREADS) as pool:
        in_flight(pool, THREADS)
        tracemalloc.start()
        taken = in_flight(pool, THREADS)
        tracemalloc.stop()
    sdk.shutdown()
    return taken


def growth(kind: str) -> list[tuple[float, float]]:
    """Make ten minutes' worth of calls as fast as they go.

    The library's clock is moved on by the time between two calls, so that ten minutes pass for its limits too, and what
    they remember for a minute is forgotten in time.

    Args:
        kind: ``bare`` or ``insider-otel``.

    Returns:
        For each quarter, at its end: resident memory in bytes, and blocks that Python has allocated.
    """
    sdk = SDK.start()
    present = 0.0
    transport = wrapped(kind, instant_transport(httpx), sdk.recording(), clock=lambda: present)
    found: list[tuple[float, float]] = []
    with httpx.Client(transport=transport) as client:
        for _ in range(QUARTERS):
            for _ in range(CALLS_PER_SECOND * SECONDS // QUARTERS):
                present += 1 / CALLS_PER_SECOND
                client.post(UPSERT.url, content=UPSERT.content, headers=headers_of(kind)).raise_for_status()
            sdk.flush()
            gc.collect()
            found.append((float(psutil.Process(os.getpid()).memory_info().rss), float(sys.getallocatedblocks())))
    sdk.shutdown()
    return found


def _bodies(count: int, size: int) -> list[bytes]:
    # Made before memory is looked at: a call that copies its body is seen by that.
    return [b"%d" % number + b" " * (size - 6) for number in range(count)]


def _traced() -> int:
    gc.collect()
    return tracemalloc.get_traced_memory()[0]
