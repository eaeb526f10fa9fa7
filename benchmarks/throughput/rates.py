"""Calls per second, and the memory of the process that makes them, with many calls at once over a socket."""

from __future__ import annotations

import asyncio
import os
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from time import perf_counter

import httpx
import psutil

from benchmarks.common.calls import UPSERT, headers_of
from benchmarks.common.sdk import SDK
from benchmarks.throughput.kinds import wrapped
from insider_otel import Settings

IN_FLIGHT = 1_000
THREADS = 64
# For each request httpcore looks at every pair of a pool's connections: with 1,000 in one it makes 55 calls a second.
CLIENTS = 100
_CALLS_OF_A_TASK = 3
_CALLS_OF_A_THREAD = 48
_TIMEOUT = 60.0


def with_tasks(kind: str, port: int) -> tuple[float, float]:
    """Make calls in ``IN_FLIGHT`` tasks, which share ``CLIENTS`` clients.

    Args:
        kind: One of ``kinds.KINDS``.
        port: Of a server on 127.0.0.1.

    Returns:
        Calls per second, and the process's resident memory at the end, in bytes.
    """
    return asyncio.run(_with_tasks(kind, port))


async def _with_tasks(kind: str, port: int) -> tuple[float, float]:
    sdk = SDK.start()
    telemetry = sdk.recording()

    def client() -> httpx.AsyncClient:
        transport = wrapped(
            kind,
            httpx.AsyncHTTPTransport(verify=False, limits=_limits(IN_FLIGHT // CLIENTS)),
            telemetry,
            is_async=True,
            settings=_settings(port),
        )
        return httpx.AsyncClient(transport=transport, timeout=_TIMEOUT)

    async def calls(client: httpx.AsyncClient, count: int) -> None:
        for _ in range(count):
            response = await client.post(_url(port), content=UPSERT.content, headers=headers_of(kind))
            response.raise_for_status()

    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client()) for _ in range(CLIENTS)]
        tasks = [clients[number % CLIENTS] for number in range(IN_FLIGHT)]
        # The first call of each task opens its connection.
        await asyncio.gather(*(calls(own, 1) for own in tasks))
        start = perf_counter()
        await asyncio.gather(*(calls(own, _CALLS_OF_A_TASK) for own in tasks))
        seconds = perf_counter() - start
        resident = _resident()
    sdk.shutdown()
    return IN_FLIGHT * _CALLS_OF_A_TASK / seconds, resident


def with_threads(kind: str, port: int) -> tuple[float, float]:
    """``with_tasks`` in ``THREADS`` threads, which share one client."""
    sdk = SDK.start()
    transport = wrapped(
        kind, httpx.HTTPTransport(verify=False, limits=_limits(THREADS)), sdk.recording(), settings=_settings(port)
    )
    with httpx.Client(transport=transport, timeout=_TIMEOUT) as client, ThreadPoolExecutor(THREADS) as pool:

        def calls(count: int) -> None:
            for _ in range(count):
                client.post(_url(port), content=UPSERT.content, headers=headers_of(kind)).raise_for_status()

        list(pool.map(calls, [1] * THREADS))
        start = perf_counter()
        list(pool.map(calls, [_CALLS_OF_A_THREAD] * THREADS))
        seconds = perf_counter() - start
        resident = _resident()
    sdk.shutdown()
    return THREADS * _CALLS_OF_A_THREAD / seconds, resident


def _limits(most: int) -> httpx.Limits:
    return httpx.Limits(max_connections=most, max_keepalive_connections=most, keepalive_expiry=_TIMEOUT)


def _settings(port: int) -> Settings:
    return Settings(hosts={f"127.0.0.1:{port}": UPSERT.operation.host})


def _url(port: int) -> str:
    return f"http://127.0.0.1:{port}{UPSERT.operation.path}"


def _resident() -> float:
    return float(psutil.Process(os.getpid()).memory_info().rss)
