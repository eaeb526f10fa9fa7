"""A shop that defers calls, and a worker that sends them."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import httpx

from insider_otel import Settings
from insider_otel.delivery.worker import Worker
from insider_otel.http.engine import Engine
from insider_otel.http.transport import EngineTransport
from insider_otel.outbox.protocol import Stats
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from tests.outbox.killed import KEYS

UPSERT = "https://unification.useinsider.com/api/user/v1/upsert"
BOUND = 60.0
"""Seconds. More than anything here takes on a slow machine; less than a test that hangs."""

EMPTY = Stats(waiting=0, dead=0, oldest=None, leased=0)


class Insider:
    """Answers 200, or as told; holds answers back until it is let go."""

    def __init__(self) -> None:
        self.requests: list[str] = []
        self.statuses: list[int] = []
        self.arrived = threading.Semaphore(0)
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.at_once = self.most_at_once = 0
        self._lock = threading.Lock()

    def __call__(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            # However the version of httpx at hand spells JSON.
            self.requests.append(json.dumps(json.loads(request.content), separators=(",", ":")))
            self.at_once += 1
            self.most_at_once = max(self.at_once, self.most_at_once)
            status = self.statuses.pop(0) if self.statuses else 200
        self.arrived.release()
        assert self.may_answer.wait(BOUND)
        with self._lock:
            self.at_once -= 1
        return httpx.Response(status, json={"data": {"successful": {"count": 1}}})


class Shop:
    """An app that defers calls, and a worker that sends them."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.insider = Insider()
        options: dict[str, Any] = {
            "outbox": f"sqlite:///{path}?timeout=0.2",
            "credentials": lambda operation, account: KEYS,
            "quick_retries": 0,
            "retry_window": 0.1,
        }
        self.engine = Engine(Settings(**{**options, **settings}))
        self.client = httpx.Client(transport=EngineTransport(self.engine, httpx.MockTransport(self.insider)))
        self.store = SQLiteOutbox(path, timeout=BOUND)

    def defer(self, name: str, **options: Any) -> None:
        headers = {name: KEYS[name] for name in ("X-PARTNER-NAME", "X-REQUEST-TOKEN")}
        extensions = {"insider": {"defer": True, **options}}
        response = self.client.post(UPSERT, headers=headers, json={"users": [name]}, extensions=extensions)
        assert response.status_code == 202

    def worker(self, **options: Any) -> Worker:
        return Worker(self.engine, client=lambda: self.client, **options)

    @contextmanager
    def working(self, **options: Any) -> Iterator[Worker]:
        """A worker that works for the length of a ``with`` block."""
        worker = self.worker(**options)
        worker.start()
        try:
            yield worker
        finally:
            self.insider.may_answer.set()
            worker.stop(BOUND)
            assert not worker.is_alive

    def wait_for_request(self) -> None:
        assert self.insider.arrived.acquire(timeout=BOUND)

    def wait_until_empty(self) -> None:
        wait_until(lambda: self.store.stats() == EMPTY)

    def leased_until(self) -> float:
        """The latest end of a lease."""
        with closing(sqlite3.connect(self.path)) as connection:
            (moment,) = connection.execute("SELECT max(leased_until) FROM jobs").fetchone()
        return float(moment)


def wait_until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + BOUND
    while not holds():
        assert time.monotonic() < ends, "it does not come true"
        time.sleep(0.01)
