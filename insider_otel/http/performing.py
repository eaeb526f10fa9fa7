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
        # An asyncio task can be cancelled from outside of any scope; what runs in a task of its own is not.
        task = asyncio.ensure_future(effect.store.perform_async(effect.request))
        try:
            effect.reply = await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait([task])
            if task.exception() is None:
                effect.reply = task.result()
            raise
        return effect.reply


def _in_asyncio() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
