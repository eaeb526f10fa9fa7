"""The app that brings the outbox's tables."""

from django.apps import AppConfig


class OutboxConfig(AppConfig):
    """Deferred calls to Insider, in the app's own database."""

    name = "insider_otel_django.outbox"
    label = "insider_outbox"
    verbose_name = "Insider outbox"
    default_auto_field = "django.db.models.BigAutoField"
