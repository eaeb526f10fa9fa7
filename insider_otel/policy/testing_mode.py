"""The switch of ``insider_otel.testing.set_testing``: a module of its own, so that reading it imports nothing else."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from types import TracebackType


@dataclass(frozen=True, slots=True)
class TestingMode:
    """What the library holds back while tests run.

    Attributes:
        attempts: Attempts a call may make at most; the settings may allow fewer.
        sleep: Whether waits are really slept.
        hold: Whether rate limits and duplicates are held back.
    """

    __test__ = False  # pytest: not a class of tests

    attempts: int = 1
    sleep: bool = False
    hold: bool = False


class _Entry:
    """One call of ``set_testing``; its identity is what an ended ``with`` block looks for.

    Attributes:
        mode: What it sets.
        instead: What the plain call before it had set, if this one has turned out to be a ``with`` block.
    """

    __slots__ = ("instead", "mode")

    def __init__(self, mode: TestingMode | None) -> None:
        self.mode = mode
        self.instead: _Entry | None = None


_lock = threading.Lock()
_base = _Entry(None)
"""What the last plain call set."""
_blocks: list[_Entry] = []
"""The ``with`` blocks that are open, in the order in which they were entered."""
_current: TestingMode | None = None
"""What holds now: kept apart so that reading it takes no lock."""


def current() -> TestingMode | None:
    """What to hold back now; None outside tests. The same for all threads and event loops of the process."""
    return _current


class Switch:
    """What ``set_testing`` returns: nothing to a plain call; a block that puts things back to a ``with``."""

    __slots__ = ("_before", "_entry")

    def __init__(self, entry: _Entry, before: _Entry) -> None:
        self._entry = entry
        self._before = before

    def __enter__(self) -> None:
        global _base  # noqa: PLW0603
        with _lock:
            self._entry.instead = self._before
            # Switches may be made first and entered later, in any order.
            while _base.instead is not None:
                _base = _base.instead
            _blocks.append(self._entry)
            _settle()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with _lock:
            # By identity: blocks of several threads or tasks need not end in the order they began.
            _blocks.remove(self._entry)
            _settle()


def set_testing(on: bool = True, *, attempts: int = 1, sleep: bool = False, hold: bool = False) -> Switch:
    """Make the library quick and predictable in tests: waits are not slept, attempts are bounded, nothing is held back.

    As a plain call it holds until the next one, wherever no block says otherwise. As a context manager it holds inside
    the block, and blocks nest. It applies to the whole process, other threads and event loops included, because the
    code under test may use them.

        set_testing()                       # in conftest.py
        with set_testing(attempts=2): ...   # one retry, at once
        with set_testing(False): ...        # the real thing

    Args:
        on: Whether testing mode is on.
        attempts: Attempts a call may make at most.
        sleep: Whether waits are really slept.
        hold: Whether rate limits and duplicates are held back. What one test has sent would otherwise bear on the next.

    Returns:
        A context manager.

    Raises:
        ValueError: ``attempts`` is less than 1.
    """
    global _base
    if attempts < 1:
        raise ValueError(f"attempts is {attempts!r}; a call makes at least 1")
    entry = _Entry(TestingMode(attempts=attempts, sleep=sleep, hold=hold) if on else None)
    with _lock:
        before, _base = _base, entry
        _settle()
    return Switch(entry, before)


def is_testing() -> bool:
    """Whether testing mode is on."""
    return _current is not None


def _settle() -> None:
    global _current  # noqa: PLW0603
    _current = (_blocks[-1] if _blocks else _base).mode
