"""``settings.INSIDER_OTEL``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from django.conf import settings

from insider_otel.web import OptionsError, WebOptions

SETTING = "INSIDER_OTEL"


def read_options() -> WebOptions:
    """The options in ``settings.INSIDER_OTEL`` and in the ``INSIDER_OTEL_*`` variables, which win.

    Raises:
        OptionsError: It is no dictionary, or there is no such option.
        SettingsError: A value cannot be used.
    """
    config: Any = getattr(settings, SETTING, {})
    if not isinstance(config, Mapping):
        raise OptionsError(
            f'settings.{SETTING} is a {type(config).__name__}; it accepts a dictionary: {{"REQUEST_DEADLINE": 3.0}}'
        )
    known = {name.upper(): name for name in WebOptions.names()}
    options: dict[str, Any] = {}
    for name, value in config.items():
        if name not in known:
            raise OptionsError(_unknown(name, known))
        options[known[name]] = value
    return WebOptions.from_config(options)


def _unknown(name: object, known: Mapping[str, str]) -> str:
    message = f"settings.{SETTING} has {name!r}, which is no option"
    if isinstance(name, str) and name.upper() in known:
        return f"{message}; options are in upper case: {name.upper()!r}"
    return f"{message}; there are: {', '.join(sorted(known))}"
