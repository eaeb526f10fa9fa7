"""Settings: what an app may change, checked once, with errors that name the field and its variable."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Literal, cast
from urllib.parse import urlsplit

from insider_otel.api.operations import ANY_HOST, hosts

PREFIX = "INSIDER_OTEL_"


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


class SettingsError(ValueError):
    """A setting that cannot be used; says which, where it can be set, and what it accepts."""


def variable_of(name: str) -> str:
    """The environment variable of a setting: ``quick_delay`` → ``INSIDER_OTEL_QUICK_DELAY``."""
    return PREFIX + name.upper()


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What an app may change. Every field has a keyword here and an ``INSIDER_OTEL_*`` variable.

    Args:
        mode: ``observe`` records only; ``enforce`` also retries, waits and holds back.
        hosts: Other addresses that are Insider, such as a fake or a proxy:
            ``{"127.0.0.1:8080": "unification.useinsider.com"}``. The value ``*`` stands for every Insider host at once;
            the operation is then found by its path alone.
        deadline: Seconds a call may take in all, outside a ``request_scope``; None for no bound.
        quick_retries: Retries inside the call, paid from the retry budget.
        quick_delay: Longest delay before a quick retry, in seconds (full jitter: anything from 0 up to it).
        spread_retries: Retries at a random moment of the retry window.
        retry_window: The window of the spread retries in seconds; Insider's documentation asks for five minutes.
        dedupe_window: Seconds in which Insider ignores the same content for the same user; documented as 15 minutes.
        events: ``span`` for span events, ``log`` for log-based events, ``both`` for both.

    Raises:
        SettingsError: A value cannot be used.
    """

    mode: Mode | Literal["observe", "enforce"] = Mode.ENFORCE
    hosts: Mapping[str, str] = field(default_factory=dict[str, str], hash=False)
    deadline: float | None = None
    quick_retries: int = 1
    quick_delay: float = 0.5
    spread_retries: int = 3
    retry_window: float = 300.0
    dedupe_window: float = 900.0
    events: Events | Literal["span", "log", "both"] = Events.SPAN

    def __post_init__(self) -> None:
        for setting in fields(self):
            checked = _CHECKS[setting.name](setting.name, getattr(self, setting.name))
            object.__setattr__(self, setting.name, checked)

    @classmethod
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
        return tuple(sorted(name for name in environ if name.startswith(PREFIX) and name not in known))


def _error(name: str, value: object, accepts: str) -> SettingsError:
    return SettingsError(f"{name} ({variable_of(name)}) is {value!r}; it accepts {accepts}")


def _choice(choices: type[StrEnum]) -> Callable[[str, Any], Any]:
    accepts = " or ".join(f"{choice.value!r}" for choice in choices)

    def check(name: str, value: Any) -> StrEnum:
        try:
            return choices(value.strip().lower() if isinstance(value, str) else value)
        except ValueError:
            raise _error(name, value, accepts) from None

    return check


def _seconds(*, zero: bool, none: bool = False) -> Callable[[str, Any], Any]:
    accepts = ("seconds from 0 up" if zero else "seconds above 0") + (", or nothing for no bound" if none else "")

    def check(name: str, value: Any) -> float | None:
        if value is None and none:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _error(name, value, accepts)
        if value < 0 or (value == 0 and not zero):
            raise _error(name, value, accepts)
        return float(value)

    return check


_MOST_RETRIES = 20


def _count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= _MOST_RETRIES:
        raise _error(name, value, f"a whole number from 0 to {_MOST_RETRIES}")
    return value


def split_address(address: str) -> tuple[str, int | None]:
    """The host and the port of ``host``, ``host:port``, ``[::1]`` or ``[::1]:port``.

    Raises:
        ValueError: It is none of these.
    """
    parts = urlsplit(f"//{address}")
    if parts.netloc != address or not parts.hostname or parts.username is not None:
        raise ValueError(address)
    return parts.hostname, parts.port


def _hosts(name: str, value: Any) -> Mapping[str, str]:
    accepts = 'a mapping of "address" or "address:port", without scheme and path, to an Insider host or "*"'
    if not isinstance(value, Mapping):
        raise _error(name, value, accepts)
    pairs = cast("Mapping[object, object]", value)
    checked: dict[str, str] = {}
    for address, host in pairs.items():
        if not isinstance(address, str) or not isinstance(host, str):
            raise _error(name, pairs, accepts)
        try:
            split_address(address)
        except ValueError:
            raise _error(name, pairs, accepts) from None
        if host != ANY_HOST and host.lower() not in hosts():
            raise _error(
                name, pairs, f"{accepts}; {host!r} is no documented host (`insider-otel operations` lists them)"
            )
        checked[address.lower()] = host.lower()
    return MappingProxyType(checked)


_CHECKS: dict[str, Callable[[str, Any], Any]] = {
    "mode": _choice(Mode),
    "hosts": _hosts,
    "deadline": _seconds(zero=False, none=True),
    "quick_retries": _count,
    "quick_delay": _seconds(zero=True),
    "spread_retries": _count,
    "retry_window": _seconds(zero=True),
    "dedupe_window": _seconds(zero=True),
    "events": _choice(Events),
}

_READERS: dict[str, tuple[Callable[[str], Any], str]] = {
    "hosts": (json.loads, 'a JSON object of "address" or "address:port" to an Insider host or "*"'),
    "deadline": (float, "seconds above 0"),
    "quick_retries": (int, f"a whole number from 0 to {_MOST_RETRIES}"),
    "quick_delay": (float, "seconds from 0 up"),
    "spread_retries": (int, f"a whole number from 0 to {_MOST_RETRIES}"),
    "retry_window": (float, "seconds from 0 up"),
    "dedupe_window": (float, "seconds from 0 up"),
}


def _read(name: str, text: str) -> Any:
    if name not in _READERS:
        return text
    read, accepts = _READERS[name]
    try:
        return read(text)
    except ValueError:
        raise _error(name, text, accepts) from None
