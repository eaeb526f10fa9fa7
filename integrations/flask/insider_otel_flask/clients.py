"""The clients of the current app, and how tests replace what they send through."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import httpx
from flask import Flask
from werkzeug.local import LocalProxy

from insider_otel_flask.state import current_web_app, web_app_of


def _client() -> Any:
    return current_web_app().clients.client()


insider: httpx.Client = LocalProxy(_client)  # type: ignore[assignment]
"""The client of the current app: an ``httpx.Client``, opened once for each process and shared by its threads."""


async def async_client() -> Any:
    """The async client of the current app, for async views: ``await (await async_client()).post(...)``.

    Flask runs each async view in an event loop of its own; the client is closed with it.

    Returns:
        An ``httpx.AsyncClient``, or an ``httpx2.AsyncClient`` where the extension was given ``httpx2``.

    Raises:
        RuntimeError: There is no app context, or its app does not use the extension.
    """
    return await current_web_app().clients.async_client()


def override(app: Flask, fake: Any) -> AbstractContextManager[None]:
    """Let the clients of an app send to a fake, for the length of a ``with`` block of a test.

        with override(app, insider_fake):
            app.test_client().post("/signup")

    Args:
        app: The app.
        fake: A ``FakeInsider``, or any transport of httpx.

    Raises:
        RuntimeError: The app does not use the extension.
    """
    transport = fake.transport() if callable(getattr(fake, "transport", None)) else fake
    return web_app_of(app).clients.override(transport)
