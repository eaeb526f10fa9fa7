"""The retry budget: what keeps quick retries from becoming the outage."""

from __future__ import annotations

import threading

# Whole thousandths of a token, so that ten refunds of a tenth are exactly one token.
_TOKEN = 1000


class RetryBudget:
    """A token bucket that failures empty and successes fill, as gRPC's retry throttling (A6) does.

    It starts full with 10 tokens. A failure that could be retried takes one, a success gives a tenth back, and a quick
    retry is allowed only above half. So five failures in a row end quick retries, and it takes ten successes to earn
    one more. One budget serves all calls to one host; it is safe to share between threads.
    """

    __slots__ = ("_lock", "_thousandths")

    CAPACITY = 10
    COST = 1
    REFUND = 0.1
    FLOOR = 5

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._thousandths = self.CAPACITY * _TOKEN

    @property
    def tokens(self) -> float:
        """Tokens left, 0 to 10."""
        return self._thousandths / _TOKEN

    def failed(self) -> None:
        """Take a token for a failure that a retry might heal."""
        with self._lock:
            self._thousandths = max(0, self._thousandths - self.COST * _TOKEN)

    def succeeded(self) -> None:
        """Give a tenth of a token back for a success."""
        # Read without the lock: a healthy process is at the brim and has nothing to write.
        if self._thousandths < self.CAPACITY * _TOKEN:
            with self._lock:
                self._thousandths = min(self.CAPACITY * _TOKEN, self._thousandths + round(self.REFUND * _TOKEN))

    def allows_retry(self) -> bool:
        """Whether a quick retry may be made now."""
        return self._thousandths > self.FLOOR * _TOKEN
