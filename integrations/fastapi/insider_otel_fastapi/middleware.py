"""The ASGI middleware: a scope for each request, answers for failed calls, clients that are closed at the end."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from functools import cached_property
from typing import Any, Unpack, cast

from starlette.applications import Starlette
from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from insider_otel.http.scope import RequestScope, bound, within
from insider_otel.web import OptionsError, Providers, WebApp, WebOptions
from insider_otel_fastapi.endpoints import KEY, Connection
from insider_otel_fastapi.options import Options
from insider_otel_fastapi.visitors import Visitor, cancel_for_visitors_who_leave, is_about_leaving, visitor

# What nginx notes for it, and who reads traces knows.
_CLIENT_CLOSED_REQUEST = 499
_LIFESPAN_IS_OVER = frozenset({"lifespan.startup.failed", "lifespan.shutdown.complete", "lifespan.shutdown.failed"})
_DEEPEST = 100
_PROVIDERS = {
    "tracer_provider": ("TracerProvider", "get_tracer"),
    "meter_provider": ("MeterProvider", "get_meter"),
    "logger_provider": ("LoggerProvider", "get_logger"),
}


class InsiderMiddleware:
    """Gives an app clients for Insider, a deadline for each request, and a summary on its server span.

        app.add_middleware(InsiderMiddleware, request_deadline=3.0, error_responses=True)

    Or round any ASGI app: ``app = InsiderMiddleware(app)``. Options are read when the app starts.

    Args:
        app: The ASGI app.
        cancel_on_disconnect: Whether what an endpoint awaits from Insider is cancelled when the visitor leaves.
        **options: Fields of ``WebOptions`` and ``Settings``, for which ``INSIDER_OTEL_*`` variables win; and
            ``tracer_provider``, ``meter_provider``, ``logger_provider``: where telemetry goes.
    """

    def __init__(self, app: ASGIApp, *, cancel_on_disconnect: bool = True, **options: Unpack[Options]) -> None:
        self.app = app
        self._cancel_on_disconnect = cancel_on_disconnect
        given: dict[str, Any] = {**options}
        of_providers = given.keys() & Providers.__annotations__.keys()
        self._providers = cast("Providers", {name: given.pop(name) for name in of_providers})
        self._options = given

    @cached_property
    def web_app(self) -> WebApp:
        """The app's use of the library: made when the app starts, in the process that serves.

        Raises:
            SettingsError: An option cannot be used.
            RuntimeError: The app has another ``InsiderMiddleware`` further in.
        """
        if any(insider_layers(self.app)):
            # Endpoints would get the clients of that one, and tests would put their fakes below those of this one.
            raise RuntimeError(
                "this app has InsiderMiddleware twice: call app.add_middleware(InsiderMiddleware) once, or write "
                "app = InsiderMiddleware(app), and not both"
            )
        _check(self._cancel_on_disconnect, self._providers)
        options = WebOptions.from_config(self._options)
        prepare = cancel_for_visitors_who_leave if self._cancel_on_disconnect else None
        return WebApp(options, prepare_async=prepare, **self._providers)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle a request, a WebSocket or the lifespan messages of a server."""
        if scope["type"] == "http":
            await self._handle_request(scope, receive, send)
        elif scope["type"] == "lifespan":
            await self._live(scope, receive, send)
        else:
            # A WebSocket lives for hours: it has clients, but neither deadline nor summary.
            self._leave_in(scope, None)
            await self.app(scope, receive, send)

    def _leave_in(self, scope: Scope, request_scope: RequestScope | None) -> None:
        web_app = self.web_app
        above = scope.get(KEY)
        if isinstance(above, Connection) and above.web_app.is_overridden and not web_app.is_overridden:
            # Of the app in which this one is mounted: its test is not to reach the real Insider from here.
            web_app = above.web_app
        # The ASGI scope is not copied: who is further out reads there what the router found.
        scope[KEY] = Connection(web_app, request_scope)

    async def _handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_scope = self.web_app.open_scope()
        self._leave_in(scope, request_scope)
        who = Visitor(receive)
        response = _Response(send, request_scope, who)
        try:
            with bound(visitor, who), within(request_scope):
                await self.app(scope, who.receive, response.send)
        except Exception as error:
            if who.has_left and is_about_leaving(error):
                # Nobody reads it; but logs and the server span do not call it an error of the shop.
                answer = Response(status_code=_CLIENT_CLOSED_REQUEST)
            elif not response.has_started and (failure := self.web_app.failure_of(error)) is not None:
                answer = JSONResponse({"detail": failure.detail}, failure.status, failure.headers)
            else:
                raise
            if not response.has_started:
                await answer(scope, receive, response.send)
        finally:
            request_scope.close()
            # Also where somebody further out answers: what goes on after this is for nobody who could leave.
            who.answered()

    async def _live(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            web_app = self.web_app
        except Exception as error:
            # A server that is not told takes the exception for an app that knows no lifespan, and serves it.
            await receive()
            await send({"type": "lifespan.startup.failed", "message": f"insider-otel: {error}"})
            raise
        # What was deferred before a restart does not wait for a visitor.
        web_app.start_worker()

        async def send_and_close(message: Message) -> None:
            # The app's own lifespan, whatever it is, has ended by now.
            if message["type"] in _LIFESPAN_IS_OVER:
                await web_app.close_clients()
            await send(message)

        await self.app(scope, receive, send_and_close)


def _check(cancel_on_disconnect: Any, providers: Mapping[str, Any]) -> None:
    """Check the options that no variable sets.

    Raises:
        OptionsError: One cannot be used.
    """
    if not isinstance(cancel_on_disconnect, bool):
        raise OptionsError(f"cancel_on_disconnect is {cancel_on_disconnect!r}; it accepts True or False")
    for name, (kind, method) in _PROVIDERS.items():
        provider = providers.get(name)
        if provider is not None and not callable(getattr(provider, method, None)):
            raise OptionsError(f"{name} is a {type(provider).__name__}; it accepts a {kind} of OpenTelemetry, or None")


def insider_layers(app: ASGIApp) -> Generator[InsiderMiddleware]:
    """Every ``InsiderMiddleware`` of an app, from the outside in; not those of apps that are mounted in it.

    Args:
        app: The app.
    """
    layer: Any = app
    # An object may have whatever attribute it is asked for, without end: a mock.
    for _ in range(_DEEPEST):
        if isinstance(layer, InsiderMiddleware):
            yield layer
        if isinstance(layer, Starlette):
            # What the app itself does before its first request, or its lifespan.
            layer.middleware_stack = layer.middleware_stack or layer.build_middleware_stack()
            layer = layer.middleware_stack
        else:
            # Middleware keeps the next layer here; the last one, a router, has none.
            layer = getattr(layer, "app", None)


class _Response:
    """Sends a response, and ends the request's scope with it: what runs later, a background task, is not in a hurry.

    Args:
        send: The server's ``send``.
        request_scope: The scope.
        who: Who waits for it.
    """

    def __init__(self, send: Send, request_scope: RequestScope, who: Visitor) -> None:
        self._send = send
        self._request_scope = request_scope
        self._who = who
        self.has_started = False

    async def send(self, message: Message) -> None:
        """Send a part of it."""
        kind = message["type"]
        if kind == "http.response.start":
            self.has_started = True
            self._who.answered()
        await self._send(message)
        is_last = kind == "http.response.body" and not message.get("more_body", False)
        if is_last or kind == "http.response.pathsend":
            self._request_scope.close()
