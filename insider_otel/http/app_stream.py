"""The body of an app's request while it is sent: what makes it is the app's own code, and traced as such."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import cache
from inspect import isasyncgen
from typing import TYPE_CHECKING, Any

from insider_otel.telemetry.suppression import unsuppressed

if TYPE_CHECKING:
    import httpx


class _Stream:
    def __init__(self, stream: Any, outside: object) -> None:
        self._stream = stream
        self._outside = outside


class _SyncStream(_Stream):
    def __iter__(self) -> Iterator[bytes]:
        with unsuppressed(self._outside):
            iterator = iter(self._stream)
        while True:
            try:
                with unsuppressed(self._outside):
                    chunk = next(iterator)
            except StopIteration:
                return
            yield chunk
            # The traceback of an error in the next one holds this frame.
            del chunk

    def close(self) -> None:
        self._stream.close()


class _AsyncStream(_Stream):
    async def __aiter__(self) -> AsyncIterator[bytes]:
        with unsuppressed(self._outside):
            iterator = aiter(self._stream)
        try:
            while True:
                try:
                    with unsuppressed(self._outside):
                        chunk = await anext(iterator)
                except StopAsyncIteration:
                    return
                yield chunk
                del chunk
        finally:
            # Whoever sends may close a generator that it does not exhaust, and knows this one only.
            # No other iterator: it may be the app's own stream, to be sent again.
            if isasyncgen(iterator):
                await iterator.aclose()

    async def aclose(self) -> None:
        await self._stream.aclose()


def app_stream(module: Any, stream: httpx.SyncByteStream | httpx.AsyncByteStream, outside: object) -> Any:
    """The stream of an app's request, each chunk of which is made as if nobody below were told to be silent.

    A generator may fetch what it yields from elsewhere: those requests are no part of the attempt, and need spans and
    trace headers of their own.

    Args:
        module: The request's own module.
        stream: The stream.
        outside: What the switch was where the app made the call.
    """
    kinds = isinstance(stream, module.SyncByteStream), isinstance(stream, module.AsyncByteStream)
    return _class(module, *kinds)(stream, outside)


@cache
def _class(module: Any, is_sync: bool, is_async: bool) -> Any:
    """A stream class of ``module``, whose transports insist on their own, and on the right kind."""
    sync_bases = (_SyncStream, module.SyncByteStream) if is_sync else ()
    async_bases = (_AsyncStream, module.AsyncByteStream) if is_async else ()
    return type("AppStream", (*sync_bases, *async_bases, _Stream), {})
