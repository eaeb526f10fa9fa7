"""Moments in ascending order: what a rolling window is made of."""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from typing import Protocol


class Moments(Protocol):
    """Moments in ascending order, wherever they are kept."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> int: ...

    def before(self, moment: int, /) -> int:
        """How many there are before a moment."""
        ...

    def until(self, moment: int, /) -> int:
        """How many there are until a moment, itself included."""
        ...

    def part(self, start: int, end: int, /) -> list[int]:
        """Those from one index to before another."""
        ...

    def extend(self, moments: list[int], /) -> None:
        """Add moments in ascending order, which are not before the last."""
        ...

    def move(self, index: int, number: int, end: int, to: int, /) -> None:
        """Let a number of moments from ``index`` on be one that belongs before ``end``, and the others close up."""
        ...

    def drop_first(self, number: int, /) -> None: ...

    def drop_last(self, number: int, /) -> None: ...


class MomentsInMemory:
    """Moments in one array: eight bytes each."""

    __slots__ = ("_array", "_first")

    def __init__(self) -> None:
        self._array = array("q")
        self._first = 0

    def __len__(self) -> int:
        return len(self._array) - self._first

    def __getitem__(self, index: int, /) -> int:
        return self._array[index if index < 0 else self._first + index]

    def before(self, moment: int, /) -> int:
        return bisect_left(self._array, moment, self._first) - self._first

    def until(self, moment: int, /) -> int:
        return bisect_right(self._array, moment, self._first) - self._first

    def part(self, start: int, end: int, /) -> list[int]:
        return self._array[self._first + start : self._first + end].tolist()

    def extend(self, moments: list[int], /) -> None:
        self._array.extend(moments)

    def move(self, index: int, number: int, end: int, to: int, /) -> None:
        first, last = self._first + index, self._first + end
        self._array[first:last] = self._array[first + number : last] + array("q", [to]) * number

    def drop_first(self, number: int, /) -> None:
        self._first += number
        # Moving the rest to the front once for as many as were dropped costs each of them one step.
        if self._first * 2 > len(self._array):
            del self._array[: self._first]
            self._first = 0

    def drop_last(self, number: int, /) -> None:
        del self._array[len(self._array) - number :]
