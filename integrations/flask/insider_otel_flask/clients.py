"""The clients of the current app, and how tests replace what they send through."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import httpx
from flask import Flask, current_app, has_app_context
from werkzeug.local import LocalProxy

from insider_otel.web import Clients, WebApp

KEY = "insider_otel"
"""Where ``app.extensions`` has the ``WebApp`` of an app."""


def web_app_of(app: Flask) -> WebApp:
    """What ``init_app`` gave an app.

    Args:
        app: The app.

    Raises:
        RuntimeError: The extension was not initialised on it.
    """
    web_app = app.extensions.get(KEY)
    if not isinstance(web_app, WebApp):
        raise RuntimeError(
            f"the Flask app {app.name!r} does not use insider-otel yet: call InsiderOTel(app), or init_app(app) in its "
            "factory"
        )
    return web_app


def _clients() -> Clients:
    if not has_app_context():
        raise RuntimeError(
            "there is no Flask app here whose Insider client could be used: work in a request, in a command of the "
            "app, or in a `with app.app_context():` block; in a generator that a view returns, wrap it in "
            "stream_with_context"
        )
    return web_app_of(current_app).clients()


insider: httpx.Client = LocalProxy(lambda: _clients().client())  # type: ignore[assignment]
"""The client of the current app: an ``httpx.Client``, opened once for each process and shared by its threads."""


async def async_client() -> Any:
    """The async client of the current app, for async views: ``await (await async_client()).post(...)``.

    Flask runs each async view in an event loop of its own; the client is closed with it.

    Returns:
        An ``httpx.AsyncClient``, or an ``httpx2.AsyncClient`` where the extension was given ``httpx2``.

    Raises:
        RuntimeError: There is no app context, or its app does not use the extension.
    """
    return await _clients().async_client()


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
    return web_app_of(app).override(fake)
