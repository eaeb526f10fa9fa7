"""insider-otel for Django: name this app in ``INSTALLED_APPS`` and ``InsiderMiddleware`` in ``MIDDLEWARE``."""

from insider_otel.web import deadline
from insider_otel_django import checks
from insider_otel_django.middleware import InsiderMiddleware, InsiderRequest
from insider_otel_django.site import async_client, client, override
from insider_otel_django.transactions import on_commit
from insider_otel_django.views import health

__all__ = [
    "InsiderMiddleware",
    "InsiderRequest",
    "async_client",
    "client",
    "deadline",
    "health",
    "on_commit",
    "override",
]

# Here and not in the app's ``ready``: that the app is not installed is one of the things they find, where an installed
# app imports this one.
checks.register_all()
