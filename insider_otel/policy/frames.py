"""Errors that leave without the frames they came through.

Error reporters send the variables of every frame in a traceback. Frames of ours hold what the text of an error leaves
out with care: keys, passwords, the personal data in a body.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import ParamSpec, TypeVar

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")
T = TypeVar("T")


def bare(error: E) -> E:
    """An error without the frames it came through so far; and so are those that caused it.

    To be raised as ``raise bare(error) from error.__cause__``.

    Args:
        error: The error, which was raised.
    """
    each: BaseException | None = error
    # Where there are no frames left, a ring of causes has come round.
    while each is not None and each.__traceback__ is not None:
        each.__suppress_context__ = True
        each = each.with_traceback(None).__cause__
    return error


def raises_bare(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose errors show none of its frames, nor what it was called with.

    Args:
        function: The function.
    """

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return function(*args, **kwargs)
        except Exception as error:  # noqa: BLE001  (whatever it is, it is raised again)
            # This frame is on the way, too.
            del args, kwargs
            raise bare(error) from error.__cause__

    return call
