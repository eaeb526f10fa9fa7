"""An app with an outbox in its database."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any

import httpx
from django_project.insider import credentials, sample
from insider_otel_django.outbox.store import DjangoOutbox

from insider_otel import Settings
from insider_otel.delivery.worker import Worker
from insider_otel.http.engine import Engine
from insider_otel.http.transport import EngineTransport
from insider_otel.testing import CapturedSpans, FakeInsider

BOUND = 60.0
OPTIONS = {"INSTRUMENT": False, "OUTBOX": "django", "OUTBOX_WORKER": False, "CREDENTIALS": credentials}


def until(condition: Callable[[], bool]) -> None:
    """Wait for something that is bound to happen."""
    ends = time.monotonic() + BOUND
    while not condition():
        assert time.monotonic() < ends
        time.sleep(0.01)


class Shop:
    """An app with an outbox in its database and a worker that sends from it."""

    def __init__(self, fake: FakeInsider) -> None:
        self.spans = CapturedSpans()
        settings = Settings(outbox="django", credentials=credentials)
        self.engine = Engine(settings, tracer_provider=self.spans.tracer_provider)
        self.client = httpx.Client(transport=EngineTransport(self.engine, fake.transport()))
        self.outbox = DjangoOutbox()

    def defer(self, operation: str = "mail.send", **options: Any) -> str:
        """Defer a call; returns the job."""
        response = self.client.request(**sample(operation), extensions={"insider": {"defer": True, **options}})
        assert response.status_code == 202
        return response.headers["x-insider-otel"].removeprefix("deferred; job=")

    @contextmanager
    def working(self) -> Generator[Worker]:
        """With a worker."""
        worker = Worker(self.engine, client=lambda: self.client)
        worker.start()
        try:
            yield worker
        finally:
            worker.stop()
