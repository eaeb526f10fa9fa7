"""What the app sets: its ``INSIDER_OTEL_*`` config keys."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from insider_otel.policy.settings import PREFIX
from insider_otel.web import OptionsError, WebOptions


def options_of(config: Mapping[str, Any]) -> WebOptions:
    """The options in an app's config. Variables of the environment, which have the same names, win.

    Args:
        config: The app's config.

    Raises:
        OptionsError: A key that begins with ``INSIDER_OTEL_`` is no option.
        SettingsError: A value cannot be used.
    """
    known = {PREFIX + name.upper(): name for name in WebOptions.names()}
    ours = [key for key in config if key.startswith(PREFIX)]
    unknown = sorted(key for key in ours if key not in known)
    if unknown:
        raise OptionsError(
            f"app.config has {', '.join(unknown)}, which insider-otel does not know; there are: "
            f"{', '.join(sorted(known))}"
        )
    return WebOptions.from_config({known[key]: config[key] for key in ours})
