"""The scope of each request: from the call of the WSGI app until the response has been sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from flask import Response, request

from insider_otel.telemetry.server_span import find_server_span
from insider_otel.web import HandledRequest, WebApp

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

# In the WSGI environment.
_HANDLED = "insider_otel_flask.request"


class ScopedApp:
    """A WSGI app with a scope for each request.

    Args:
        app: The WSGI app.
        web_app: What opens the scopes.
    """

    def __init__(self, app: WSGIApplication, web_app: WebApp) -> None:
        self._app = app
        self._web_app = web_app

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Handle a request."""
        handled = HandledRequest(self._web_app.open_scope())
        environ[_HANDLED] = handled
        try:
            with handled.resumed():
                body = self._app(environ, start_response)
        except BaseException:
            handled.scope.close()
            raise
        handled.begin_body()
        file_wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(file_wrapper, type) and isinstance(body, file_wrapper):
            # The server sends the file itself, if it sees that it is one; no code of the app runs any more.
            handled.scope.close()
            return body
        return _ScopedBody(body, handled)


class _ScopedBody:
    """A response's body, made and closed in the scope of its request."""

    def __init__(self, body: Iterable[bytes], handled: HandledRequest) -> None:
        self._body: Any = body
        self._handled = handled
        with handled.resumed():
            self._chunks = iter(body)

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        try:
            with self._handled.resumed():
                return next(self._chunks)
        except BaseException:
            # It is made, or will not be: the server span need not wait for who closes it.
            self._handled.scope.release_server_span()
            raise

    def close(self) -> None:
        """The response has been sent, or the visitor has gone."""
        try:
            if hasattr(self._body, "close"):
                with self._handled.resumed():
                    self._body.close()
        finally:
            self._handled.scope.close()


def note_response(response: Response) -> Response:
    """See to the server span, in which ``after_request`` functions are called.

    Args:
        response: The response, which stays as it is.
    """
    handled: HandledRequest | None = request.environ.get(_HANDLED)
    if handled is not None:
        # One of a tracer provider that is not the global one was not seen to start.
        find_server_span(handled.scope)
        # The page of an HTTP exception or a redirect looks like a stream to Werkzeug, but is made already.
        if response.is_streamed and response.status_code < 300:
            handled.scope.hold_server_span()
    return response
