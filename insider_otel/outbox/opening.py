"""Which outbox a setting names: one for the whole process, however many transports name it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from importlib import import_module
from typing import cast

from insider_otel.outbox.protocol import JobStore, Outbox, OutboxError
from insider_otel.policy.outbox_url import OutboxURL
from insider_otel.policy.setting_checks import SettingsError, variable_of

_outboxes: dict[OutboxURL, Outbox] = {}
_lock = threading.Lock()

# The outbox in a Django app's own database needs its models, so the adapter brings it.
_DJANGO = "insider_otel_django.outbox"


def open_outbox(url: OutboxURL) -> Outbox:
    """The outbox at an address: the same one each time.

    Args:
        url: The address.

    Raises:
        SettingsError: It can never be used.
        ImportError: It needs a package that is not installed.
    """
    with _lock:
        outbox = _outboxes.get(url)
        if outbox is None:
            try:
                outbox = _outboxes[url] = _open(url)
            except OutboxError as error:
                raise SettingsError(f"outbox ({variable_of('outbox')}): {error}") from error
        return outbox


def all_outboxes() -> tuple[Outbox, ...]:
    """Every outbox of this process."""
    return tuple(_outboxes.values())


def _open(url: OutboxURL) -> Outbox:
    match url.scheme:
        case "sqlite":
            from insider_otel.outbox.sqlite_outbox import SQLiteOutbox  # noqa: PLC0415  (who has none loads none)

            return SQLiteOutbox(url.path, timeout=url.timeout, sync=url.sync)
        case "celery":
            from insider_otel.outbox.celery_outbox import CeleryOutbox  # noqa: PLC0415

            celery: Outbox = CeleryOutbox(url.queue)
            return celery
        case "django":
            try:
                module = import_module(_DJANGO)
            except ModuleNotFoundError as error:
                raise ImportError(
                    'outbox="django" needs the Django adapter: pip install "insider-otel[django]"'
                ) from error
            return cast("Callable[[], JobStore]", module.open_outbox)()
