"""System checks: what ``manage.py check`` says about the set-up."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from django.apps import apps
from django.conf import settings
from django.core import checks
from django.utils.module_loading import import_string

from insider_otel.policy.settings import SettingsError
from insider_otel_django.middleware import InsiderMiddleware
from insider_otel_django.outbox import APP as OUTBOX_APP
from insider_otel_django.site import UNUSABLE, read_options, site

_APP = "insider_otel_django"
_MIDDLEWARE = "insider_otel_django.InsiderMiddleware"
_CORRECT = "Correct settings.INSIDER_OTEL, or the variable of that name, which wins over it."

# They look at the answer, or have to be the first, and call nobody.
_BELONG_FIRST = (
    "corsheaders.",
    "django.middleware.cache.UpdateCacheMiddleware",
    "django.middleware.gzip.GZipMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "django_prometheus.",
    "opentelemetry.",
    "whitenoise.",
)


def register_all() -> None:
    """Have Django run the checks: all of them, or with ``manage.py check --tag insider_otel``."""
    for check in (check_installed, check_options, check_middleware):
        checks.register(check, "insider_otel")


def check_installed(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Whether the app is installed."""
    if apps.is_installed(_APP):
        return []
    return [
        checks.Error(
            f"{_APP} is used, but not installed: no client is covered.",
            hint=f'Add "{_APP}" to INSTALLED_APPS.',
            id="insider_otel.E001",
        )
    ]


def check_options(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Whether ``settings.INSIDER_OTEL`` and the ``INSIDER_OTEL_*`` variables can be used."""
    try:
        options = read_options()
    except SettingsError as error:
        return [checks.Error(f"{error}.", hint=_CORRECT, id="insider_otel.E002")]
    if options.settings.outbox == "django" and not apps.is_installed(OUTBOX_APP):
        return [
            checks.Error(
                'INSIDER_OTEL["OUTBOX"] is "django", but the app with its tables is not installed.',
                hint=f'Add "{OUTBOX_APP}" to INSTALLED_APPS, and run manage.py migrate.',
                id="insider_otel.E005",
            )
        ]
    try:
        site.app()
    except UNUSABLE as error:
        return [checks.Error(f"{error}.", hint=_CORRECT, id="insider_otel.E003")]
    return []


def check_middleware(app_configs: Sequence[Any] | None, **kwargs: Any) -> list[checks.CheckMessage]:
    """Whether the middleware is there, and near the top."""
    paths = list(settings.MIDDLEWARE)
    place = next((index for index, path in enumerate(paths) if _is_ours(path)), None)
    if place is None:
        return [
            checks.Error(
                "InsiderMiddleware is missing: requests have no deadline, so a worker may sleep for minutes in a "
                "retry, and no summary.",
                hint=f'Add "{_MIDDLEWARE}" near the top of MIDDLEWARE.',
                id="insider_otel.E004",
            )
        ]
    before = [path for path in paths[:place] if not path.startswith(_BELONG_FIRST)]
    if not before:
        return []
    return [
        checks.Warning(
            f"What runs before InsiderMiddleware is not under the request's deadline: {', '.join(before)}.",
            hint=f'Move "{_MIDDLEWARE}" above it in MIDDLEWARE.',
            id="insider_otel.W001",
        )
    ]


def _is_ours(path: str) -> bool:
    try:
        middleware = import_string(path)
    except ImportError:
        # Django says so itself when it loads it.
        return False
    return isinstance(middleware, type) and issubclass(middleware, InsiderMiddleware)
