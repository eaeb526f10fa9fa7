"""An app that defers calls, and what waits in its outbox."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.sdk.trace import TracerProvider

from insider_otel import InsiderTransport, Settings, defer
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.testing import FakeInsider, deliver_outbox, sample_request


@dataclass
class Shop:
    """An app that defers calls.

    Attributes:
        path: The file of its outbox.
        fake: The Insider it calls.
        settings: More settings.
        base_url: Where it calls it, if not in process.
        tracer_provider: Where its traces go.
    """

    path: Path
    fake: FakeInsider
    settings: dict[str, Any]
    base_url: str | None = None
    tracer_provider: TracerProvider | None = None

    @property
    def store(self) -> SQLiteOutbox:
        return SQLiteOutbox(self.path)

    def client(self) -> httpx.Client:
        transport = InsiderTransport(
            self.fake.transport(),
            settings=Settings(
                outbox=f"sqlite:///{self.path}",
                credentials=lambda operation, account: sample_request(operation.name).headers,
                **self.settings,
            ),
            tracer_provider=self.tracer_provider,
        )
        return httpx.Client(transport=transport)

    def defer(self, operation: str = "user.upsert") -> str:
        """Defer a call, and return the name of its job."""
        sample = sample_request(operation, base_url=self.base_url)
        with self.client() as client:
            request = client.build_request(sample.method, sample.url, headers=sample.headers, content=sample.content)
            answer = defer(client, request)
        return answer.headers["x-insider-otel"].rpartition("job=")[2]

    def dead(self, operation: str = "user.upsert") -> str:
        """Defer a call that Insider refuses for good."""
        name = self.defer(operation)
        self.fake.script(operation, "400")
        with self.client() as client:
            assert deliver_outbox(client) == 1
        return name
