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
_Errand = tuple[Callable[[], Any], Future[Any]]


class Clerk:
    """Does errands at the database, one after another.

    Django opens a connection for each thread, and closes it only at the end of a request. A worker has a dozen threads
    and no requests: here they have one connection, which is closed when they no longer use it. Its statements make no
    spans: a worker looks into the outbox once a second.
    """

    def __init__(self) -> None:
        self._office = PerProcess(_Office)

    def do(self, errand: Callable[[], _T]) -> _T:
        """Do an errand; in a transaction of its own for each statement.

        Args:
            errand: The errand.

        Returns:
            What it returns; what it raises is raised.
        """
        done: Future[_T] = Future()
        office = self._office.get()
        with office.lock:
            if office.errands is None or office.thread is None or not office.thread.is_alive():
                office.errands = SimpleQueue()
                office.thread = threading.Thread(
                    target=_work, args=(office.errands,), name="insider-otel outbox database", daemon=True
                )
                office.thread.start()
            office.errands.put((errand, done))
        return done.result()

    def close(self) -> None:
        """End the thread, and close its connection."""
        office = self._office.get()
        with office.lock:
            errands, office.errands = office.errands, None
            if errands is not None and office.thread is not None:
                errands.put(None)
                office.thread.join()


class _Office:
    """Where a process has its errands done. A child's own is empty: thread and lock are its parent's."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.errands: SimpleQueue[_Errand | None] | None = None
        self.thread: threading.Thread | None = None


def _next(errands: SimpleQueue[_Errand | None]) -> _Errand | None:
    try:
        return errands.get(timeout=_IDLE)
    except Empty:
        _close_connections()
        return errands.get()


def _work(errands: SimpleQueue[_Errand | None]) -> None:
    attach(silencing(Context()))
    try:
        while (waiting := _next(errands)) is not None:
            errand, done = waiting
            try:
                done.set_result(errand())
            except BaseException as error:  # noqa: BLE001  (it is raised where it was asked for)
                done.set_exception(error)
                # The server may have closed the connection: the next errand opens another.
                _close_connections()
    finally:
        _close_connections()


def _close_connections() -> None:
    # One that the server has closed already may say so.
    with suppress(Error):
        connections.close_all()
