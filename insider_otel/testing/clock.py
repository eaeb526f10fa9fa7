"""A clock that moves only when it is told to, or slept on."""

from __future__ import annotations

import threading

START = 1_767_225_600.0
"""2026-01-01T00:00:00Z, so that calendar days begin where one expects."""


class FakeClock:
    """A clock for tests: call it for the time, sleep on it in no time.

    A sleep moves the clock at once by its length and is recorded. Tasks that sleep at the same time therefore move it
    one after the other, not together.

        clock = FakeClock()
        InsiderTransport(fake.transport(), clock=clock, sleep=clock.sleep)
        AsyncInsiderTransport(fake.transport(), clock=clock, sleep=clock.async_sleep)

    Args:
        start: The first time it tells, in seconds.

    Attributes:
        sleeps: The length of every sleep so far, in seconds.
    """

    def __init__(self, start: float = START) -> None:
        self._now = start
        self._lock = threading.Lock()
        self.sleeps: list[float] = []

    def __call__(self) -> float:
        """The time in seconds."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass, without a sleep.

        Args:
            seconds: How much; clocks do not go back.

        Raises:
            ValueError: ``seconds`` is below 0.
        """
        if seconds < 0:
            raise ValueError(f"seconds is {seconds!r}; a clock does not go back")
        with self._lock:
            self._now += seconds

    def sleep(self, seconds: float) -> None:
        """Record a sleep and let its time pass.

        Args:
            seconds: Its length.
        """
        self.advance(seconds)
        self.sleeps.append(seconds)

    async def async_sleep(self, seconds: float) -> None:
        """Like ``sleep``; other tasks get their turn, as they would in a real one.

        Args:
            seconds: Its length.
        """
        from anyio.lowlevel import checkpoint  # noqa: PLC0415  (the pytest plugin loads quickly)

        self.sleep(seconds)
        await checkpoint()
