"""Claims on content in this process's memory: a million of them fit in 200 MB, and no more are kept."""

from __future__ import annotations

from collections import deque

from insider_otel.state.protocol import MICROSECONDS, ClaimAsk, ClaimEnd, ClaimReport, ClaimState

MOST_CLAIMS = 1_000_000
"""Claims that are kept; beyond them the oldest goes, and its repeat would be let through."""

_MOMENT = (1 << 62) - 1


def _packed(since: int, expires: int, done: bool) -> int:
    # One number instead of a record of three: 48 bytes for each of a million claims instead of 150.
    return since << 64 | expires << 1 | done


class MemoryClaims:
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

    def ask(self, ask: ClaimAsk, now: int) -> tuple[ClaimState, float, int | None]:
        """Ask for a content.

        Args:
            ask: The content.
            now: The present moment.

        Returns:
            What is known of it, seconds since the call that has or had it began, and the token if the caller has it.
        """
        since, expires, done = self._read(ask.key)
        if expires > now and (done or since != ask.token):
            state = ClaimState.DONE if done else ClaimState.IN_FLIGHT
            return state, max(now - since, 0) / MICROSECONDS, None
        if expires <= now:
            # The moment of its beginning tells a claim from any other.
            since = self._last_token = max(now, self._last_token + 1)
        self._write(ask.key, _packed(since, now + round(ask.lease * MICROSECONDS), False), now)
        return ClaimState.CLAIMED, 0.0, since

    def report(self, report: ClaimReport, now: int) -> None:
        """A call with a content is over.

        Args:
            report: How it ended.
            now: The present moment.
        """
        since, expires, done = self._read(report.key)
        # A claim whose lease is over is still the caller's if nobody took it, even if it is forgotten.
        token = report.token if not done and since in {0, report.token} else None
        until = now + round(report.lasts * MICROSECONDS)
        match report.end:
            case ClaimEnd.DONE:
                began = now if token is None else token
                self._write(report.key, _packed(began, max(until, expires if done else 0), True), now)
            case ClaimEnd.KEEP if token is not None:
                self._write(report.key, _packed(token, until, False), now)
            case ClaimEnd.RELEASE if since == token:
                # It stays, expired, so that its key stands in the order once.
                self._claims[report.key] = _packed(since, 0, False)
            case _:
                pass  # another call has it, or its lease is over

    def _read(self, key: bytes) -> tuple[int, int, bool]:
        packed = self._claims.get(key, 0)
        return packed >> 64, packed >> 1 & _MOMENT, bool(packed & 1)

    def _write(self, key: bytes, packed: int, now: int) -> None:
        if key not in self._claims:
            while self._order and (len(self._claims) >= self._most or self._is_expired(self._order[0], now)):
                del self._claims[self._order.popleft()]
            self._order.append(key)
        self._claims[key] = packed

    def _is_expired(self, key: bytes, now: int) -> bool:
        return (self._claims[key] >> 1 & _MOMENT) <= now
