"""The context that a call runs in, and the switch by which HTTP instrumentations keep out of each other's way."""

from __future__ import annotations

from contextvars import Token
from typing import TYPE_CHECKING

# The names that opentelemetry.instrumentation.utils uses itself; that module would bring wrapt and much else along.
from opentelemetry.context import (
    _SUPPRESS_HTTP_INSTRUMENTATION_KEY,  # pyright: ignore[reportPrivateUsage]
    _SUPPRESS_INSTRUMENTATION_KEY,  # pyright: ignore[reportPrivateUsage]
    Context,
    attach,
    detach,
    get_current,
    set_value,
)

if TYPE_CHECKING:
    from types import TracebackType

_KEYS = (_SUPPRESS_HTTP_INSTRUMENTATION_KEY, _SUPPRESS_INSTRUMENTATION_KEY, "suppress_instrumentation")


def is_suppressed() -> bool:
    """Whether the app, or an instrumentation above us, wants no spans for HTTP requests."""
    context = get_current()
    for key in _KEYS:  # noqa: SIM110  (any() takes a generator, and twice the time)
        if context.get(key):
            return True
    return False


def http_suppression() -> object:
    """What the switch for HTTP instrumentations is here."""
    return get_current().get(_SUPPRESS_HTTP_INSTRUMENTATION_KEY)


def suppressing(context: Context) -> Context:
    """``context``, in which the HTTP instrumentations below us make no spans and send no trace headers."""
    return set_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY, True, context)


def silencing(context: Context) -> Context:
    """``context``, in which no instrumentation makes spans."""
    return set_value(_SUPPRESS_INSTRUMENTATION_KEY, True, context)


class attached:  # noqa: N801  (it reads as a word, as those of contextlib do)
    """In this context while the block lasts.

    Not ``contextlib.contextmanager``, which would take 1 µs longer, twice for each attempt.

    Args:
        context: The context.
    """

    __slots__ = ("_context", "_token")

    _token: Token[Context]

    def __init__(self, context: Context) -> None:
        self._context = context

    def __enter__(self) -> None:
        self._token = attach(self._context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # What a call that was dropped ran in is gone; whoever drops it is in a context of its own, unless it closes it.
        if kind is not GeneratorExit or get_current() is self._context:
            detach(self._token)


class unsuppressed:  # noqa: N801
    """While the block lasts, the switch for HTTP instrumentations is as it was elsewhere; the span stays.

    Args:
        outside: What it was there.
    """

    __slots__ = ("_context", "_inside", "_outside", "_token")

    _token: Token[Context]

    def __init__(self, outside: object) -> None:
        self._outside = outside

    def __enter__(self) -> None:
        current = get_current()
        self._inside = current.get(_SUPPRESS_HTTP_INSTRUMENTATION_KEY)
        self._context = set_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY, self._outside, current)
        self._token = attach(self._context)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        left = get_current()
        if left is self._context:
            detach(self._token)
        elif kind is not GeneratorExit:
            # A generator has opened a span or closed one, and goes on in this context when it is asked again.
            attach(set_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY, self._inside, left))
