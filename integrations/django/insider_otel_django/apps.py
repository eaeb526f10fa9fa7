"""The app: it sets insider-otel up when Django starts."""

from __future__ import annotations

from django.apps import AppConfig

from insider_otel_django.site import site


class InsiderOTelConfig(AppConfig):
    """Covers every httpx and httpx2 client of the process, as ``settings.INSIDER_OTEL`` says."""

    name = "insider_otel_django"
    verbose_name = "insider-otel"

    def ready(self) -> None:
        """Set insider-otel up."""
        site.set_up()
