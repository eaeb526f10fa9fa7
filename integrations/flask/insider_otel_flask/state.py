"""What an app that uses the extension has in ``app.extensions``."""

from __future__ import annotations

from flask import Flask, current_app, has_app_context

from insider_otel.web import WebApp

KEY = "insider_otel"


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


def current_web_app() -> WebApp:
    """That of the app whose context is current.

    Raises:
        RuntimeError: There is no app context, or its app does not use the extension.
    """
    if not has_app_context():
        raise RuntimeError(
            "there is no Flask app here whose Insider client could be used: work in a request, in a command of the "
            "app, or in a `with app.app_context():` block; in a generator that a view returns, wrap it in "
            "stream_with_context"
        )
    return web_app_of(current_app)
