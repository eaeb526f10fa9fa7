"""An app's clients outside of its requests: in its lifespan, in a command, and in tests, with a fake below them."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import httpx
from starlette.types import ASGIApp

from insider_otel.web import WebApp
from insider_otel_fastapi.middleware import insider_layers


async def async_client(app: ASGIApp) -> httpx.AsyncClient:
    """The client of the running event loop, the one that endpoints get.

        @asynccontextmanager
        async def lifespan(app):
            insider = await async_client(app)
            ...

    It is closed after the app's own lifespan has ended.

    Args:
        app: The app.

    Raises:
        RuntimeError: The app has no ``InsiderMiddleware``, or two of them.
    """
    made: httpx.AsyncClient = await _web_app_of(app).clients().async_client()
    return made


def client(app: ASGIApp) -> httpx.Client:
    """The client of this process, the one that ``def`` endpoints get.

    Args:
        app: The app.

    Raises:
        RuntimeError: The app has no ``InsiderMiddleware``, or two of them.
    """
    made: httpx.Client = _web_app_of(app).clients().client()
    return made


def override(app: ASGIApp, fake: Any) -> AbstractContextManager[None]:
    """Let the clients of an app send to a fake, for the length of a ``with`` block of a test.

        with override(app, insider_fake), TestClient(app) as visitor:
            visitor.post("/signup")

    Args:
        app: The app.
        fake: A ``FakeInsider``, or any transport for sync and async clients.

    Raises:
        RuntimeError: The app has no ``InsiderMiddleware``, or two of them.
    """
    return _web_app_of(app).override(fake)


def _web_app_of(app: ASGIApp) -> WebApp:
    for layer in insider_layers(app):
        return layer.web_app
    raise RuntimeError(
        "this app does not use insider-otel yet: call app.add_middleware(insider_otel_fastapi.InsiderMiddleware); if "
        "it does, below a middleware that hides it, pass the InsiderMiddleware itself"
    )
