"""Records by key, of which those that nobody asks for any more are forgotten in passing."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, ItemsView
from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")

_LOOKED_AT = 2


class Recent(Generic[K, V]):
    """Records by key, the one asked for last at the end. Not safe between threads: its owner sees to that.

    Whoever serves ever new keys, as an agency with a key for each shop does, must not keep them all for good.

    Args:
        make: Makes the record of a new key.
        most: How many records are kept, idle or not; beyond them the one asked for longest ago goes.
    """

    __slots__ = ("_make", "_most", "_records")

    def __init__(self, make: Callable[[], V], most: int) -> None:
        self._make = make
        self._most = most
        self._records: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def items(self) -> ItemsView[K, V]:
        """Every key with its record."""
        return self._records.items()

    def peek(self, key: K) -> V | None:
        """A record, if there is one."""
        return self._records.get(key)

    def get(self, key: K, is_idle: Callable[[V], bool]) -> V:
        """The record of a key, made if it is not there; a new one takes the place of up to two idle ones.

        Args:
            key: The key.
            is_idle: Whether a record can be forgotten: a new one would say the same.
        """
        record = self._records.get(key)
        if record is not None:
            self._records.move_to_end(key)
            return record
        for _ in range(min(_LOOKED_AT, len(self._records))):
            oldest = next(iter(self._records))
            if len(self._records) >= self._most or is_idle(self._records[oldest]):
                del self._records[oldest]
        record = self._records[key] = self._make()
        return record
