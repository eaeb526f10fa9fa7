"""Errors that leave without the variables of the frames they came through.

Error reporters send those. Frames of ours hold what the text of an error leaves out with care: keys, passwords, the
personal data in a body.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import wraps
from types import FrameType, TracebackType
from typing import ParamSpec, TypeVar

E = TypeVar("E", bound=BaseException)
P = ParamSpec("P")
T = TypeVar("T")

_MAY_GO_ON = inspect.CO_GENERATOR | inspect.CO_COROUTINE | inspect.CO_ASYNC_GENERATOR


def bare(error: E) -> E:
    """An error with the lines it came through so far, but without their variables; and so are those that caused it.

    To be raised as ``raise bare(error) from error.__cause__``.

    Args:
        error: The error, which was raised.
    """
    each: BaseException | None = error
    # Causes can go round in a ring.
    seen: set[int] = set()
    while each is not None and id(each) not in seen:
        seen.add(id(each))
        each.__suppress_context__ = True
        each = each.with_traceback(_lines(each.__traceback__)).__cause__
    return error


def raises_bare(function: Callable[P, T]) -> Callable[P, T]:
    """A function whose errors show no variable of its frames, nor what it was called with.

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


def _lines(traceback: TracebackType | None) -> TracebackType | None:
    """A traceback of those frames that hold no variables, or can be emptied."""
    entries: list[TracebackType] = []
    while traceback is not None:
        entries.append(traceback)
        traceback = traceback.tb_next
    lines: TracebackType | None = None
    for entry in reversed(entries):
        if _is_emptied(entry.tb_frame):
            lines = TracebackType(lines, entry.tb_frame, entry.tb_lasti, entry.tb_lineno)
    return lines


def _is_emptied(frame: FrameType) -> bool:
    # To empty that of a generator or a coroutine which waits would end it.
    if frame.f_code.co_flags & _MAY_GO_ON:
        return False
    try:
        frame.clear()
    except RuntimeError:
        # It goes on: one of those who called us.
        return False
    # Those of modules and classes keep theirs.
    return not frame.f_locals
