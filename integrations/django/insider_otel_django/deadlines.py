"""A deadline for one view."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from asgiref.sync import iscoroutinefunction
from django.core.exceptions import ImproperlyConfigured

from insider_otel.http.scope import check_deadline, current_scope

View = TypeVar("View", bound=Callable[..., Any])


def deadline(seconds: float | None) -> Callable[[View], View]:
    """Give a view a deadline of its own for its calls to Insider, in place of ``REQUEST_DEADLINE``.

        @deadline(2.0)
        def checkout(request): ...

        @method_decorator(deadline(2.0), name="dispatch")
        class Checkout(View): ...

    Args:
        seconds: Seconds from the beginning of the request, so that what middleware has used counts; None for no bound.

    Raises:
        ValueError: ``seconds`` is not a number of seconds.
    """
    check_deadline(seconds)

    def set_deadline() -> None:
        scope = current_scope()
        if scope is None:
            raise ImproperlyConfigured(
                "deadline() needs insider_otel_django.InsiderMiddleware in MIDDLEWARE; a test that calls the view "
                "itself can do so within insider_otel.request_scope()"
            )
        scope.set_deadline(seconds)

    def decorate(view: View) -> View:
        @wraps(view)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            set_deadline()
            return view(*args, **kwargs)

        @wraps(view)
        async def bounded_async(*args: Any, **kwargs: Any) -> Any:
            set_deadline()
            return await view(*args, **kwargs)

        decorated: Any = bounded_async if iscoroutinefunction(view) else bounded
        return decorated  # type: ignore[no-any-return]

    return decorate
