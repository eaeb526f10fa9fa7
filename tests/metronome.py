"""How late a machine is with everything, so that a test can tell it from what is late by itself."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

_BEAT = 0.005
_STANDSTILL = 0.1


class Metronome:
    """A thread that does nothing but sleep, and measures when it gets its turn.

    Attributes:
        latest: Seconds that it was late at most.
        stood_still: Seconds that the machine, or this process, stood still in all: what makes a beat late by a tenth of
            a second or more.
    """

    def __init__(self) -> None:
        self.latest = 0.0
        self.stood_still = 0.0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """End it."""
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._over.is_set():
            began = time.monotonic()
            time.sleep(_BEAT)
            late = time.monotonic() - began - _BEAT
            self.latest = max(self.latest, late)
            if late >= _STANDSTILL:
                self.stood_still += late


@contextmanager
def metronome() -> Iterator[Metronome]:
    """A metronome for the length of a ``with`` block."""
    beating = Metronome()
    try:
        yield beating
    finally:
        beating.stop()


def assert_nobody_is_late(measure: Callable[[], list[Any]]) -> None:
    """Measure up to three times, until nobody is late.

    A busy machine or a slow disk makes somebody late now and then, an unfair queue each time. Where the machine stood
    still in each of the measurements, nothing was measured: the test is skipped.

    Args:
        measure: Measures; returns who was late.
    """
    stood_still: list[float] = []
    late: list[Any] = []
    for _ in range(3):
        with metronome() as machine:
            late = measure()
        if not late:
            return
        stood_still.append(machine.stood_still)
    if all(stood_still):
        pytest.skip(f"the machine stood still each time, for {stood_still} s")
    pytest.fail(f"late each time, at last: {late}")
