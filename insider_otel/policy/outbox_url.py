"""The setting ``outbox``: where calls are kept that are sent later, and its options."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass
from typing import Literal
from urllib.parse import parse_qsl, unquote, urlsplit

from insider_otel.policy.setting_checks import SettingsError, setting_error, variable_of
from insider_otel.policy.state_url import StateURL

DEFAULT_TIMEOUT = 5.0
"""Seconds that the file may be kept busy by others before storing a call is given up."""

DEFAULT_QUEUE = "insider"
"""The Celery queue that jobs are sent to."""

_ACCEPTS = (
    '"sqlite:///relative.db", "sqlite:////absolute.db" (options: timeout in seconds, sync=normal or full), '
    '"celery" (option: queue, as in "celery?queue=insider"), "django" (with the Django adapter), or nothing for none'
)
_OPTIONS = {"sqlite": {"timeout", "sync"}, "celery": {"queue"}, "django": set[str]()}


@dataclass(frozen=True, slots=True)
class OutboxURL:
    """Where calls are kept that are sent later.

    Attributes:
        scheme: The kind of outbox.
        path: The path of the file, for sqlite.
        timeout: Seconds that the file may be kept busy by others before storing a call is given up.
        sync: When a stored call is on the disk. ``normal``: it survives the end of any process at any moment; a machine
            that loses power may forget the calls of its last moments. ``full``: the disk is waited for.
        queue: The Celery queue.
    """

    scheme: Literal["sqlite", "celery", "django"]
    path: str = ""
    timeout: float = DEFAULT_TIMEOUT
    sync: Literal["normal", "full"] = "normal"
    queue: str = DEFAULT_QUEUE

    @property
    def display(self) -> str:
        """The address without its options."""
        return f"sqlite:///{self.path}" if self.scheme == "sqlite" else self.scheme

    @classmethod
    def parse(cls, text: object) -> OutboxURL:
        """Read the setting.

        Args:
            text: What the app set.

        Raises:
            SettingsError: It cannot be used.
        """
        if not isinstance(text, str) or not text.strip():
            raise _error(text, _ACCEPTS)
        address, _, query = text.strip().partition("?")
        options = _options(text, query)
        if address in {"celery", "django"}:
            _refuse_unknown(text, address, options)
            return cls("celery" if address == "celery" else "django", queue=options.get("queue", DEFAULT_QUEUE))
        parts = urlsplit(address)
        path = unquote(parts.path.removeprefix("/"))
        if parts.scheme != "sqlite" or parts.netloc or not path or path.endswith("/") or "\0" in path:
            raise _error(text, _ACCEPTS)
        if path == ":memory:" or path.startswith("~"):
            raise _error(text, f"{_ACCEPTS}; the path is that of a file, ~ is not read as a home")
        _refuse_unknown(text, "sqlite", options)
        sync = options.get("sync", "normal")
        if sync not in {"normal", "full"}:
            raise _error(text, f"{_ACCEPTS}; sync is normal or full")
        return cls("sqlite", path, _timeout(text, options), "full" if sync == "full" else "normal")


def refuse_one_file(state: str, outbox: str) -> None:
    """Refuse one sqlite file for both settings: whichever is opened second could never use it.

    Args:
        state: The setting ``state``.
        outbox: The setting ``outbox``.

    Raises:
        SettingsError: They name one file.
    """
    limits, calls = StateURL.parse(state), OutboxURL.parse(outbox)
    if limits.scheme != "sqlite" or calls.scheme != "sqlite":
        return
    path = os.path.realpath(calls.path)
    if path == os.path.realpath(limits.target):
        raise SettingsError(
            f"state ({variable_of('state')}) and outbox ({variable_of('outbox')}) name one file, {path}: "
            "give each its own"
        )


def _error(text: object, accepts: str) -> SettingsError:
    # A URL that is none of ours may hold a password.
    shown = f"{text.partition('://')[0]}://…" if isinstance(text, str) and "://" in text else text
    return setting_error("outbox", shown, accepts)


def _options(text: str, query: str) -> dict[str, str]:
    try:
        pairs = parse_qsl(query, strict_parsing=True, keep_blank_values=True) if query else []
    except ValueError:
        raise _error(text, _ACCEPTS) from None
    if len(dict(pairs)) < len(pairs):
        raise _error(text, f"{_ACCEPTS}; each option once")
    return dict(pairs)


def _refuse_unknown(text: str, scheme: str, options: dict[str, str]) -> None:
    unknown = options.keys() - _OPTIONS[scheme]
    if unknown or not all(options.values()):
        raise _error(text, _ACCEPTS)


def _timeout(text: str, options: dict[str, str]) -> float:
    try:
        timeout = float(options.get("timeout", DEFAULT_TIMEOUT))
    except ValueError:
        timeout = math.nan
    if not 0 < timeout <= 60:
        raise _error(text, f"{_ACCEPTS}; timeout is seconds above 0, 60 at most")
    return timeout
