"""What this process's settings make: the web app, its clients, and a fake in their place."""

from __future__ import annotations

import threading
from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from django.core.signals import setting_changed
from django.utils.asyncio import async_unsafe

from insider_otel.policy.settings import SettingsError
from insider_otel.state.protocol import StoreError
from insider_otel.web import WebApp
from insider_otel_django.options import SETTING, read_options

if TYPE_CHECKING:
    import httpx

UNUSABLE = (SettingsError, StoreError, ImportError)
"""What wrong options raise."""


class _Site:
    """The web app of the settings: made at its first use, and anew when they change."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._app: WebApp | None = None
        self._fake: Any = None
        self._in_place = ExitStack()

    def app(self) -> WebApp:
        """The web app.

        Raises:
            SettingsError: An option cannot be used.
            StoreError: The store of limits can never be used.
            ImportError: The store of limits needs a package that is not installed.
        """
        app = self._app
        if app is None:
            with self._lock:
                app = self._app = self._app or self._make()
        return app

    def reset(self) -> None:
        """Let go of the web app: the settings have changed."""
        with self._lock:
            app, self._app = self._app, None
            self._in_place.close()
            if app is not None:
                app.close()

    def put_in_place(self, fake: Any) -> Any:
        """Let the clients send through a transport; None for the network. Returns the one before."""
        with self._lock:
            before, self._fake = self._fake, fake
            self.reset()
        return before

    def _make(self) -> WebApp:
        app = WebApp(read_options())
        if self._fake is not None:
            self._in_place.enter_context(app.clients.override(self._fake))
        return app


site = _Site()


@async_unsafe("insider_otel_django.client() would block the event loop: use `await async_client()`.")
def client() -> httpx.Client:
    """The client of this process. It is opened at its first use, once after a fork, and safe between threads.

    Raises:
        SynchronousOnlyOperation: An event loop runs in this thread.
    """
    made: httpx.Client = site.app().clients.client()
    return made


async def async_client() -> httpx.AsyncClient:
    """The client of the running event loop. It is opened at its first use, and closed when the loop ends."""
    made: httpx.AsyncClient = await site.app().clients.async_client()
    return made


@contextmanager
def override(fake: Any) -> Generator[None]:
    """Let the clients send to a fake Insider, in tests.

        with override(FakeInsider()):
            self.client.post("/signup", ...)

    Args:
        fake: A ``FakeInsider``, or any transport for sync and async clients.
    """
    before = site.put_in_place(fake.transport() if hasattr(fake, "transport") else fake)
    try:
        yield
    finally:
        site.put_in_place(before)


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    if setting == SETTING:
        site.reset()


setting_changed.connect(_on_setting_changed, dispatch_uid="insider_otel_django")
