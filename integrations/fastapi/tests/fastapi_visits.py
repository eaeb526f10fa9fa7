"""Visits as a server hands them to an app, and an Insider that answers when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx
from fastapi import FastAPI
from insider_otel_fastapi import override
from starlette.types import Receive


class Insiders:
    """An Insider that answers when it is told to."""

    def __init__(self) -> None:
        self.asked = asyncio.Semaphore(0)
        self.answers = asyncio.Event()

    async def handle(self, request: httpx.Request) -> httpx.Response:
        """A request arrived."""
        self.asked.release()
        await self.answers.wait()
        return httpx.Response(200, json={"data": {"successful": {"count": 1}}})


class Visit:
    """A request, as a server hands it to an app: each of its messages is received once."""

    def __init__(self, *parts: bytes) -> None:
        self.messages = asyncio.Queue[Any]()
        self.sent: list[Any] = []
        for left, part in enumerate(parts or [b""], 1 - len(parts or [b""])):
            self.messages.put_nowait({"type": "http.request", "body": part, "more_body": left < 0})

    def leave(self) -> None:
        """The visitor goes away."""
        self.messages.put_nowait({"type": "http.disconnect"})

    async def send(self, message: Any) -> None:
        """The app answers. As with uvicorn, nothing more is to come after that."""
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self.leave()

    async def to(self, app: FastAPI, receive: Receive | None = None) -> None:
        """Have it handled."""
        scope = {"type": "http", "method": "POST", "path": "/", "query_string": b"", "headers": [], "app": app}
        await app({**scope, "asgi": {"version": "3.0", "spec_version": "2.3"}}, receive or self.messages.get, self.send)

    @property
    def status(self) -> int | None:
        """The status of the answer."""
        return self.sent[0]["status"] if self.sent else None


@contextmanager
def insider_that_answers(app: FastAPI) -> Iterator[None]:
    insider = Insiders()
    insider.answers.set()
    with override(app, httpx.MockTransport(insider.handle)), anyio.fail_after(60):
        yield
