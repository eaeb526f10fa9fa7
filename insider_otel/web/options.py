"""What a web app sets in its framework's own configuration: the library's settings, and what only web apps need."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from insider_otel.http.scope import is_deadline
from insider_otel.policy.frames import raises_bare
from insider_otel.policy.settings import PREFIX, Settings, SettingsError

_TRUE = frozenset({"1", "true", "yes", "on"})
_FALSE = frozenset({"0", "false", "no", "off"})


class OptionsError(SettingsError):
    """An option that cannot be used; says which, where it can be set, and what it accepts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WebOptions:
    """How a web app uses Insider.

    Args:
        settings: The library's settings.
        request_deadline: Seconds from the beginning of a request by which every call made in it must be over; None for
            no bound. A route may have another.
        error_responses: Whether a failed call that a view did not handle is answered with 502, 503 or 504 instead of
            500.
        instrument: Whether every httpx and httpx2 client of the process is covered, not just the adapter's own.
        outbox_worker: Whether each process that serves sends, in a thread, what is in the outbox. Without it, that is
            for ``insider-otel outbox run``.

    Raises:
        OptionsError: A value cannot be used.
    """

    settings: Settings = field(default_factory=Settings)
    request_deadline: float | None = 5.0
    error_responses: bool = False
    instrument: bool = True
    outbox_worker: bool = True

    def __post_init__(self) -> None:
        if not is_deadline(self.request_deadline):
            raise _error("request_deadline", self.request_deadline, "seconds from 0 up, or None for no bound")
        for name in ("error_responses", "instrument", "outbox_worker"):
            if not isinstance(getattr(self, name), bool):
                raise _error(name, getattr(self, name), "True or False")

    @classmethod
    def names(cls) -> frozenset[str]:
        """The names of all options and settings, lower case."""
        return frozenset(each.name for each in (*fields(cls), *fields(Settings))) - {"settings"}

    @classmethod
    @raises_bare
    def from_config(cls, config: Mapping[str, Any], environ: Mapping[str, str] | None = None) -> WebOptions:
        """Options from a framework's configuration and the ``INSIDER_OTEL_*`` variables, which win.

        Args:
            config: Options and settings by name, lower case: ``{"request_deadline": 3.0, "state": "redis://cache"}``.
            environ: The environment; the process's own by default.

        Returns:
            The options.

        Raises:
            OptionsError: There is no such option.
            SettingsError: A value cannot be used.
        """
        environ = os.environ if environ is None else environ
        own = {each.name for each in fields(cls)} - {"settings"}
        for name in config:
            if name not in cls.names():
                raise OptionsError(f"{name} is no option of insider-otel; there are: {', '.join(sorted(cls.names()))}")
        options = {name: config[name] for name in own & config.keys()}
        for name in own:
            text = environ.get(PREFIX + name.upper(), "").strip()
            if text:
                options[name] = _read(name, text)
        settings = {name: value for name, value in config.items() if name not in own}
        return cls(settings=Settings.from_env(environ, **settings), **options)

    @classmethod
    @raises_bare
    def from_upper_case(cls, config: Mapping[Any, Any], *, prefix: str = "", where: str) -> WebOptions:
        """Options from a configuration in upper case, as Django's and Flask's are, and from the variables, which win.

        Args:
            config: Options and settings: ``{"REQUEST_DEADLINE": 3.0}``.
            prefix: What each key begins with.
            where: What an error calls the configuration.

        Returns:
            The options.

        Raises:
            OptionsError: A key is no option.
            SettingsError: A value cannot be used.
        """
        known = {prefix + name.upper(): name for name in cls.names()}
        unknown = [str(key) for key in config if key not in known]
        if unknown:
            raise OptionsError(
                f"{where} has {', '.join(sorted(unknown))}, which is no option of insider-otel; there are: "
                f"{', '.join(sorted(known))}"
            )
        return cls.from_config({known[key]: value for key, value in config.items()})


def _read(name: str, text: str) -> Any:
    if name == "request_deadline":
        if text.lower() == "none":
            return None
        try:
            return float(text)
        except ValueError:
            raise _error(name, text, "seconds from 0 up, or 'none' for no bound") from None
    if text.lower() in _TRUE:
        return True
    if text.lower() in _FALSE:
        return False
    raise _error(name, text, "true or false")


def _error(name: str, value: object, accepts: str) -> OptionsError:
    return OptionsError(f"{name} ({PREFIX + name.upper()}) is {value!r}; it accepts {accepts}")
