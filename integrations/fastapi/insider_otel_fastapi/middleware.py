"""The ASGI middleware: a scope for each request, answers for failed calls, clients that are closed at the end."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any, Unpack

from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from insider_otel.http.scope import RequestScope, within
from insider_otel.web import WebApp, WebOptions
from insider_otel_fastapi.options import Options
from insider_otel_fastapi.site import Connection, Site

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

_LIFESPAN_IS_OVER = frozenset({"lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed"})


class InsiderMiddleware:
    """Gives an app clients for Insider, a deadline for each request, and a summary on its server span.

        app.add_middleware(InsiderMiddleware, request_deadline=3.0, error_responses=True)

    Or round any ASGI app: ``app = InsiderMiddleware(app)``. Options are read when the app starts.

    Args:
        app: The ASGI app.
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: Where metrics go; the global provider by default.
        logger_provider: Where log-based events go; the global provider by default.
        **options: Fields of ``WebOptions`` and ``Settings``. The ``INSIDER_OTEL_*`` variables win.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        **options: Unpack[Options],
    ) -> None:
        self.app = app
        self._options = options
        self._providers: dict[str, Any] = {
            "tracer_provider": tracer_provider,
            "meter_provider": meter_provider,
            "logger_provider": logger_provider,
        }

    @cached_property
    def site(self) -> Site:
        """The app's use of the library: made when the app starts, in the process that serves.

        Raises:
            SettingsError: An option cannot be used.
        """
        return Site(WebApp(WebOptions.from_config(self._options), **self._providers))

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, a WebSocket or the lifespan messages of a server."""
        if scope["type"] == "http":
            await self._handle_request(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            # A WebSocket lives for hours: it has clients, but neither deadline nor summary.
            Connection(self.site, None).put_in(scope)
            await self.app(scope, receive, send)

    async def _handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        web_app = self.site.web_app
        request_scope = web_app.open_scope()
        Connection(self.site, request_scope).put_in(scope)
        response = _Response(send, request_scope)
        try:
            with within(request_scope):
                await self.app(scope, receive, response.send)
        except Exception as error:
            failure = None if response.has_started else web_app.failure_of(error)
            if failure is None:
                raise
            answer = JSONResponse({"detail": failure.detail}, failure.status, failure.headers)
            await answer(scope, receive, send)
        finally:
            request_scope.close()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            site = self.site
        except Exception as error:
            # A server that is not told takes the exception for an app that knows no lifespan, and serves it.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"insider-otel: {error}"})
            raise

        async def send_and_close(message: Message) -> None:
            # The app's own lifespan, whatever it is, has ended by now.
            if message["type"] in _LIFESPAN_IS_OVER:
                await site.close()
            await send(message)

        await self.app(scope, receive, send_and_close)


class _Response:
    """Sends a response, and ends the request's scope with it: what runs later, a background task, is not in a hurry.

    Args:
        send: The server's ``send``.
        request_scope: The scope.
    """

    def __init__(self, send: Send, request_scope: RequestScope) -> None:
        self._send = send
        self._request_scope = request_scope
        self.has_started = False

    async def send(self, message: Message) -> None:
        """Send a part of it."""
        kind = message["type"]
        self.has_started = self.has_started or kind == "http.response.start"
        await self._send(message)
        is_last = kind == "http.response.body" and not message.get("more_body", False)
        if is_last or kind == "http.response.pathsend":
            self._request_scope.close()
