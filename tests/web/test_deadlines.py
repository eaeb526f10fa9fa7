"""A view's own deadline, whatever the framework."""

from __future__ import annotations

from inspect import isawaitable, iscoroutinefunction
from typing import Any

import pytest

from insider_otel import request_scope
from insider_otel.http.scope import current_scope
from insider_otel.web import deadline


def remaining() -> float | None:
    scope = current_scope()
    assert scope is not None
    return scope.remaining


@deadline(20.0)
def plain() -> float | None:
    return remaining()


@deadline(20.0)
async def coroutine() -> float | None:
    return remaining()


@deadline(20.0)
def dispatching() -> Any:
    """A plain function that makes a coroutine, as the ``dispatch`` of a class with async views does."""

    async def get() -> float | None:
        return remaining()

    return get()


async def answer_of(view: Any) -> float | None:
    answer = view()
    left: float | None = await answer if isawaitable(answer) else answer
    return left


views = pytest.mark.parametrize("view", [plain, coroutine, dispatching])


@views
@pytest.mark.anyio
async def test_it_takes_the_place_of_the_apps_and_began_with_the_request(view: Any) -> None:
    moments = iter([100.0, 103.0])
    with request_scope(5.0, clock=lambda: next(moments)):
        assert await answer_of(view) == 17.0


@views
@pytest.mark.anyio
async def test_a_view_that_is_called_by_hand_keeps_its_own(view: Any) -> None:
    left = await answer_of(view)
    assert left is not None
    assert 0 < left <= 20.0
    assert current_scope() is None


@pytest.mark.anyio
async def test_a_view_may_have_none() -> None:
    with request_scope(5.0):
        assert deadline(None)(remaining)() is None


def test_a_view_stays_what_it_was() -> None:
    assert (plain.__name__, iscoroutinefunction(plain)) == ("plain", False)
    assert (coroutine.__name__, iscoroutinefunction(coroutine)) == ("coroutine", True)


@pytest.mark.parametrize("seconds", [-1, float("nan"), "2"])
def test_what_is_no_deadline_is_refused_where_it_is_written(seconds: Any) -> None:
    with pytest.raises(ValueError, match=r"deadline is .*; it accepts seconds from 0 up"):
        deadline(seconds)
