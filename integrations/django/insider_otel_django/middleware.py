"""The middleware: a scope for each request, a client at hand, and an answer when a call to Insider failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, cast

from asgiref.sync import iscoroutinefunction, markcoroutinefunction
from django.apps import apps
from django.core.exceptions import ImproperlyConfigured
from django.http import HttpRequest
from django.utils.functional import SimpleLazyObject

from insider_otel.http.scope import RequestScope, within
from insider_otel_django.site import UNUSABLE, async_client, client, site
from insider_otel_django.streaming import keep_open
from insider_otel_django.views import failed_response

if TYPE_CHECKING:
    import httpx
    from django.http import HttpResponse
    from django.http.response import HttpResponseBase


class InsiderRequest(HttpRequest):
    """A request as a view has it under the middleware, for type checkers; it is still Django's own.

        def signup(request: InsiderRequest) -> HttpResponse:

    Attributes:
        insider: The client of this process, for sync views.
        ainsider: Returns the client of the event loop, for async views.
    """

    insider: httpx.Client
    ainsider: Callable[[], Awaitable[httpx.AsyncClient]]


class InsiderMiddleware:
    """Opens a scope for each request: a deadline for its calls to Insider, and their summary on the server span.

    Put it near the top of ``MIDDLEWARE``: what runs before it is not in the scope. It serves sync and async stacks
    without a change of thread, and gives each request the attributes of ``InsiderRequest``.

    Args:
        get_response: The rest of the stack.

    Raises:
        ImproperlyConfigured: The app is not installed, or ``settings.INSIDER_OTEL`` cannot be used.
    """

    sync_capable = True
    async_capable = True

    def __init__(self, get_response: Callable[[HttpRequest], Any]) -> None:
        if not apps.is_installed("insider_otel_django"):
            raise ImproperlyConfigured('InsiderMiddleware needs its app: add "insider_otel_django" to INSTALLED_APPS')
        try:
            site.app()
        except UNUSABLE as error:
            raise ImproperlyConfigured(str(error)) from error
        self.get_response = get_response
        self._is_async = iscoroutinefunction(get_response)
        if self._is_async:
            markcoroutinefunction(self)

    def __call__(self, request: HttpRequest) -> HttpResponseBase | Awaitable[HttpResponseBase]:
        """Answer a request."""
        if self._is_async:
            return self._answer_async(request)
        with _scope_of(request) as scope:
            return _ended(scope, self.get_response(request))

    async def _answer_async(self, request: HttpRequest) -> HttpResponseBase:
        with _scope_of(request) as scope:
            return _ended(scope, await self.get_response(request))

    def process_exception(self, request: HttpRequest, exception: Exception) -> HttpResponse | None:
        """Answer for a view that left the exception of a failed call to Insider unhandled, if that is turned on.

        Django asks the middleware from the last to the first: that of the app comes before this one.
        """
        failure = site.app().failure_of(exception)
        return None if failure is None else failed_response(request, failure)


@contextmanager
def _scope_of(request: HttpRequest) -> Generator[RequestScope]:
    scope = site.app().open_scope()
    if scope.server_span is None:
        # Of an instrumentation that stands below: it would end its span before a stream begins.
        scope.hold_server_span()
    given = cast("InsiderRequest", request)
    given.insider = cast("httpx.Client", SimpleLazyObject(client))
    given.ainsider = async_client
    with within(scope):
        try:
            yield scope
        except BaseException:
            # Django answers exceptions further in. What comes here has no response: the client went away.
            scope.close()
            raise


def _ended(scope: RequestScope, response: HttpResponseBase) -> HttpResponseBase:
    if response.streaming:
        keep_open(scope, response)
    else:
        scope.close()
    return response
