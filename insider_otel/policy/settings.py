"""Settings: what an app may change, checked once, with errors that name the field and its variable."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any, Literal, cast

from insider_otel.api.operations import Limit, Operation
from insider_otel.policy.frames import raises_bare
from insider_otel.policy.setting_checks import (
    CREDENTIALS_PREFIX,
    LIMITS_ACCEPT,
    MOST_RETRIES,
    PREFIX,
    Check,
    SettingsError,
    address_error,
    choice,
    fernet_keys,
    insider_addresses,
    one_spelling,
    pool_limits,
    provider,
    retries,
    seconds,
    setting_error,
    split_address,
    variable_of,
)
from insider_otel.policy.state_url import StateURL

__all__ = [
    "PREFIX",
    "Dedupe",
    "Events",
    "Mode",
    "Settings",
    "SettingsError",
    "address_error",
    "one_spelling",
    "split_address",
    "variable_of",
]


class Mode(StrEnum):
    """How far insider-otel goes."""

    OBSERVE = "observe"
    """Record what happens; change nothing."""
    ENFORCE = "enforce"
    """Record, and retry, wait and hold back."""


class Events(StrEnum):
    """How what happened inside a call is emitted."""

    SPAN = "span"
    LOG = "log"
    BOTH = "both"


class Dedupe(StrEnum):
    """Which calls are held back as duplicates of one that succeeded."""

    DOCUMENTED = "documented"
    """Those of operations for which Insider itself ignores a repeat for a while: mail."""
    ALL = "all"
    """Those of every operation that changes something without anybody waiting for what the answer says: no reads, no
    one-time codes, no tokens."""
    OFF = "off"
    """None."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an app may change. Every field has a keyword here and an ``INSIDER_OTEL_*`` variable.

    Args:
        mode: ``observe`` records only; ``enforce`` also retries, waits and holds back.
        hosts: Other addresses that are Insider, such as a fake or a proxy:
            ``{"127.0.0.1:8080": "unification.useinsider.com"}``. The value ``*`` stands for every Insider host at once;
            the operation is then found by its path alone.
        deadline: Seconds a call may take in all, outside a ``request_scope``; None for no bound.
        quick_retries: Retries inside the call, paid from the retry budget. The budget counts failures and not calls, so
            that two of them send hardly more into an outage than one: some four from each process.
        quick_delay: Longest delay before a quick retry, in seconds (full jitter: anything from 0 up to it). Two of a
            second heal five of six calls that a blip of a second hits, and take one of the five seconds that a web
            request has in the mean, two at most.
        spread_retries: Retries at a random moment of the retry window.
        retry_window: The window of the spread retries in seconds; Insider's documentation asks for five minutes.
            Without a deadline it is also the longest that a call waits for the slots of a rate limit.
        limits: Limits in place of the documented ones, by pool: ``{"user.upsert": "25000/60s", "raw.export": "1/day",
            "mail.send": "off"}``. A day is a UTC calendar day; ``off`` lifts a limit. A pool has the name of its first
            operation; ``unlisted:<host>`` is what all undocumented paths of a host share.
        dedupe: Which calls are held back as duplicates of one that succeeded less than ``dedupe_window`` ago:
            ``documented``, those that Insider itself would ignore; ``all``, those of every operation that changes
            something without anybody waiting for what its answer says; ``off``, none.
        dedupe_window: Seconds for which a repeat is held back; for mail 900 at most, as long as Insider is documented
            to ignore one.
        state: Where limits and duplicates are kept: ``memory://`` for each process by itself, ``sqlite:///path`` for
            all processes of a machine, ``redis://host``, ``rediss://host`` or ``unix:///path`` for many machines.
            ``?timeout=0.05`` (seconds) bounds what the store may take; ``&prefix=insider-otel`` begins Redis' keys.
        outbox: Where calls are kept that are sent later, because they do not fit their deadline or ask for it:
            ``sqlite:///path`` for all processes of a machine, ``celery`` for the app's own Celery, ``django`` for the
            Django app's own database; None for nowhere.
        outbox_horizon: Seconds after which a deferred call is given up and kept as a dead letter.
        outbox_retention: Seconds after which a dead letter is deleted, with the personal data in it; None to keep it
            until somebody discards it.
        outbox_key: Encrypts what is kept of deferred calls: a Fernet key, or several separated by commas, of which the
            first encrypts and all decrypt.
        credentials: Returns the credentials to send a deferred call with, for they are not stored with it: takes the
            ``Operation`` and the account that the call named, or None; returns them by header (or ``body:field``). By
            default they are read from ``INSIDER_OTEL_CREDENTIALS_<PRODUCT>``, a JSON object.
        events: ``span`` for span events, ``log`` for log-based events, ``both`` for both.

    Raises:
        SettingsError: A value cannot be used.
    """

    mode: Mode | Literal["observe", "enforce"] = Mode.ENFORCE
    hosts: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    deadline: float | None = None
    quick_retries: int = 2
    quick_delay: float = 1.0
    spread_retries: int = 3
    retry_window: float = 300.0
    limits: Mapping[str, str | Limit | None] = field(default_factory=dict[str, str | Limit | None], hash=False)
    dedupe: Dedupe | Literal["documented", "all", "off"] = Dedupe.DOCUMENTED
    dedupe_window: float = 900.0
    state: str = "memory://"
    outbox: str | None = None
    outbox_horizon: float = 86_400.0
    outbox_retention: float | None = 30 * 86_400.0
    outbox_key: str | None = field(default=None, repr=False)
    credentials: Callable[[Operation, str | None], Mapping[str, str] | None] | None = field(default=None, hash=False)
    events: Events | Literal["span", "log", "both"] = Events.SPAN

    def __post_init__(self) -> None:
        for setting in fields(self):
            checked = _CHECKS[setting.name](setting.name, getattr(self, setting.name))
            object.__setattr__(self, setting.name, checked)
        if self.outbox is not None:
            from insider_otel.policy.outbox_url import refuse_one_file  # noqa: PLC0415  (as in _outbox)

            refuse_one_file(self.state, self.outbox)

    def __repr__(self) -> str:
        shown = {setting.name: getattr(self, setting.name) for setting in fields(self)}
        shown["state"] = StateURL.parse(self.state).display
        for name in ("credentials", "outbox_key"):
            if shown[name] is not None:
                shown[name] = "…"
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def pool_limits(self) -> Mapping[str, Limit | None]:
        """``limits`` as they were read: None lifts a limit."""
        return cast("Mapping[str, Limit | None]", self.limits)

    def duplicate_window_of(self, operation: Operation) -> float | None:
        """Seconds for which a call of an operation holds its repeats back.

        Args:
            operation: The operation.

        Returns:
            The seconds; None if repeats are sent.
        """
        if self.dedupe is Dedupe.OFF:
            return None
        if operation.duplicate_window is not None:
            return min(operation.duplicate_window, self.dedupe_window) or None
        if self.dedupe is Dedupe.ALL and operation.deferrable:
            return self.dedupe_window or None
        return None

    @classmethod
    @raises_bare
    def from_env(cls, environ: Mapping[str, str] | None = None, **defaults: Any) -> Settings:
        """Settings from the ``INSIDER_OTEL_*`` variables.

        Args:
            environ: The environment; the process's own by default.
            **defaults: Values for settings whose variable is not set or empty.

        Returns:
            The settings.

        Raises:
            SettingsError: A variable's value cannot be used.
        """
        environ = os.environ if environ is None else environ
        values = dict(defaults)
        for setting in fields(cls):
            text = environ.get(variable_of(setting.name), "").strip()
            if text:
                values[setting.name] = _read(setting.name, text)
        return cls(**values)

    @classmethod
    def unknown_variables(cls, environ: Mapping[str, str] | None = None) -> tuple[str, ...]:
        """The ``INSIDER_OTEL_*`` variables that name no setting: usually a typing error.

        Args:
            environ: The environment; the process's own by default.
        """
        environ = os.environ if environ is None else environ
        known = {variable_of(setting.name) for setting in fields(cls)}
        ours = (name for name in environ if name.startswith(PREFIX) and not name.startswith(CREDENTIALS_PREFIX))
        return tuple(sorted(name for name in ours if name not in known))


# Its frame, which dataclasses wrote, holds every value given.
Settings.__init__ = raises_bare(Settings.__init__)  # type: ignore[method-assign]


def _state(name: str, value: Any) -> str:
    StateURL.parse(value)
    return cast("str", value)


def _outbox(name: str, value: Any) -> str | None:
    if value is None:
        return None
    from insider_otel.policy.outbox_url import OutboxURL  # noqa: PLC0415  (who has no outbox loads nothing of it)

    OutboxURL.parse(value)
    return cast("str", value)


_TEN_YEARS = 10 * 365 * 86_400.0
"""Seconds. RabbitMQ keeps no message for longer that is not to be kept for ever."""

_CHECKS: dict[str, Check] = {
    "mode": choice(Mode),
    "hosts": insider_addresses,
    "deadline": seconds(zero=False, none=True),
    "quick_retries": retries,
    "quick_delay": seconds(zero=True),
    "spread_retries": retries,
    "retry_window": seconds(zero=True),
    "limits": pool_limits,
    "dedupe": choice(Dedupe),
    "dedupe_window": seconds(zero=True),
    "state": _state,
    "outbox": _outbox,
    "outbox_horizon": seconds(zero=False),
    "outbox_retention": seconds(zero=False, none=True, most=_TEN_YEARS),
    "outbox_key": fernet_keys,
    "credentials": provider,
    "events": choice(Events),
}


def _seconds_or_none(text: str) -> float | None:
    return None if text.lower() == "none" else float(text)


_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "hosts": (json.loads, 'a JSON object of "address" or "address:port" to an Insider host or "*"'),
    "deadline": (_seconds_or_none, "seconds above 0, or 'none' for no bound"),
    "quick_retries": (int, f"a whole number from 0 to {MOST_RETRIES}"),
    "quick_delay": (float, "seconds from 0 up"),
    "spread_retries": (int, f"a whole number from 0 to {MOST_RETRIES}"),
    "retry_window": (float, "seconds from 0 up"),
    "limits": (json.loads, LIMITS_ACCEPT.replace("mapping", "JSON object")),
    "dedupe_window": (float, "seconds from 0 up"),
    "outbox_horizon": (float, "seconds above 0"),
    "outbox_retention": (_seconds_or_none, "seconds above 0, or 'none' for no bound"),
}


def _read(name: str, text: str) -> Any:
    if name not in _READERS:
        return text
    read, accepts = _READERS[name]
    try:
        return read(text)
    except ValueError:
        # An address may hold a password.
        raise setting_error(name, "…" if name == "hosts" else text, accepts) from None
