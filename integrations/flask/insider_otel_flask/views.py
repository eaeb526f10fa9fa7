"""What is put on views: another deadline; and a view of how it goes."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, ParamSpec, TypeVar, cast

from flask import Response, current_app, jsonify

import insider_otel
from insider_otel.http.scope import check_deadline, current_scope, request_scope
from insider_otel_flask.state import current_web_app

P = ParamSpec("P")
R = TypeVar("R")


def deadline(seconds: float | None) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Give a view another deadline than ``INSIDER_OTEL_REQUEST_DEADLINE``. It goes below the route:

        @app.post("/checkout")
        @deadline(2.0)
        def checkout(): ...

    Args:
        seconds: Seconds from the beginning of the request by which every call to Insider must be over; None for no
            bound.

    Returns:
        A decorator for views, plain and async.

    Raises:
        ValueError: ``seconds`` is not a number of seconds.
    """
    # An error is to be seen when the view is defined, not when it is first visited.
    check_deadline(seconds)

    def decorate(view: Callable[P, R]) -> Callable[P, R]:
        @wraps(view)
        def with_deadline(*args: P.args, **kwargs: P.kwargs) -> R:
            current_web_app()
            run = cast("Callable[P, R]", current_app.ensure_sync(view))
            scope = current_scope()
            if scope is None:
                # Called by hand, as in a test with a request context of its own.
                with request_scope(seconds):
                    return run(*args, **kwargs)
            scope.set_deadline(seconds)
            return run(*args, **kwargs)

        return with_deadline

    return decorate


def insider_health(**_: Any) -> Response:
    """How the calls to Insider go, as JSON: ``app.add_url_rule("/health/insider", view_func=health)``.

    The status is 200 while this process can answer at all: that Insider is in trouble is no reason to restart a shop.
    What it says stands in ``status``: ``ok`` or ``degraded``. It asks neither Insider nor the store of limits.
    """
    response = jsonify(insider_otel.health())
    response.headers["Cache-Control"] = "no-store"
    return response


# Flask calls an endpoint by its function's own name, and many apps have an endpoint ``health`` already.
health = insider_health
