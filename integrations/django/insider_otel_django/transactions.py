"""Calls to Insider that wait for the transaction."""

from __future__ import annotations

from collections.abc import Callable
from functools import update_wrapper
from typing import Any

from django.db import transaction
from opentelemetry import context as otel_context

from insider_otel.http.scope import RequestScope, check_deadline, within


def on_commit(
    func: Callable[[], Any], *, using: str | None = None, robust: bool = False, deadline: float | None = None
) -> None:
    """``transaction.on_commit`` for work that calls Insider: in the trace of who asked for it, not in the request.

    Its calls do not count in the request's summary, and the request's deadline does not bind them. But Django runs
    ``func`` where the transaction ends, so it is the visitor who waits for it: hence ``deadline``.

    Args:
        func: What to do once the transaction has been committed; at once if there is none.
        using: The database.
        robust: Whether an exception of ``func`` is logged, and the other functions go on.
        deadline: Seconds that the calls of ``func`` may take in all; None for no bound but the setting ``DEADLINE``.
    """
    check_deadline(deadline)
    context = otel_context.get_current()

    def run() -> None:
        token = otel_context.attach(context)
        try:
            # No ``request_scope``: its summary would take the place of the request's on the server span.
            with within(None if deadline is None else RequestScope(deadline)):
                func()
        finally:
            otel_context.detach(token)

    transaction.on_commit(update_wrapper(run, func), using=using, robust=robust)
