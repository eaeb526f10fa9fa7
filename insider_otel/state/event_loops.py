"""The event loop that runs here, and threads for it: not those of its own ``to_thread``, which may all be busy."""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import asyncio

    from anyio import CapacityLimiter
    from anyio.lowlevel import RunVar


OUTBOX_THREADS = 4
"""Threads of an event loop that keep calls for later: the app is asked for credentials in them, which may take long."""


def running_loop() -> asyncio.AbstractEventLoop | None:
    """The asyncio loop that runs in this thread; None if none does, as under trio."""
    import asyncio  # noqa: PLC0415  (a third of all there is to import, and sync clients need none of it)

    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None


@cache
def _limiters(name: str) -> RunVar[CapacityLimiter]:
    from anyio.lowlevel import RunVar  # noqa: PLC0415  (sync clients need no anyio)

    return RunVar(f"insider_otel.{name}")


def limiter(name: str, most: int) -> CapacityLimiter:
    """A limiter for ``to_thread.run_sync``, of the running event loop.

    Args:
        name: What the threads are for.
        most: How many there are at a time.
    """
    from anyio import CapacityLimiter  # noqa: PLC0415

    limiters = _limiters(name)
    found = limiters.get(None)
    if found is None:
        found = CapacityLimiter(most)
        limiters.set(found)
    return found
