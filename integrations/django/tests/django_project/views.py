"""Its views: one for each way in which a view can call Insider."""

from __future__ import annotations

import io
import json
import os
import threading
from collections.abc import AsyncGenerator, Generator
from typing import Any

import httpx
from asgiref.sync import async_to_sync, sync_to_async
from django.db import transaction
from django.http import FileResponse, HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.utils.decorators import method_decorator
from django.views import View
from insider_otel_django import async_client, client, deadline, on_commit

from django_project.insider import sample
from insider_otel import call_of
from insider_otel.http.scope import current_scope


def answer(response: httpx.Response) -> JsonResponse:
    """What became of a call, and whose scope it was made in."""
    scope = current_scope()
    call = call_of(response)
    return JsonResponse(
        {
            "outcome": call.outcome,
            "attempts": call.attempts,
            "stopped": call.stopped,
            "remaining": None if scope is None else scope.remaining,
            "calls": None if scope is None else scope.summary()["insider.request.calls"],
            "process": os.getpid(),
            "thread": threading.get_ident(),
        }
    )


def wish(request: HttpRequest) -> dict[str, Any]:
    """Whether the visitor's call is to be sent later, as a client wants to be told."""
    return {"extensions": {"insider": {"defer": True}}} if "defer" in request.GET else {}


def signup(request: Any) -> HttpResponse:
    """A sync view with the request's client."""
    return answer(request.insider.request(**sample(), **wish(request)))


async def signup_async(request: Any) -> HttpResponse:
    """An async view with the request's client."""
    insider = await request.ainsider()
    return answer(await insider.request(**sample(), **wish(request)))


def bare(request: HttpRequest) -> HttpResponse:
    """A view that was written before insider-otel came."""
    return answer(httpx.request(**sample()))


async def async_to_thread(request: HttpRequest) -> HttpResponse:
    """An async view whose call is made by sync code in a thread."""
    await (await async_client()).request(**sample())
    return answer(await sync_to_async(lambda: client().request(**sample()))())


def thread_to_async(request: HttpRequest) -> HttpResponse:
    """A sync view whose call is made by async code in a loop."""
    client().request(**sample())

    async def call() -> httpx.Response:
        return await (await async_client()).request(**sample())

    return answer(async_to_sync(call)())


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """A call before the response begins, and one for each part of it."""
    client().request(**sample())

    def parts() -> Generator[str]:
        for _ in range(2):
            yield answer(client().request(**sample())).text + "\n"

    return StreamingHttpResponse(parts())


async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    """The same, async."""
    await (await async_client()).request(**sample())

    async def parts() -> AsyncGenerator[str]:
        for _ in range(2):
            yield answer(await (await async_client()).request(**sample())).text + "\n"

    return StreamingHttpResponse(parts())


tidied: list[Any] = []
"""What became of the calls with which a stream ended."""


def stream_and_tidy(request: HttpRequest) -> StreamingHttpResponse:
    """A call when the stream ends, however it does."""

    def parts() -> Generator[str]:
        try:
            yield "1\n"
            yield "2\n"
        finally:
            tidied.append(json.loads(answer(client().request(**sample())).content))

    return StreamingHttpResponse(parts())


def file(request: HttpRequest) -> FileResponse:
    """A file."""
    client().request(**sample())
    return FileResponse(io.BytesIO(b"0123456789" * 1000), as_attachment=True, filename="orders.csv")


def failing(request: HttpRequest) -> HttpResponse:
    """A view that does not handle a failed call."""
    client().request(**sample()).raise_for_status()
    return HttpResponse("never")


async def failing_async(request: HttpRequest) -> HttpResponse:
    """The same, async."""
    (await (await async_client()).request(**sample())).raise_for_status()
    return HttpResponse("never")


def failing_deferred(request: HttpRequest) -> HttpResponse:
    """The same, of a call that was to be deferred."""
    client().request(**sample(), extensions={"insider": {"defer": True}})
    return HttpResponse("kept")


def broken(request: HttpRequest) -> HttpResponse:
    """A view with a mistake, after a call."""
    client().request(**sample())
    raise ValueError("a mistake of the shop's own")


@deadline(20.0)
def hasty(request: HttpRequest) -> HttpResponse:
    """A sync view with a deadline of its own."""
    return answer(client().request(**sample()))


@deadline(20.0)
async def hasty_async(request: HttpRequest) -> HttpResponse:
    """An async view with a deadline of its own."""
    return answer(await (await async_client()).request(**sample()))


@method_decorator(deadline(20.0), name="dispatch")
class Hasty(View):
    """A class with a deadline of its own."""

    def get(self, request: HttpRequest) -> HttpResponse:
        """Call."""
        return answer(client().request(**sample()))


@method_decorator(deadline(20.0), name="dispatch")
class HastyAsync(View):
    """An async class with a deadline of its own."""

    async def get(self, request: HttpRequest) -> HttpResponse:
        """Call."""
        return answer(await (await async_client()).request(**sample()))


@deadline(None)
def patient(request: HttpRequest) -> HttpResponse:
    """A view without a deadline."""
    return answer(client().request(**sample()))


committed: list[float | str | None] = []
"""What was left of the deadline when the work after a transaction was done; ``none`` outside of any scope."""


def order(request: HttpRequest) -> HttpResponse:
    """A view that sends a mail once the order has been committed."""

    def send() -> None:
        scope = current_scope()
        committed.append("none" if scope is None else scope.remaining)
        client().request(**sample("mail.send"))

    seconds = request.GET.get("deadline")
    with transaction.atomic():
        on_commit(send, deadline=None if seconds is None else float(seconds))
        if "rollback" in request.GET:
            transaction.set_rollback(True)
    return answer(client().request(**sample()))
