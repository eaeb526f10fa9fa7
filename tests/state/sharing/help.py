"""A store that fails when it is told to, and a process that shares it, driven by hand."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from insider_otel.api.operations import Limit
from insider_otel.state.availability import Caller
from insider_otel.state.memory import MemoryStore
from insider_otel.state.protocol import (
    Admit,
    PoolKey,
    Request,
    StoreEffects,
    StoreError,
)
from insider_otel.state.shared import Grant, SharedState
from insider_otel.testing import FakeClock

T = TypeVar("T")

POOL = PoolKey("catalog.ingest", b"o" * 16)
LIMIT = Limit(4, 10.0)
CONTENT = b"c" * 16


class FakeStore:
    """A memory store that others could share; it fails or is late when told to, and remembers what it was asked.

    Args:
        clock: Its clock, which need not be that of those who ask.
    """

    name = "redis"
    address = "redis://example.com:6379/0"

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self.asked: list[Request] = []
        self.fails = False
        self.is_late = False
        self.born = 0
        self.lose_memory()

    def lose_memory(self) -> None:
        self._memory = MemoryStore(self._clock, self._clock)
        self.born += 1
        self.workers = 1
        self._seen: set[bytes] = set()

    def perform(self, request: Request) -> Any:
        self.asked.append(request)
        if self.fails:
            raise StoreError(f"{self.address}: no answer within 0.05 s")
        reply = self._memory.perform(request)
        if self.is_late:
            raise StoreError(f"{self.address}: no answer within 0.05 s")
        if isinstance(request, Admit):
            if request.worker and request.born in {0, self.born}:
                self._seen.add(request.worker)
            return reply._replace(workers=max(self.workers, len(self._seen)), born=self.born)
        return reply

    async def perform_async(self, request: Request) -> Any:
        return self.perform(request)

    def close(self) -> None:
        pass

    @property
    def last_ask(self) -> Admit:
        return next(request for request in reversed(self.asked) if isinstance(request, Admit))


def drive(effects: StoreEffects[T]) -> T:
    """Carry out a course of effects, as the drivers of calls do."""
    try:
        effect = next(effects)
        while True:
            try:
                effect.reply = effect.store.perform(effect.request)
            except StoreError as error:
                effect = effects.throw(error)
            else:
                effect = effects.send(effect.reply)
    except StopIteration as end:
        result: T = end.value
        return result


class Process:
    """One process that shares a store: its state, on the tests' clock."""

    def __init__(self, store: FakeStore | None, clock: FakeClock) -> None:
        self.state = SharedState(store, clock, clock)
        self.clock = clock

    def ask(self, *, wait: float = 0.0, held: Grant | None = None, limit: Limit = LIMIT, **more: Any) -> Grant:
        return drive(self.state.admit(Admit(POOL, limit, longest_wait=wait, **more), Caller(), held))

    def take(self, number: int) -> list[bool]:
        """Ask for a number of slots at once; returns which of them are granted for now."""
        return [self.ask().admission.slot is not None for _ in range(number)]

    def settle(self, grant: Grant, *, late: float = 0.0, actual: int = 1) -> None:
        self.state.settle(grant, now=grant.due + late, actual=actual)
