"""Asking a store from an event loop, and seeing it through."""

from __future__ import annotations

import asyncio
from typing import Any

from insider_otel.state.protocol import Perform


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
    from anyio import CancelScope  # noqa: PLC0415  (sync clients need no anyio)

    with CancelScope(shield=True):
        if not _in_asyncio():
            effect.reply = await effect.store.perform_async(effect.request)
            return effect.reply
        # An asyncio task can be cancelled from outside of any scope, and more than once; what runs in a task of its own
        # is not.
        task = asyncio.ensure_future(effect.store.perform_async(effect.request))
        cancelled: asyncio.CancelledError | None = None
        while not task.done():
            try:
                await asyncio.wait([task])
            except asyncio.CancelledError as error:
                cancelled = error
        if cancelled is None:
            effect.reply = task.result()
            return effect.reply
        if not task.cancelled() and task.exception() is None:
            effect.reply = task.result()
        try:
            raise cancelled
        finally:
            # An exception's traceback holds this frame; holding the exception in turn would make a cycle.
            del cancelled


def _in_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
