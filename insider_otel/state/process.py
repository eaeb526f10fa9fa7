"""What the calls of one process share, in its memory."""

from __future__ import annotations

import os
import threading

from insider_otel.policy.budget import RetryBudget

PoolKey = tuple[str, bytes]
"""A pool and the fingerprint of the credential it is counted for."""


class MemoryState:
    """Retry budgets by host, and closed pools, for one process. Safe to share between threads and event loops."""

    __slots__ = ("_blocks", "_budgets", "_lock")

    _lock: threading.Lock
    _budgets: dict[str, RetryBudget]
    _blocks: dict[PoolKey, float]

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """Start anew: budgets full, pools open."""
        self._lock = threading.Lock()
        self._budgets = {}
        self._blocks = {}

    def budget(self, host: str) -> RetryBudget:
        """The retry budget that all calls to ``host`` share."""
        budget = self._budgets.get(host)
        if budget is None:
            with self._lock:
                budget = self._budgets.setdefault(host, RetryBudget())
        return budget

    @property
    def has_blocks(self) -> bool:
        """Whether any pool has been closed; the cheap question asked before each attempt."""
        return bool(self._blocks)

    def block(self, key: PoolKey, until: float, now: float) -> None:
        """Close a pool until a moment: Insider said so to one call, and it holds for all.

        Args:
            key: The pool and whose it is.
            until: The moment on the callers' clock from which the pool is open again.
            now: The present moment on that clock.
        """
        with self._lock:
            for expired in [other for other, end in self._blocks.items() if end <= now]:
                del self._blocks[expired]
            self._blocks[key] = max(until, self._blocks.get(key, until))

    def blocked_until(self, key: PoolKey) -> float | None:
        """The moment until which a pool is closed; None if it was not closed."""
        return self._blocks.get(key)


PROCESS_STATE = MemoryState()
"""What all calls of this process share that go by the process's own clock."""

# A child must not inherit a lock that some thread of its parent happened to hold.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=PROCESS_STATE.forget)
