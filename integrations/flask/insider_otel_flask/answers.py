"""What the extension answers itself: failed calls that nobody dealt with, and the page that tells how it goes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flask import Flask, current_app, jsonify, request
from werkzeug.exceptions import HTTPException, ServiceUnavailable, default_exceptions
from werkzeug.wrappers import Response

import insider_otel
from insider_otel.web import Failure, WebApp


def answer_failures(app: Flask, web_app: WebApp) -> None:
    """Answer failed calls that the app does not deal with itself.

    An error handler of ours would stand in the way of the app's own ones for broader classes, such as ``Exception``; so
    we come after all of them.

    Args:
        app: The app.
        web_app: What knows the answers.
    """
    ask_the_app: Callable[..., Any] = app.handle_user_exception

    def handle_user_exception(*args: Any) -> Any:
        try:
            return ask_the_app(*args)
        except Exception as error:
            failure = web_app.failure_of(error)
            if failure is None:
                raise
            exception = _http_exception(failure)
            # The app may have a page of its own for a 503.
            answer = ask_the_app(*args[:-1], exception)
            return _as_accepted(exception) if answer is exception else answer

    app.handle_user_exception = handle_user_exception  # type: ignore[assignment,method-assign]


def _http_exception(failure: Failure) -> HTTPException:
    if failure.retry_after is not None:
        return ServiceUnavailable(failure.detail, retry_after=failure.retry_after)
    return default_exceptions[failure.status](failure.detail)


def _as_accepted(exception: HTTPException) -> Response:
    """The page of an HTTP exception, or the same as JSON for a client that prefers that."""
    response = exception.get_response(request.environ)
    if request.accept_mimetypes.best_match(("text/html", "application/json")) == "application/json":
        content = {"code": exception.code, "name": exception.name, "description": exception.description}
        response.data = current_app.json.dumps(content)
        response.content_type = "application/json"
    response.vary.add("Accept")
    return response


def insider_health(**_: Any) -> Response:
    """How the calls to Insider go, as JSON: ``app.add_url_rule("/health/insider", view_func=health)``. It asks nobody.

    The status is 200 while this process can answer at all: that Insider is in trouble is no reason to restart a shop.
    What it says stands in ``status``: ``ok`` or ``degraded``.
    """
    response = jsonify(insider_otel.health())
    response.headers["Cache-Control"] = "no-store"
    return response


# Flask calls an endpoint by its function's own name, and many apps have an endpoint ``health`` already.
health = insider_health
