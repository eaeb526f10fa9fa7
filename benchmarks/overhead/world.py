"""Everything that is measured in one world."""

from __future__ import annotations

import asyncio
from time import perf_counter, thread_time

from benchmarks.common.sdk import SDK
from benchmarks.common.timing import Samples, interleaved, repeated, repeated_async
from benchmarks.overhead.variants import World, check, variants

# Rounds, and calls in each: blocks of a few milliseconds, most of which pass undisturbed.
_IN_PROCESS = (50, 40, thread_time)
_ON_A_SOCKET = (30, 20, perf_counter)


def measure(family: str, *, is_async: bool, port: int | None) -> Samples:
    """Seconds per call of every variant.

    Args:
        family: ``httpx`` or ``httpx2``.
        is_async: Whether the clients are async.
        port: Of a server on 127.0.0.1; None for transports that answer in process.
    """
    world = World(family, is_async, port)
    rounds, count, clock = _IN_PROCESS if port is None else _ON_A_SOCKET
    sdk = SDK.start()
    try:
        with asyncio.Runner() as runner:
            sends = variants(world, sdk)
            check(world, sends, runner)
            blocks = {
                name: repeated_async(send, count, runner, clock) if is_async else repeated(send, count, clock)
                for name, send in sends.items()
            }
            return interleaved(blocks, rounds)
    finally:
        sdk.shutdown()
