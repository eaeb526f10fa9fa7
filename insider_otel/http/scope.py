"""The scope of one incoming request: its deadline, and the summary of the calls made in it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Generic, TypeVar

from insider_otel.api.verdict import Category
from insider_otel.http.record import Call
from insider_otel.policy.steps import Outcome
from insider_otel.telemetry import attributes as names
from insider_otel.telemetry.call import milliseconds
from insider_otel.telemetry.server_span import HeldSpan, find_server_span

if TYPE_CHECKING:
    from types import TracebackType

    from opentelemetry.trace import Span

T = TypeVar("T")


class RequestScope:
    """What the calls of one incoming request share. Open it with ``request_scope``.

    Args:
        deadline: Seconds from now by which every call in the scope must be over; None for no bound.
        clock: Returns seconds; only differences matter.
        outer: The scope that this one was opened in; it counts the calls too.
    """

    __slots__ = (
        "__weakref__",
        "_began",
        "_clock",
        "_closed",
        "_ends",
        "_held",
        "_holders",
        "_lock",
        "_outer",
        "_server_span",
        "_summary",
    )

    def __init__(
        self, deadline: float | None, clock: Callable[[], float] = time.monotonic, outer: RequestScope | None = None
    ) -> None:
        self._clock = clock
        self._outer = outer
        self._server_span: Span | None = None
        self._held: HeldSpan | None = None
        self._holders: set[RequestScope] = set()
        self._began = clock()
        self._ends = None if deadline is None else self._began + deadline
        self._closed = False
        # The garbage collector closes what was left within this scope wherever it runs: also where this thread has it.
        self._lock = threading.RLock()
        self._summary: dict[str, int] = dict.fromkeys(
            (
                names.REQUEST_CALLS,
                names.REQUEST_FAILED_CALLS,
                names.REQUEST_RETRIES,
                names.REQUEST_DUPLICATES,
                names.REQUEST_RATE_LIMITED,
                names.REQUEST_DEFERRED,
                names.REQUEST_WAIT_MS,
            ),
            0,
        )

    @property
    def remaining(self) -> float | None:
        """Seconds left until the deadline, negative once it has passed; None without one, or after the scope ended.

        Work that outlives its request, in a thread or task that copied its context, has no deadline of the request's.
        """
        if self._ends is None or self._closed:
            return None
        return self._ends - self._clock()

    def set_deadline(self, seconds: float | None) -> None:
        """Give the request another deadline: what a route's own setting does, once the route is known.

        Args:
            seconds: Seconds from the beginning of the scope, so that what the request has used already counts; None for
                no bound. A scope within a scope still cannot outlast it.

        Raises:
            ValueError: ``seconds`` is not a number of seconds.
        """
        check_deadline(seconds)
        ends = None if seconds is None else self._began + seconds
        left = None if self._outer is None else self._outer.remaining
        if left is not None:
            ends = self._clock() + left if ends is None else min(ends, self._clock() + left)
        self._ends = ends

    def summary(self) -> dict[str, int]:
        """The ``insider.request.*`` attributes for the server span."""
        with self._lock:
            return dict(self._summary)

    @property
    def _whole(self) -> RequestScope:
        """The scope of the whole request: the server span is its, whoever in it finds or holds that."""
        return self if self._outer is None else self._outer._whole

    @property
    def server_span(self) -> Span | None:
        """The server span of the request, which may have ended; None if it is not known, or after the request ended."""
        return self._whole._server_span

    def found_server_span(self, span: Span) -> None:
        """Have the summary written on a span, now and after every call: the framework may end it before the scope ends.

        Args:
            span: The server span of the request.
        """
        whole = self._whole
        with whole._lock:
            if whole._server_span is not None or whole._closed:
                return
            whole._server_span = span
            whole._hold()
            if whole._summary[names.REQUEST_CALLS]:
                span.set_attributes(whole._summary)

    def hold_server_span(self) -> None:
        """Keep the server span open until it is released, or the scope is closed: for a body that is yet to be made.

        If it is not known yet, it is kept open as soon as it is. Scopes within one another may each hold it.
        """
        whole = self._whole
        with whole._lock:
            whole._holders.add(self)
            whole._hold()

    def _hold(self) -> None:
        if self._holders and self._held is None and self._server_span is not None and self._server_span.is_recording():
            self._held = HeldSpan(self._server_span)

    def release_server_span(self) -> None:
        """Let the server span end, unless another scope of the request holds it: the body is made."""
        whole = self._whole
        with whole._lock:
            whole._holders.discard(self)
            if whole._holders:
                return
            held, whole._held = whole._held, None
        if held is not None:
            held.release()

    def record(self, call: Call | None, *, attempts: int, waited: float, rate_limited: int) -> None:
        """Add one call to the summary.

        Args:
            call: Its record; None for a call that was cancelled before it had one.
            attempts: Attempts made.
            waited: Seconds waited.
            rate_limited: How often Insider, or the local limit, said "too many".
        """
        with self._lock:
            if self._closed:
                return
            summary = self._summary
            summary[names.REQUEST_CALLS] += 1
            summary[names.REQUEST_RETRIES] += max(attempts - 1, 0)
            summary[names.REQUEST_WAIT_MS] += milliseconds(waited)
            summary[names.REQUEST_RATE_LIMITED] += rate_limited
            if call is not None:
                summary[names.REQUEST_FAILED_CALLS] += call.outcome in {Outcome.FAILED, Outcome.PARTLY_FAILED}
                summary[names.REQUEST_DUPLICATES] += call.verdict.category is Category.DUPLICATE
                summary[names.REQUEST_DEFERRED] += call.outcome is Outcome.DEFERRED
            # A body that is still being sent may outlive the span.
            if self._server_span is not None and self._server_span.is_recording():
                self._server_span.set_attributes(summary)
            if self._held is not None:
                self._held.extend()
        if self._outer is not None:
            self._outer.record(call, attempts=attempts, waited=waited, rate_limited=rate_limited)

    @property
    def is_closed(self) -> bool:
        """Whether the request is over."""
        return self._closed

    def close(self) -> None:
        """End the scope: its deadline binds no longer, and later calls are not counted."""
        with self._lock:
            self._closed = True
            self._server_span = None
            # No scope within it outlasts it.
            self._holders.clear()
        self.release_server_span()


_current: ContextVar[RequestScope | None] = ContextVar("insider_otel_request_scope", default=None)


class bound(Generic[T]):  # noqa: N801  (it reads as a word, as those of contextlib do)
    """Has a context variable be something while the block lasts.

    Args:
        variable: The variable.
        value: What it is.
    """

    __slots__ = ("_token", "_value", "_variable")

    _token: Token[T]

    def __init__(self, variable: ContextVar[T], value: T) -> None:
        self._variable = variable
        self._value = value

    def __enter__(self) -> None:
        self._token = self._variable.set(self._value)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            self._variable.reset(self._token)
        except ValueError:
            # What a block that was dropped ran in is gone; whoever drops it is in a context of its own.
            if kind is not GeneratorExit:
                raise


def current_scope() -> RequestScope | None:
    """The scope that calls made here belong to."""
    return _current.get()


def is_deadline(value: object) -> bool:
    """Whether a value is a deadline: seconds from 0 up, as many as a float can tell, or None for no bound."""
    return value is None or (
        isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max
    )


def check_deadline(deadline: object) -> None:
    """Refuse what is no deadline.

    Args:
        deadline: Seconds from 0 up; None for no bound.

    Raises:
        ValueError: It is neither.
    """
    if not is_deadline(deadline):
        raise ValueError(f"deadline is {deadline!r}; it accepts seconds from 0 up, or None for no bound")


@contextmanager
def request_scope(
    deadline: float | None = None, *, clock: Callable[[], float] = time.monotonic
) -> Generator[RequestScope]:
    """Bound the Insider calls made in the block, and sum them up. The web adapters open one for each request.

    A scope within a scope cannot outlast it, and its calls count in both.

    Args:
        deadline: Seconds that the calls in the block may take, from now; None for no bound.
        clock: Returns seconds; only differences matter.

    Yields:
        The scope; ``scope.summary()`` gives the attributes for the server span.

    Raises:
        ValueError: ``deadline`` is not a number of seconds.
    """
    scope = open_scope(deadline, clock=clock)
    try:
        with within(scope):
            yield scope
    finally:
        scope.close()


def open_scope(deadline: float | None = None, *, clock: Callable[[], float] = time.monotonic) -> RequestScope:
    """A scope that calls are not yet made in; see ``request_scope`` for its arguments.

    Raises:
        ValueError: ``deadline`` is not a number of seconds.
    """
    check_deadline(deadline)
    outer = _current.get()
    if outer is not None and outer.is_closed:
        # Work that outlived its request serves another one now.
        outer = None
    left = outer.remaining if outer is not None else None
    if left is not None:
        deadline = left if deadline is None else min(deadline, left)
    scope = RequestScope(deadline, clock, outer)
    if outer is None:
        # The summary on the server span is that of the whole request, which counts the calls of scopes in it.
        find_server_span(scope)
    return scope


@contextmanager
def within(scope: RequestScope | None) -> Generator[None]:
    """Make calls in a scope, or with None in no scope at all: work that a request leaves behind is not bound by it.

    Args:
        scope: The scope.
    """
    with bound(_current, scope):
        yield


def background() -> AbstractContextManager[None]:
    """Make calls as if in no request: for what a request leaves behind and that must not hurry because of it.

        with background():
            client.post(...)  # no deadline of the request, not in its summary; the trace goes on

    Returns:
        A context manager.
    """
    return within(None)
