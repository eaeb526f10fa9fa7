"""The worker of a web app: in each process that serves, a thread that sends what was deferred."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any

from insider_otel.http.engine import Engine
from insider_otel.policy import testing_mode
from insider_otel.policy.settings import Mode
from insider_otel.web.per_process import PerProcess

if TYPE_CHECKING:
    from insider_otel.delivery.worker import Worker

GRACE = 5.0
"""Seconds that a process which ends waits for what is being sent."""
PAUSE = 10.0
"""Seconds after which a worker that could not start is tried again, by the next request."""

_log = logging.getLogger("insider_otel.web")


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
        return self._mine.get().is_alive

    def start(self) -> None:
        """Have it work in this process, unless it does; not in tests, which send what is due when they want it."""
        if not self._is_wanted or self.is_alive or testing_mode.current() is not None:
            return
        mine = self._mine.get()
        with mine.lock:
            now = self._engine.clock()
            if now < mine.try_at or mine.is_alive:
                return
            try:
                mine.worker = self._started()
                mine.try_at = -inf
            except RuntimeError as error:
                # The system gives no more threads. Pages that never call Insider need none.
                if mine.try_at == -inf:
                    _log.error("deferred calls wait: their worker cannot start, and is to try again: %s", error)
                mine.try_at = now + PAUSE

    def stop(self) -> None:
        """Take no more jobs, and wait a little for what is being sent. The next ``start`` begins anew."""
        mine = self._mine.get()
        if mine.worker is not None and mine.is_alive:
            mine.worker.stop(GRACE)
            mine.worker = None

    def _started(self) -> Worker:
        # Who has no outbox loads none of it.
        from insider_otel.delivery.worker import Worker  # noqa: PLC0415

        worker = Worker(self._engine, client=self._client)
        assert self._engine.watch is not None, "who has an outbox looks at it"
        worker.start()
        self._engine.watch.workers.add(worker)
        return worker


class _Mine:
    """What a process has. A child's own is empty: the thread is its parent's, as is whoever holds the lock."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.worker: Worker | None = None
        self.try_at = -inf

    @property
    def is_alive(self) -> bool:
        return self.worker is not None and self.worker.is_alive
