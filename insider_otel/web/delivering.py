"""The worker of a web app: in each process that serves, a thread that sends what was deferred."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from insider_otel.http.engine import Engine
from insider_otel.policy import testing_mode
from insider_otel.policy.settings import Mode
from insider_otel.web.per_process import PerProcess

if TYPE_CHECKING:
    from insider_otel.delivery.worker import Worker

GRACE = 5.0
"""Seconds that a process which ends waits for what is being sent."""


class OutboxWorker:
    """Sends what is in the app's outbox, if it has one from which workers take jobs. Safe between threads.

    Args:
        engine: What its calls share with those of the app.
        client: Returns the client to send with.
        wanted: Whether the app wants it.
    """

    def __init__(self, engine: Engine, client: Callable[[], Any], *, wanted: bool) -> None:
        self._engine = engine
        self._client = client
        can_take = engine.desk is not None and hasattr(engine.desk.outbox, "take")
        self._is_wanted = wanted and can_take and engine.settings.mode is Mode.ENFORCE
        self._mine = PerProcess(_Mine)

    @property
    def is_alive(self) -> bool:
        """Whether it works in this process."""
        worker = self._mine.get().worker
        return worker is not None and worker.is_alive

    def start(self) -> None:
        """Have it work in this process, unless it does; not in tests, which send what is due when they want it."""
        if not self._is_wanted or self.is_alive or testing_mode.current() is not None:
            return
        mine = self._mine.get()
        with mine.lock:
            if not self.is_alive:
                mine.worker = self._started()

    def stop(self) -> None:
        """Take no more jobs, and wait a little for what is being sent. The next ``start`` begins anew."""
        mine = self._mine.get()
        worker = mine.worker
        if worker is not None and worker.is_alive:
            worker.stop(GRACE)
            mine.worker = None

    def _started(self) -> Worker:
        # Who has no outbox loads none of it.
        from insider_otel.delivery.worker import Worker  # noqa: PLC0415

        worker = Worker(self._engine, client=self._client)
        assert self._engine.watch is not None, "who has an outbox looks at it"
        self._engine.watch.workers.add(worker)
        worker.start()
        return worker


class _Mine:
    """What a process has. A child's own is empty: the thread is its parent's, as is whoever holds the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.worker: Worker | None = None
