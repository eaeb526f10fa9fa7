"""Visitors who leave before they are answered: what is still awaited from Insider for them is cancelled."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from functools import wraps
from typing import Any, cast

from anyio import CancelScope
from opentelemetry.trace import NonRecordingSpan, SpanContext, get_current_span, use_span
from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive

from insider_otel.http.scope import current_scope
from insider_otel.state.event_loops import running_loop


class Visitor:
    """Who waits for the answer to a request.

    A server tells an app that the visitor has left when the app asks for the next part of the request, and endpoints
    do not ask. So somebody looks out while a call to Insider is awaited, and at no other time.

    Of what it receives there are no spans if the sampler is parent-based, as the SDK's own is. With another one, an
    instrumentation that makes them, one as long as each call, needs ``exclude_spans=["receive"]``.

    Args:
        receive: The server's ``receive``.
    """

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self._loop = running_loop()
        self._calls: set[CancelScope] = set()
        self._lookout: asyncio.Task[None] | None = None
        # What the lookout came upon, for the app: a part of the request, and then an error.
        self._part: Message | None = None
        self._error: Exception | None = None
        self._news = asyncio.Event()
        self._is_answered = False
        self.has_left = False

    async def receive(self) -> Message:
        """The next part of the request, for the app."""
        while self._lookout is not None and self._part is None and not self.has_left:
            # It reads already, and two at once would take each other's parts.
            self._news.clear()
            await self._news.wait()
        if self.has_left:
            return {"type": "http.disconnect"}
        part, self._part = self._part, None
        if part is None and self._error is not None:
            error, self._error = self._error, None
            raise error
        return part or await self._receive()

    def answered(self) -> None:
        """The response begins: who leaves from now on is the response's affair, as Starlette has it."""
        self._is_answered = True
        self._stop_looking_out()

    async def wait_for(self, call: Callable[[], Awaitable[Any]]) -> Any:
        """Await a call to Insider, for as long as the visitor waits.

        Args:
            call: Makes the call.

        Raises:
            ClientDisconnect: The visitor has left; the call is cancelled, or was not begun.
        """
        # The server is asked in its own loop only: a `def` endpoint may run another, in its thread.
        if self._is_answered or running_loop() is not self._loop:
            return await call()
        if self.has_left:
            raise ClientDisconnect
        with CancelScope() as scope:
            self._calls.add(scope)
            if self._lookout is None and self._error is None:
                lookout = asyncio.create_task(_without_spans(self._look_out))
                # Where tasks are begun at once, it may be over already.
                self._lookout = None if lookout.done() else lookout
            try:
                return await call()
            finally:
                self._calls.discard(scope)
                if not self._calls:
                    self._stop_looking_out()
        raise ClientDisconnect

    async def _look_out(self) -> None:
        try:
            # Of a body that the app has not read, one part is kept for it, and no more: it may be long.
            while self._part is None or not self._part.get("more_body", False):
                message = await self._receive()
                if message["type"] == "http.disconnect":
                    self.has_left = True
                    for call in self._calls:
                        call.cancel()
                    return
                self._part = message
                self._news.set()
        except Exception as error:  # noqa: BLE001  (it is the app's, as the part is that it was raised for)
            self._error = error
        finally:
            # Told to stop, it may have a successor already.
            if self._lookout is asyncio.current_task():
                self._lookout = None
            self._news.set()

    def _stop_looking_out(self) -> None:
        if self._lookout is not None:
            self._lookout.cancel()
            self._lookout = None
            self._news.set()


async def _without_spans(work: Callable[[], Awaitable[None]]) -> None:
    # Whoever traces the server's messages would trace a wait that nobody has: each as long as the call that is awaited.
    # The instrumentation asks the sampler only: one that is not parent-based has it do so.
    here = get_current_span().get_span_context()
    with use_span(NonRecordingSpan(SpanContext(here.trace_id, here.span_id, is_remote=False))):
        await work()


visitor: ContextVar[Visitor | None] = ContextVar("insider_otel_fastapi_visitor", default=None)
"""Whose request is handled here."""


def cancel_for_visitors_who_leave(client: Any) -> None:
    """Have the calls of an async client last no longer than the visitor stays for whom they are made.

    Calls outside of a request, and in ``insider_otel.background()``, are made for nobody who could leave.

    Args:
        client: A client of httpx or httpx2.
    """
    send = client.send

    @wraps(send)
    async def send_for_visitor(*args: Any, **kwargs: Any) -> Any:
        who = visitor.get()
        if who is None or current_scope() is None:
            return await send(*args, **kwargs)
        return await who.wait_for(lambda: send(*args, **kwargs))

    client.send = send_for_visitor


def is_about_leaving(error: BaseException) -> bool:
    """Whether an exception says that the visitor has left, and nothing else; a group of tasks may say it many times."""
    if isinstance(error, BaseExceptionGroup):
        group = cast("BaseExceptionGroup[BaseException]", error)
        return group.split(ClientDisconnect)[1] is None
    return isinstance(error, ClientDisconnect)
