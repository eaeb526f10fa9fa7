"""One thread with one connection to the database, for all threads of a worker."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from django.db import Error, connections
from opentelemetry.context import Context, attach

from insider_otel.telemetry.suppression import silencing
from insider_otel.web.per_process import PerProcess

_IDLE = 5.0
"""Seconds. A worker asks once a second: after that time there is none, and the connection is closed."""

_T = TypeVar("_T")
_Task = tuple[Callable[[], Any], Future[Any]]


class DatabaseThread:
    """Runs tasks at the database, one after another.

    Django opens a connection for each thread, and closes it only at the end of a request. A worker has a dozen threads
    and no requests: here they have one connection, which is closed when they no longer use it. Its statements make no
    spans: a worker looks into the outbox once a second.
    """

    def __init__(self) -> None:
        self._running = PerProcess(_Running)

    def run(self, task: Callable[[], _T]) -> _T:
        """Run a task; in a transaction of its own for each statement.

        Args:
            task: The task.

        Returns:
            What it returns; what it raises is raised.
        """
        done: Future[_T] = Future()
        running = self._running.get()
        with running.lock:
            if running.tasks is None or running.thread is None or not running.thread.is_alive():
                running.tasks = SimpleQueue()
                running.thread = threading.Thread(
                    target=_work, args=(running.tasks,), name="insider-otel outbox database", daemon=True
                )
                running.thread.start()
            running.tasks.put((task, done))
        return done.result()

    def close(self) -> None:
        """End the thread, and close its connection."""
        running = self._running.get()
        with running.lock:
            tasks, running.tasks = running.tasks, None
            if tasks is not None and running.thread is not None:
                tasks.put(None)
                running.thread.join()


class _Running:
    """The thread of a process. A child's own is empty: thread and lock are its parent's."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.tasks: SimpleQueue[_Task | None] | None = None
        self.thread: threading.Thread | None = None


def _next(tasks: SimpleQueue[_Task | None]) -> _Task | None:
    try:
        return tasks.get(timeout=_IDLE)
    except Empty:
        _close_connections()
        return tasks.get()


def _work(tasks: SimpleQueue[_Task | None]) -> None:
    attach(silencing(Context()))
    try:
        while (waiting := _next(tasks)) is not None:
            task, done = waiting
            try:
                done.set_result(task())
            except BaseException as error:  # noqa: BLE001  (it is raised where it was asked for)
                done.set_exception(error)
                # The server may have closed the connection: the next task opens another.
                _close_connections()
    finally:
        _close_connections()


def _close_connections() -> None:
    # One that the server has closed already may say so.
    with suppress(Error):
        connections.close_all()
