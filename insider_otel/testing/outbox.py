"""Sending what an app has deferred, in tests: now, and in this thread."""

from __future__ import annotations

from typing import Any

from insider_otel.delivery.worker import Worker
from insider_otel.http.instrumentor import engine_of


def deliver_outbox(client: Any, *, ahead: float = 0.0) -> int:
    """Send the deferred calls that are due, each once, and return when that is done.

        with set_testing(hold=True), override(app, fake):
            app.test_client().post("/signup")           # answered with 202; no worker runs in tests
            assert deliver_outbox(client) == 1
        assert fake.requests[-1].operation == "user.upsert"

    A call that fails once more goes back into the outbox, as it would in the app. Rate limits are Insider's, or the
    fake's: nothing is paced.

    Args:
        client: A sync client whose calls go through insider-otel, such as an adapter's; jobs are sent with it.
        ahead: Seconds; what is due within that time is sent too. A retry is due after up to five minutes, and later
            the more have failed.

    Returns:
        How many jobs were sent, whatever became of them.

    Raises:
        ValueError: The client is async, or its calls do not go through insider-otel.
        SettingsError: There is no outbox, or one whose jobs others send.
        OutboxError: The outbox is in trouble.
    """
    engine = None if hasattr(client, "aclose") else engine_of(client)
    if engine is None:
        raise ValueError(
            "deliver_outbox needs a sync client whose calls go through insider-otel: an adapter's client()"
        )
    return Worker(engine, client=lambda: client).deliver_due(ahead)
