"""Streaming responses: their content is made after the middleware has returned them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator
from contextlib import AbstractContextManager, aclosing, contextmanager
from typing import TYPE_CHECKING, Any

from opentelemetry import context as otel_context
from opentelemetry.trace import get_current_span, set_span_in_context

from insider_otel.http.scope import RequestScope, within

if TYPE_CHECKING:
    from collections.abc import Callable

    Resume = Callable[[], AbstractContextManager[None]]


def keep_open(scope: RequestScope, response: Any) -> None:
    """Have a response's content made in the request's scope and trace, and the scope closed with the response.

    Args:
        scope: The scope of the request; calls are being made in it.
        response: The response, a ``StreamingHttpResponse``.
    """
    # Django's own instrumentation would end it as soon as the content begins.
    scope.hold_server_span()
    # A file is read by the server, perhaps by ``sendfile``: wrapped, it could not be.
    if getattr(response, "file_to_stream", None) is None:
        resume = _resume(scope)
        parts = _parts_async if response.is_async else _parts
        response.streaming_content = parts(response.streaming_content, resume)
    # Django puts ``request.close`` there too: the response has no public place for it.
    response._resource_closers.append(scope.close)


def _resume(scope: RequestScope) -> Resume:
    context = otel_context.get_current()
    if scope.server_span is not None and not get_current_span().get_span_context().is_valid:
        # The framework's instrumentation stands further in and has ended its span: the trace goes on under it.
        context = set_span_in_context(scope.server_span, context)

    @contextmanager
    def resumed() -> Generator[None]:
        token = otel_context.attach(context)
        try:
            with within(scope):
                yield
        finally:
            otel_context.detach(token)

    return resumed


# The scope is resumed for each part and not for all of them: between two parts the thread is the server's, which may
# serve another request.


def _parts(content: Iterator[bytes], resume: Resume) -> Generator[bytes]:
    while True:
        with resume():
            try:
                part = next(content)
            except StopIteration:
                return
        yield part


async def _parts_async(content: AsyncIterator[bytes], resume: Resume) -> AsyncGenerator[bytes]:
    async with aclosing(content):  # type: ignore[type-var]
        while True:
            with resume():
                try:
                    part = await anext(content)
                except StopAsyncIteration:
                    return
            yield part
