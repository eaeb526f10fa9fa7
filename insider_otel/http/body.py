"""Reading enough of a response's body for a verdict, and leaving all of it to the app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import TYPE_CHECKING, Any, NamedTuple

from insider_otel.http.effects import Close, Effects, Iterate, NextChunk

if TYPE_CHECKING:
    import httpx

PREFIX_LIMIT = 256 * 1024
"""Bytes of a body that are read for the verdict."""

_LATE_READS = 2
"""Of an answer that comes with the deadline: its body and its end are mostly here with its status."""

_GRACE = 0.1
"""Seconds for those reads. What is here takes no longer."""

_PIECE = 1024
_SMALL_PIECE = 16
_BOUNDED = ("gzip", "deflate")
"""Codings that make at most a thousand bytes of one. Of some bytes of the others come megabytes."""

_SWITCHING_PROTOCOLS = 101
# Insider answers in JSON, text and, from its edge, HTML. What is none of these is not worth holding back from the app.
_OPAQUE = ("application/octet-stream", "application/zip", "text/csv", "text/event-stream", "image/", "video/", "audio/")

Over = Callable[[BaseException | None], None]
"""Told when the app is done with a long body, with the error it ended in, if any: ``GeneratorExit`` if it was dropped.
That may be wherever the garbage collector finds it, so no lock is to be taken then."""


class Prefix(NamedTuple):
    """What was read of a body.

    Attributes:
        content: Its first bytes, without content coding.
        truncated: Whether there may be more of it.
        unread: Whether the rest is still to come, through the response.
        broken: The error in which it ended, if it did.
        undecodable: The error that the app will meet when it reads the body, if its content coding is not what it is
            said to be.
    """

    content: bytes
    truncated: bool = False
    unread: bool = False
    broken: Exception | None = None
    undecodable: Exception | None = None


def read_prefix(module: Any, response: httpx.Response, over: Over, left: Callable[[], float]) -> Effects[Prefix]:
    """Read as much of a body as a verdict needs. The app finds the response as if nobody had.

    Args:
        module: The response's own module.
        response: The response; its stream is replaced by one that begins with what was read.
        over: Called once the app is done with a body that is longer than the prefix.
        left: Says how many seconds are left before the deadline. A timeout bounds each read; a server that sends a byte
            now and then would go on for ever.
    """
    if response.status_code == _SWITCHING_PROTOCOLS:
        return Prefix(b"")
    if response.is_closed:
        return _already_read(module, response)
    stream: Any = response.stream
    iterator = yield Iterate(stream)
    chunks: list[bytes] = []
    wanted = 0 if _is_opaque(response) else PREFIX_LIMIT
    late_reads, least = 0, min(left(), 0.0) - _GRACE
    broken: Exception | None = None
    try:
        while wanted > 0:
            seconds = left()
            late_reads += seconds <= 0
            if late_reads > _LATE_READS or seconds < least:
                broken = module.ReadTimeout("the deadline passed while the body was read")
                break
            chunk = yield NextChunk(iterator)
            if chunk is None:
                break
            chunks.append(chunk)
            wanted -= len(chunk)
    except Exception as exc:
        broken = exc
    except GeneratorExit:
        raise
    except BaseException:
        yield Close(stream)
        raise
    raw = b"".join(chunks)
    unread = wanted <= 0
    if unread:
        response.stream = rest_of_body(module)(chunks, iterator, stream, over)
    else:
        yield Close(stream)
        response.stream = module.ByteStream(raw) if broken is None else broken_body(module)(raw, broken)
    content, is_sound = _decoded(module, response, raw)
    undecodable: Exception | None = None
    if not is_sound and broken is None:
        undecodable = _decoding_error(module, response, chunks if unread else [raw], is_whole=not unread)
    try:
        truncated = unread or broken is not None or not is_sound or len(content) >= PREFIX_LIMIT
        return Prefix(content, truncated, unread, broken, undecodable)
    finally:
        # An error's traceback holds this frame, and the response may hold the error.
        del broken, undecodable, response


def _already_read(module: Any, response: httpx.Response) -> Prefix:
    """The body of a response that a cache or a mock below us read itself, or closed."""
    try:
        content = response.content
    except module.ResponseNotRead:
        return Prefix(b"", truncated=True)
    return Prefix(content[:PREFIX_LIMIT], truncated=len(content) > PREFIX_LIMIT)


def _is_opaque(response: httpx.Response) -> bool:
    """Whether a successful response's body is a download or a stream of events, which says nothing of its success."""
    return response.is_success and response.headers.get("content-type", "").lower().startswith(_OPAQUE)


def _decoded(module: Any, response: httpx.Response, raw: bytes) -> tuple[bytes, bool]:
    """The first bytes of a body without its content coding.

    Args:
        module: The response's own module, whose decoders are used.
        response: The response; its ``Content-Encoding`` is read.
        raw: The first bytes as received.

    Returns:
        At most ``PREFIX_LIMIT`` bytes, as far as they can be decoded: a small bomb does not grow large here. Whether
        decoding did not end in an error.
    """
    if not raw or "content-encoding" not in response.headers:
        return raw, True
    coding = response.headers["content-encoding"]
    if not coding or coding == "identity":
        return raw, True
    size = _PIECE if coding.lower() in _BOUNDED else _SMALL_PIECE
    pieces = (raw[start : start + size] for start in range(0, len(raw), size))
    decoding = module.Response(200, headers={"content-encoding": coding}, content=pieces)
    decoded = bytearray()
    try:
        for chunk in decoding.iter_bytes():
            decoded += chunk
            if len(decoded) >= PREFIX_LIMIT:
                break
    except module.DecodingError:
        return bytes(decoded[:PREFIX_LIMIT]), False
    return bytes(decoded[:PREFIX_LIMIT]), True


def _decoding_error(module: Any, response: httpx.Response, chunks: list[bytes], *, is_whole: bool) -> Exception | None:
    """The error that the app will certainly meet: in decoding what it will find, in the pieces in which it will.

    Args:
        module: The response's own module.
        response: The response; its ``Content-Encoding`` is read.
        chunks: What was read of the body.
        is_whole: Whether that is all of it. If not, an error after the last piece says nothing of the rest.
    """
    is_over = False

    def pieces() -> Iterator[bytes]:
        nonlocal is_over
        yield from chunks
        is_over = True

    headers = {"content-encoding": response.headers["content-encoding"]}
    try:
        for _ in module.Response(200, headers=headers, content=pieces()).iter_bytes():
            pass
    except module.DecodingError as error:
        return error if is_whole or not is_over else None
    return None


def _nobody(error: BaseException | None) -> None:
    """Wants to know no more."""


class RestOfBody:
    """A body of which a prefix has been read: replays it, goes on with the rest, and says when it is over."""

    def __init__(self, prefix: list[bytes], rest: Any, stream: Any, over: Over) -> None:
        self._prefix = prefix
        self._rest = rest
        self._stream = stream
        self._over = over

    def __iter__(self) -> Iterator[bytes]:
        try:
            yield from self._prefix
            yield from self._rest
        except GeneratorExit:
            raise
        except BaseException as exc:
            self._end(exc)
            raise

    async def __aiter__(self) -> AsyncIterator[bytes]:
        try:
            for chunk in self._prefix:
                yield chunk
            async for chunk in self._rest:
                yield chunk
        except GeneratorExit:
            raise
        except BaseException as exc:
            self._end(exc)
            raise

    def close(self) -> None:
        try:
            # A generator that another thread reads cannot be closed. That thread meets the end of the stream below it.
            with suppress(ValueError):
                if hasattr(self._rest, "close"):
                    self._rest.close()
        finally:
            try:
                self._stream.close()
            finally:
                self._end(None)

    async def aclose(self) -> None:
        try:
            # As above, of another task.
            with suppress(RuntimeError):
                if hasattr(self._rest, "aclose"):
                    await self._rest.aclose()
        finally:
            try:
                await self._stream.aclose()
            finally:
                self._end(None)

    def _end(self, error: BaseException | None) -> None:
        # Told once, and then let go: clients of httpx keep a stream and its response in a cycle.
        over, self._over = self._over, _nobody
        over(error)

    def __del__(self) -> None:
        # Dropped without being closed: the call is over all the same.
        self._end(GeneratorExit())


class BrokenBody:
    """A body that broke off while it was read: replays what came of it, and then the error."""

    def __init__(self, prefix: bytes, error: Exception) -> None:
        self._prefix = prefix
        self._error: Exception | None = error

    def __iter__(self) -> Iterator[bytes]:
        if self._prefix:
            yield self._prefix
        self._break_off()

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if self._prefix:
            yield self._prefix
        self._break_off()

    def _break_off(self) -> None:
        error, self._error = self._error, None
        assert error is not None, "a response reads its stream once"
        try:
            raise error
        finally:
            # The exception's traceback holds this frame; holding the exception in turn would make a cycle.
            del error


@cache
def broken_body(module: Any) -> Any:
    """``BrokenBody`` as a stream class of ``module``."""
    return type("BrokenBody", (BrokenBody, module.SyncByteStream, module.AsyncByteStream), {})


@cache
def rest_of_body(module: Any) -> Any:
    """``RestOfBody`` as a stream class of ``module``, whose clients insist on their own."""
    return type("RestOfBody", (RestOfBody, module.SyncByteStream, module.AsyncByteStream), {})
