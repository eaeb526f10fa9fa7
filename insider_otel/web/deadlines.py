"""A deadline for one view, in place of the app's."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from functools import wraps
from inspect import isawaitable, iscoroutinefunction
from typing import Any, TypeVar

from insider_otel.http.scope import check_deadline, current_scope, request_scope

View = TypeVar("View", bound=Callable[..., Any])


def deadline(seconds: float | None) -> Callable[[View], View]:
    """Give a view, plain or async, a deadline of its own for its calls to Insider.

        @deadline(2.0)
        def checkout(request): ...

    It goes below the line that says the route, where there is one.

    Args:
        seconds: Seconds from the beginning of the request by which every call must be over, so that what the request
            has used already counts; None for no bound. For a view that is called by hand, from then on.

    Returns:
        A decorator.

    Raises:
        ValueError: ``seconds`` is not a number of seconds.
    """
    # An error is to be seen when the view is defined, not when it is first visited.
    check_deadline(seconds)

    @contextmanager
    def bound() -> Generator[None]:
        scope = current_scope()
        if scope is None:
            with request_scope(seconds):
                yield
        else:
            scope.set_deadline(seconds)
            yield

    async def awaited(answer: Awaitable[Any]) -> Any:
        with bound():
            return await answer

    def decorate(view: View) -> View:
        @wraps(view)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            with bound():
                answer = view(*args, **kwargs)
            # A class's ``dispatch`` is a plain function, and yet makes a coroutine where its views are async.
            return awaited(answer) if isawaitable(answer) else answer

        @wraps(view)
        async def bounded_async(*args: Any, **kwargs: Any) -> Any:
            return await awaited(view(*args, **kwargs))

        decorated: Any = bounded_async if iscoroutinefunction(view) else bounded
        return decorated  # type: ignore[no-any-return]

    return decorate
