"""A request that is handled in parts: the view, then each part of a streamed body; its thread does more in between."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import get_current_span, set_span_in_context

from insider_otel.http.scope import RequestScope, within


class HandledRequest:
    """What is current while a request is handled, and in nothing else that its thread does.

    Args:
        scope: The scope of the request.
    """

    def __init__(self, scope: RequestScope) -> None:
        self.scope = scope
        self._trace = get_current()

    @contextmanager
    def resumed(self) -> Generator[None]:
        """Do a part of it in its scope, and where the last part left off in the trace. The thread is left as it was."""
        token = attach(self._trace)
        try:
            with within(self.scope):
                yield
        finally:
            self._trace = get_current()
            detach(token)

    def begin_body(self) -> None:
        """Have what is still to come belong to the trace.

        The stock instrumentation has left the server span by now, unless it stands further out.
        """
        span = self.scope.server_span
        if span is not None and not get_current_span(self._trace).get_span_context().is_valid:
            self._trace = set_span_in_context(span, self._trace)
