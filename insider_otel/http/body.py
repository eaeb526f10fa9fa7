"""Reading enough of a response's body for a verdict, and leaving the rest to the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import httpx

PREFIX_LIMIT = 256 * 1024
"""Bytes of a body that are read for the verdict."""

_PIECE = 1024
# Insider answers in JSON, text and, from its edge, HTML. What is none of these is not worth holding back from the app.
_OPAQUE = ("application/octet-stream", "application/zip", "text/csv", "text/event-stream", "image/", "video/", "audio/")


def is_opaque(response: httpx.Response) -> bool:
    """Whether a successful response's body is a download or a stream of events, which says nothing of its success."""
    return response.is_success and response.headers.get("content-type", "").lower().startswith(_OPAQUE)


def decoded_prefix(module: Any, response: httpx.Response, raw: bytes) -> bytes:
    """The first bytes of a body without its content coding.

    Args:
        module: The response's own module, whose decoders are used.
        response: The response; its ``Content-Encoding`` is read.
        raw: The first bytes as received.

    Returns:
        At most ``PREFIX_LIMIT`` bytes, as far as they can be decoded: a small bomb does not grow large here.
    """
    coding = response.headers.get("content-encoding")
    if not coding or coding == "identity" or not raw:
        return raw
    pieces = (raw[start : start + _PIECE] for start in range(0, len(raw), _PIECE))
    decoding = module.Response(200, headers={"content-encoding": coding}, content=pieces)
    decoded = bytearray()
    try:
        for chunk in decoding.iter_bytes():
            decoded += chunk
            if len(decoded) >= PREFIX_LIMIT:
                break
    except module.DecodingError:
        # Cut off, or not what the header says. The app meets the same error when it reads the body; for the verdict,
        # what could be decoded will do.
        pass
    return bytes(decoded[:PREFIX_LIMIT])


class RestOfBody:
    """A body of which a prefix has been read: replays it, goes on with the rest, and says when it is over."""

    def __init__(self, prefix: list[bytes], rest: Any, stream: Any, over: Callable[[Exception | None], None]) -> None:
        self._prefix = prefix
        self._rest = rest
        self._stream = stream
        self._over = over

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._prefix
            yield from self._rest
        except Exception as exc:
            self._over(exc)
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for chunk in self._prefix:
                yield chunk
            async for chunk in self._rest:
                yield chunk
        except Exception as exc:
            self._over(exc)
            raise

    def close(self) -> None:
        try:
            self._stream.close()
        finally:
            self._over(None)

    async def aclose(self) -> None:
        try:
            await self._stream.aclose()
        finally:
            self._over(None)

    def __del__(self) -> None:
        # Dropped without being closed: the call is over all the same.
        self._over(None)


def rest_of_body(module: Any) -> type[RestOfBody]:
    """``RestOfBody`` as a stream class of ``module``, whose clients insist on their own."""
    return type("RestOfBody", (RestOfBody, module.SyncByteStream, module.AsyncByteStream), {})
