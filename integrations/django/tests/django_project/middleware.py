"""Middleware of the app's own."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from django.http import HttpRequest, HttpResponse
from insider_otel_django import InsiderMiddleware


class AnswersEverything:
    """Answers every exception of a view."""

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> Any:
        """Answer a request."""
        return self.get_response(request)

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse:
        """Answer an exception."""
        return HttpResponse(status=418)


class ShopInsiderMiddleware(InsiderMiddleware):
    """A subclass of ours."""
