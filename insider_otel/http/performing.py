"""Asking a store or an outbox from an event loop, and seeing it through."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, TypeVar

from insider_otel.state.event_loops import OUTBOX_THREADS, limiter, running_loop
from insider_otel.state.protocol import Perform

if TYPE_CHECKING:
    from insider_otel.http.effects import Keep
    from insider_otel.outbox.job import Job

T = TypeVar("T")


async def perform_async(effect: Perform) -> Any:
    """Have a store do what it is asked, to the end, even if the call is cancelled meanwhile.

    What a store grants to a call that is no more would be lost to everybody; so its reply is kept for whoever tidies up
    after the call. A store answers or gives up within its timeout.

    Args:
        effect: What is asked of which store; gets the reply.

    Returns:
        The reply.

    Raises:
        StoreError: It cannot be done.
    """

    async def perform() -> Any:
        effect.reply = await effect.store.perform_async(effect.request)
        return effect.reply

    return await _see_through(perform)


async def keep_async(effect: Keep) -> Job:
    """Make a job and keep it, to the end, even if the call is cancelled meanwhile.

    Args:
        effect: What makes it, and where it is kept.

    Returns:
        The job.

    Raises:
        CannotDefer: It cannot be made.
        OutboxError: It is not kept.
    """
    from anyio import to_thread  # noqa: PLC0415  (sync clients need no anyio)

    # Nothing is kept yet: a call may be cancelled while the app looks for its credentials.
    threads = limiter("credentials", OUTBOX_THREADS)
    job = await to_thread.run_sync(effect.make, abandon_on_cancel=True, limiter=threads)

    async def put() -> None:
        await effect.outbox.put_async(job)

    await _see_through(put)
    return job


async def _see_through(act: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Await something to its end, and only then be cancelled."""
    from anyio import CancelScope  # noqa: PLC0415  (sync clients need no anyio)

    with CancelScope(shield=True):
        return await (act() if running_loop() is None else _in_a_task(act))
    raise AssertionError("a scope swallows no cancellation but its own, and nobody cancels this one")


async def _in_a_task(act: Callable[[], Coroutine[Any, Any, T]]) -> T:
    # An asyncio task can be cancelled from outside of any scope, and more than once; what runs in a task of its own is
    # not.
    import asyncio  # noqa: PLC0415  (sync clients need none of it)

    task = asyncio.ensure_future(act())
    cancelled: asyncio.CancelledError | None = None
    while not task.done():
        try:
            await asyncio.wait([task])
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is None:
        return task.result()
    if not task.cancelled():
        # What it raised is nobody's any more, and is not to be reported as never looked at.
        task.exception()
    try:
        raise cancelled
    finally:
        # An exception's traceback holds this frame; holding the exception in turn would make a cycle.
        del cancelled
