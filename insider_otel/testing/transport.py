"""The fake in process: a transport for the sync and async clients of httpx and httpx2."""

from __future__ import annotations

import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import anyio
import httpx

from insider_otel.testing._wire import Decide, End, Plan, Request
from insider_otel.testing.clock import FakeClock


class FakeTransport(httpx.BaseTransport, httpx.AsyncBaseTransport):
    """Hands requests to a fake and gives back what it decides, in the classes of the request's own family.

    What goes wrong is raised as the wire would have it raised: ``ReadError`` for a reset, ``ReadTimeout`` for silence
    and for a delay beyond the client's read timeout, ``RemoteProtocolError`` in the middle of a truncated body. Where
    the client sets no read timeout, silence is a ``ReadTimeout`` at once: a test should not hang.

    Args:
        decide: Says what happens to a request.
        clock: The fake's clock; a ``FakeClock`` takes the delays.
    """

    def __init__(self, decide: Decide, clock: Callable[[], float]) -> None:
        self._decide = decide
        self._clock = clock

    def handle_request(self, request: Any) -> Any:
        """Answer a request of a sync client."""
        request.read()
        plan = self._decide(_request(request))
        seconds, timed_out = _patience(plan, request)
        if seconds:
            _sleep(self._clock, seconds)
        return _result(plan, request, timed_out)

    async def handle_async_request(self, request: Any) -> Any:
        """Answer a request of an async client."""
        await request.aread()
        plan = self._decide(_request(request))
        seconds, timed_out = _patience(plan, request)
        if seconds:
            await _async_sleep(self._clock, seconds)
        return _result(plan, request, timed_out)


def _request(request: Any) -> Request:
    path, _, query = request.url.raw_path.decode("ascii").partition("?")
    return Request(
        method=request.method,
        host=request.url.host.lower(),
        path=path,
        query=query,
        headers={name.lower(): value for name, value in request.headers.items()},
        body=request.content,
    )


def _patience(plan: Plan, request: Any) -> tuple[float, bool]:
    """How long the client waits for the answer, in seconds, and whether in vain."""
    allowed = request.extensions.get("timeout", {}).get("read")
    if plan.end is End.SILENCE:
        return allowed or 0.0, True
    if allowed is not None and plan.delay > allowed:
        return allowed, True
    return plan.delay, False


def _result(plan: Plan, request: Any, timed_out: bool) -> Any:
    family = sys.modules[type(request).__module__.partition(".")[0]]
    if timed_out:
        raise family.ReadTimeout("the fake did not answer in time", request=request)
    if plan.end is End.RESET:
        raise family.ReadError("the fake reset the connection", request=request)
    headers = plan.reply.all_headers()
    body = plan.reply.body
    if plan.end is End.COMPLETE:
        headers["content-length"] = str(len(body))
        return family.Response(plan.reply.status, headers=headers, stream=family.ByteStream(body), request=request)
    headers["content-length"] = str(max(len(body), plan.after_bytes + 1))
    stream = _cut_stream(family, request, body[: plan.after_bytes])
    return family.Response(plan.reply.status, headers=headers, stream=stream, request=request)


def _cut_stream(family: Any, request: Any, part: bytes) -> Any:
    """A stream that breaks off after ``part``."""

    def broken() -> Exception:
        message = f"peer closed connection without sending complete message body (received {len(part)} bytes)"
        error: Exception = family.RemoteProtocolError(message, request=request)
        return error

    class CutStream(family.SyncByteStream, family.AsyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield part
            raise broken()

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield part
            raise broken()

    return CutStream()


def _sleep(clock: Callable[[], float], seconds: float) -> None:
    if isinstance(clock, FakeClock):
        clock.sleep(seconds)
    else:
        time.sleep(seconds)


async def _async_sleep(clock: Callable[[], float], seconds: float) -> None:
    if isinstance(clock, FakeClock):
        await clock.async_sleep(seconds)
    else:
        await anyio.sleep(seconds)
