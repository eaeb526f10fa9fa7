"""What each process has of its own: a child that was forked goes on without what its parent has."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Generic, TypeVar

_T = TypeVar("_T")


class PerProcess(Generic[_T]):
    """A value for each process, the same for all of its threads.

    Args:
        make: Makes it. Of threads that come first together each may call it; they all get the value of one of them.
    """

    def __init__(self, make: Callable[[], _T]) -> None:
        self._make = make
        self._values: dict[int, _T] = {}

    def get(self) -> _T:
        """The value of this process."""
        pid = os.getpid()
        value = self._values.get(pid)
        if value is None:
            value = self._values.setdefault(pid, self._make())
            for other in list(self._values):
                if other != pid:
                    self._values.pop(other, None)
        return value
