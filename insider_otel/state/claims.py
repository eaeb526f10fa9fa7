"""Claims on content in this process's memory: a million of them fit in 200 MB, and no more are kept."""

from __future__ import annotations

from collections import deque

from insider_otel.state.rules import Claims

MOST_CLAIMS = 1_000_000
"""Claims that are kept; beyond them the oldest goes, and its repeat would be let through."""

_MOMENT = (1 << 62) - 1


class MemoryClaims(Claims):
    """Who has which content. Not safe between threads: its store sees to that.

    Args:
        most: How many claims are kept.
    """

    __slots__ = ("_claims", "_last_token", "_most", "_order")

    def __init__(self, most: int = MOST_CLAIMS) -> None:
        self._most = most
        self._claims: dict[bytes, int] = {}
        # The keys in the order in which they came: a dict is slow at finding its first.
        self._order: deque[bytes] = deque()
        self._last_token = 0

    def __len__(self) -> int:
        return len(self._claims)

    def _read(self, key: bytes) -> tuple[int, int, bool]:
        packed = self._claims.get(key, 0)
        return packed >> 64, packed >> 1 & _MOMENT, bool(packed & 1)

    def _write(self, key: bytes, since: int, expires: int, done: bool, now: int) -> None:
        if key not in self._claims:
            while self._order and (len(self._claims) >= self._most or self._is_expired(self._order[0], now)):
                del self._claims[self._order.popleft()]
            self._order.append(key)
        # One number instead of a record of three: 48 bytes for each of a million claims instead of 150.
        self._claims[key] = since << 64 | expires << 1 | done

    def _new_token(self, since: int, now: int) -> int:
        # Not by the claim before: that may be forgotten.
        self._last_token = max(now, self._last_token + 1)
        return self._last_token

    def _is_expired(self, key: bytes, now: int) -> bool:
        return (self._claims[key] >> 1 & _MOMENT) <= now
