"""What ``settings.INSIDER_OTEL`` makes of this process: a web app, its clients, and a fake in the network's place."""

from __future__ import annotations

import logging
import threading
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from django.conf import settings
from django.core.signals import setting_changed
from django.utils.asyncio import async_unsafe

from insider_otel.outbox.opening import all_outboxes
from insider_otel.policy.frames import raises_bare
from insider_otel.policy.settings import SettingsError
from insider_otel.state.protocol import StoreError
from insider_otel.web import OptionsError, WebApp, WebOptions

if TYPE_CHECKING:
    import httpx

    from insider_otel.outbox.protocol import JobStore

_SETTING = "INSIDER_OTEL"
_log = logging.getLogger("insider_otel.django")

UNUSABLE = (SettingsError, StoreError, ImportError)
"""What wrong options raise."""


@raises_bare
def read_options() -> WebOptions:
    """The options in ``settings.INSIDER_OTEL`` and in the ``INSIDER_OTEL_*`` variables, which win.

    Raises:
        OptionsError: It is no dictionary, or there is no such option.
        SettingsError: A value cannot be used.
    """
    config: Any = getattr(settings, _SETTING, {})
    if not isinstance(config, Mapping):
        raise OptionsError(
            f'settings.{_SETTING} is a {type(config).__name__}; it accepts a dictionary: {{"REQUEST_DEADLINE": 3.0}}'
        )
    return WebOptions.from_upper_case(config, where=f"settings.{_SETTING}")


class _Site:
    """The web app of the settings: made when Django starts or at its first use, and anew when they change."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._app: WebApp | None = None
        self._is_wanted = False
        self._fake: Any = None

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
                self._is_wanted = True
                app = self._app = self._app or self._make()
        return app

    def set_up(self) -> None:
        """Make the web app now, which covers every client of the process. If it cannot be made, the log says why."""
        try:
            self.app()
        except UNUSABLE as error:
            # Raised here, it would keep ``manage.py check`` from reporting it. The middleware raises it: a server does
            # not start.
            _log.error("insider-otel is off: %s", error)

    def renew(self) -> None:
        """Make the web app anew, if there was to be one: the settings have changed."""
        with self._lock:
            app, self._app = self._app, None
            if app is not None:
                app.close()
                _leave_database()
            if self._is_wanted:
                self.set_up()

    def put_in_place(self, fake: Any) -> Any:
        """Let the clients send to a fake; None for the network. Returns the one before."""
        with self._lock:
            before, self._fake = self._fake, fake
            self.renew()
        return before

    def _make(self) -> WebApp:
        app = WebApp(read_options())
        if self._fake is not None:
            app.replace_network(self._fake)
        return app


def _leave_database() -> None:
    """Close what a worker used: a test's database can be dropped when nobody is connected to it."""
    for outbox in all_outboxes():
        if outbox.name == "django":
            cast("JobStore", outbox).close()


site = _Site()


@async_unsafe("insider_otel_django.client() would block the event loop: use `await async_client()`.")
def client() -> httpx.Client:
    """The client of this process. It is opened at its first use, once after a fork, and safe between threads.

    Raises:
        SynchronousOnlyOperation: An event loop runs in this thread.
    """
    made: httpx.Client = site.app().clients().client()
    return made


async def async_client() -> httpx.AsyncClient:
    """The client of the running event loop. It is opened at its first use, and closed when the loop ends."""
    made: httpx.AsyncClient = await site.app().clients().async_client()
    return made


@contextmanager
def override(fake: Any) -> Generator[None]:
    """Let the clients send to a fake Insider, in tests.

        with override(FakeInsider()):
            self.client.post("/signup", ...)

    Args:
        fake: A ``FakeInsider``, or any transport for sync and async clients.
    """
    before = site.put_in_place(fake)
    try:
        yield
    finally:
        site.put_in_place(before)


def _on_setting_changed(*, setting: str, **_: Any) -> None:
    if setting == _SETTING:
        site.renew()


setting_changed.connect(_on_setting_changed, dispatch_uid="insider_otel_django")
