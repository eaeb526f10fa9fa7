"""The app: it sets insider-otel up when Django starts."""

from __future__ import annotations

import logging

from django.apps import AppConfig

from insider_otel_django.site import UNUSABLE, site

_logger = logging.getLogger("insider_otel.django")


class InsiderOTelConfig(AppConfig):
    """Covers every httpx and httpx2 client of the process, as ``settings.INSIDER_OTEL`` says."""

    name = "insider_otel_django"
    verbose_name = "insider-otel"

    def ready(self) -> None:
        """Set insider-otel up."""
        try:
            site.app()
        except UNUSABLE as error:
            # Raised here, it would keep ``manage.py check`` from reporting it. The middleware raises it: a server does
            # not start.
            _logger.error("insider-otel is off: %s", error)  # noqa: TRY400  (the traceback says no more)
