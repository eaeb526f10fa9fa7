"""Streaming responses: their content is made after the middleware has returned them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing
from functools import partial
from typing import Any

from insider_otel.http.scope import RequestScope
from insider_otel.web import HandledRequest


def keep_open(scope: RequestScope, response: Any) -> None:
    """Have a response's content made in the request's scope and trace, and the scope closed with the response.

    Args:
        scope: The scope of the request; calls are being made in it.
        response: The response, a ``StreamingHttpResponse``.
    """
    # Django's own instrumentation would end it as soon as the content begins.
    scope.hold_server_span()
    handled = HandledRequest(scope)
    handled.begin_body()
    # A visitor may leave: a generator's ``finally`` belongs to the request as well. Django has put its ``close`` there;
    # the response has no public place for it.
    closers = response._resource_closers
    closers[:] = [partial(_close, closer, handled) for closer in closers]
    # A file is read by the server, perhaps by ``sendfile``: wrapped, it could not be.
    if getattr(response, "file_to_stream", None) is None:
        parts = _parts_async if response.is_async else _parts
        response.streaming_content = parts(response.streaming_content, handled)
    closers.append(scope.close)


def _close(closer: Callable[[], None], handled: HandledRequest) -> None:
    with handled.resumed():
        closer()


# The request is resumed for each part and not for all of them: between two parts the thread is the server's, which may
# serve another request.


def _parts(content: Iterator[bytes], handled: HandledRequest) -> Generator[bytes]:
    while True:
        with handled.resumed():
            try:
                part = next(content)
            except StopIteration:
                return
        yield part


async def _parts_async(content: AsyncIterator[bytes], handled: HandledRequest) -> AsyncGenerator[bytes]:
    async with aclosing(content):  # type: ignore[type-var]
        while True:
            with handled.resumed():
                try:
                    part = await anext(content)
                except StopAsyncIteration:
                    return
            yield part
