"""A pool of threads that keep no process alive."""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import SimpleQueue
from typing import Any


class DaemonThreadPool:
    """A number of threads, all of which are there from the beginning.

    Those of ``ThreadPoolExecutor`` are waited for when the interpreter ends, however long an answer takes that one of
    them waits for; and it starts them one by one, which can fail in the middle of the work.

    Args:
        size: How many.
        name: What their names begin with.

    Raises:
        RuntimeError: The system gives no more threads.
    """

    def __init__(self, size: int, name: str) -> None:
        self._tasks: SimpleQueue[tuple[Callable[..., object], tuple[Any, ...]] | None] = SimpleQueue()
        self._threads = [
            threading.Thread(target=self._work, name=f"{name} {number}", daemon=True) for number in range(size)
        ]
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:
            self.shutdown()
            raise

    def submit(self, act: Callable[..., object], *args: Any) -> None:
        """Have the next free thread call a function, which raises nothing.

        Args:
            act: The function.
            *args: Its arguments.
        """
        self._tasks.put((act, args))

    def shutdown(self) -> None:
        """Let each thread end when it has nothing left to do."""
        for _ in self._threads:
            self._tasks.put(None)

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            act, args = task
            act(*args)
            # What it was handed may be large, and the next task may be long in coming.
            del task, act, args
