"""The switch by which HTTP instrumentations keep out of each other's way."""

from __future__ import annotations

# The names that opentelemetry.instrumentation.utils uses itself; that module would bring wrapt and much else along.
from opentelemetry.context import (
    _SUPPRESS_HTTP_INSTRUMENTATION_KEY,  # pyright: ignore[reportPrivateUsage]
    _SUPPRESS_INSTRUMENTATION_KEY,  # pyright: ignore[reportPrivateUsage]
    Context,
    get_current,
    set_value,
)

_KEYS = (_SUPPRESS_HTTP_INSTRUMENTATION_KEY, _SUPPRESS_INSTRUMENTATION_KEY, "suppress_instrumentation")


def is_suppressed() -> bool:
    """Whether the app, or an instrumentation above us, wants no spans for HTTP requests."""
    context = get_current()
    for key in _KEYS:  # noqa: SIM110  (any() takes a generator, and twice the time)
        if context.get(key):
            return True
    return False


def suppressing(context: Context) -> Context:
    """``context``, in which the HTTP instrumentations below us make no spans and send no trace headers."""
    return set_value(_SUPPRESS_HTTP_INSTRUMENTATION_KEY, True, context)


def silencing(context: Context) -> Context:
    """``context``, in which no instrumentation makes spans."""
    return set_value(_SUPPRESS_INSTRUMENTATION_KEY, True, context)
