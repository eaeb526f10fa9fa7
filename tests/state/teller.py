"""A store and one way of asking it, and what the contract's tests ask for."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimAsk,
    ListPools,
    PoolKey,
    PoolUse,
    Report,
    Store,
)

PATIENT = 1e8
"""A longest wait, in seconds, that takes any slot."""

POOL = PoolKey("user.upsert", b"o" * 16)
OTHER_OWNER = PoolKey("user.upsert", b"p" * 16)
OTHER_POOL = PoolKey("mail.send", b"o" * 16)
KEY = b"k" * 16
LEASE = 60.0

# Long enough that nothing of it passes while a test runs.
MINUTE, WINDOW = 60 * MICROSECONDS, 3600 * MICROSECONDS
HOURLY = Limit(3, 3600.0)
ONCE = Limit(1, 3600.0)
DAILY = Limit(1, 86_400.0, calendar=True)


def claim(key: bytes = KEY, lease: float = LEASE, token: int | None = None) -> ClaimAsk:
    return ClaimAsk(key, lease, token)


@dataclass
class Teller:
    """A store, asked in one way: by a thread, or from an event loop.

    Attributes:
        store: The store.
        place: Its file or URL.
        perform: ``store.perform``, or what awaits ``store.perform_async`` in an event loop.
    """

    store: Store
    place: str
    perform: Callable[[Any], Any]

    def admit(self, pool: PoolKey, limit: Limit | None = None, **ask: Any) -> Admission:
        """Ask for a slot, for a content, or for both."""
        admission = self.perform(Admit(pool, limit, **ask))
        assert isinstance(admission, Admission)
        return admission

    def slot(self, pool: PoolKey, limit: Limit | None, **ask: Any) -> int:
        """Take a slot, however far away."""
        slot = self.admit(pool, limit, longest_wait=PATIENT, **ask).slot
        assert slot is not None
        return slot

    def use_all(self, limit: Limit, pool: PoolKey = POOL) -> list[int]:
        """Take all that a limit allows at once."""
        admissions = [self.admit(pool, limit) for _ in range(limit.count)]
        assert [admission.wait for admission in admissions] == [0.0] * limit.count
        return [admission.slot for admission in admissions if admission.slot is not None]

    def use(self, ask: Admit) -> Admission:
        """Ask for a slot, wait for it, and confirm it until the store says that its moment has come."""
        admission: Admission = self.perform(ask)
        deadline = time.monotonic() + 30
        while admission.slot is not None and admission.wait > 0:
            assert time.monotonic() < deadline
            time.sleep(admission.wait)
            admission = self.perform(ask._replace(holding=admission.slot))
        return admission

    def report(self, pool: PoolKey, **told: Any) -> None:
        """Tell the store something of a pool."""
        assert self.perform(Report(pool, **told)) is None

    def pools(self) -> dict[PoolKey, PoolUse]:
        """What the store knows of every pool."""
        return {use.pool: use for use in self.perform(ListPools())}

    def now(self) -> int:
        """The present moment by the store's own clock."""
        return self.slot(PoolKey("clock", b"t" * 16), Limit(1_000_000, 0.001))

    def let_pass(self, seconds: float) -> None:
        """Return when that much time has passed on the store's own clock."""
        until = self.now() + round(seconds * MICROSECONDS)
        deadline = time.monotonic() + seconds + 30
        while (left := until - self.now()) > 0:
            assert time.monotonic() < deadline
            time.sleep(left / MICROSECONDS)
