"""The span that the framework's own instrumentation makes for an incoming request, wherever it stands."""

from __future__ import annotations

import threading
import time
import weakref
from contextvars import ContextVar
from typing import Any, ClassVar, Protocol

from opentelemetry.trace import Span, SpanKind, get_current_span, get_tracer_provider


class Seeker(Protocol):
    """What wants to know a request's server span."""

    def found_server_span(self, span: Span) -> None:
        """Here it is."""
        ...


_seeker: ContextVar[weakref.ref[Seeker] | None] = ContextVar("insider_otel_server_span_seeker", default=None)
_latest: ContextVar[weakref.ref[Any] | None] = ContextVar("insider_otel_server_span", default=None)


def watch_server_spans() -> None:
    """Take note of server spans from now on: one may be some spans further out when it is asked for."""
    _Watch.over(get_tracer_provider())


def find_server_span(seeker: Seeker) -> None:
    """Tell a seeker the server span of the request that is handled here.

    The framework's instrumentation may have made it already. If it is installed nearer to the app than who asks, it
    will make it later: then the tracer provider says so.

    Args:
        seeker: Who wants to know.
    """
    span = _around(get_current_span())
    if span is not None:
        seeker.found_server_span(span)
        return
    # The context of the request holds the seeker for no longer than somebody else does.
    _seeker.set(weakref.ref(seeker))
    _Watch.over(get_tracer_provider())


def _around(span: Span) -> Span | None:
    if _is_server_span(span):
        return span
    # Two instrumentations, of the server and of the framework: the inner one's span is not the server span.
    reference = _latest.get()
    latest = None if reference is None else reference()
    # A thread keeps what an earlier request left in its context: that has ended, and was another trace.
    if latest is None or not _is_server_span(latest):
        return None
    return latest if latest.get_span_context().trace_id == span.get_span_context().trace_id else None


def _is_server_span(span: Any) -> bool:
    # What the API knows of a span says nothing of its kind; what the SDK makes does.
    return getattr(span, "kind", None) is SpanKind.SERVER and span.is_recording()


class HeldSpan:
    """A span that ends no sooner than it is released.

    The instrumentations of Flask and Django end the server span before a streamed body is made, and an ended span takes
    no attributes. It ends as if it had not been held, or with the last call that was made meanwhile.

    Args:
        span: The span, which has not ended.
    """

    def __init__(self, span: Any) -> None:
        self._span = span
        self._end_time: int | None = None
        span.end = self._hold

    def _hold(self, end_time: int | None = None) -> None:
        if self._end_time is None:
            self._end_time = time.time_ns() if end_time is None else end_time

    def extend(self) -> None:
        """Have it cover what was done until now."""
        if self._end_time is not None:
            self._end_time = time.time_ns()

    def release(self) -> None:
        """Let it end: at once, if it would have ended by now."""
        del self._span.end
        if self._end_time is not None:
            self._span.end(self._end_time)


class _Watch:
    """A span processor that looks at the start of server spans; without a base class of the SDK, which is optional."""

    # No set: a provider is somebody else's object, which need not have a hash.
    _watched: ClassVar[list[weakref.ref[Any]]] = []
    _lock: ClassVar[threading.Lock] = threading.Lock()

    @classmethod
    def over(cls, provider: Any) -> None:
        """Watch the spans of a provider, if it is one that makes any."""
        with cls._lock:
            alive = [reference for reference in cls._watched if reference() is not None]
            if not hasattr(provider, "add_span_processor") or any(each() is provider for each in alive):
                return
            cls._watched = [*alive, weakref.ref(provider)]
        provider.add_span_processor(cls())

    def on_start(self, span: Any, parent_context: object = None) -> None:
        """A span began."""
        if not _is_server_span(span):
            return
        _latest.set(weakref.ref(span))
        reference = _seeker.get()
        seeker = None if reference is None else reference()
        if seeker is not None:
            seeker.found_server_span(span)

    def _on_ending(self, span: Any) -> None:
        """A span is about to end."""

    def on_end(self, span: Any) -> None:
        """A span ended."""

    def shutdown(self) -> None:
        """The provider shuts down."""

    def force_flush(self, timeout_millis: int = 30_000) -> bool:
        """There is nothing to flush."""
        return True
