"""Deferred calls in the app's own database: name ``insider_otel_django.outbox`` in ``INSTALLED_APPS`` as well."""

from __future__ import annotations

from typing import TYPE_CHECKING

from django.apps import apps as registry

from insider_otel.outbox.protocol import OutboxError

if TYPE_CHECKING:
    from insider_otel.outbox.protocol import JobStore

APP = "insider_otel_django.outbox"


def open_outbox() -> JobStore:
    """The outbox that ``outbox="django"`` names.

    Raises:
        OutboxError: Django is not set up yet, or the app is not installed.
    """
    if not registry.models_ready:
        raise OutboxError(
            "it is in a Django app's database, and Django is not set up here: use manage.py, or django.setup() first"
        )
    if not registry.is_installed(APP):
        raise OutboxError(f'its tables are missing: add "{APP}" to INSTALLED_APPS, and run manage.py migrate')
    # Models can be imported only now.
    from insider_otel_django.outbox.store import DjangoOutbox  # noqa: PLC0415

    return DjangoOutbox()
