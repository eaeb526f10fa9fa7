"""What every store promises to many at once, and that all of them answer the same."""

from __future__ import annotations

import itertools
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from insider_otel.api.operations import Limit
from insider_otel.state.memory import MemoryStore
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Correction,
    PastUse,
    PoolKey,
    Report,
    Store,
)

from .race import claim_state, claim_state_at, in_processes
from .teller import HOURLY, KEY, PATIENT, POOL, Teller, claim

# ------------------------------------------------------------------------------------------------------------- crowds


def test_eight_threads_who_wait_their_turn_never_exceed_the_limit(teller: Teller) -> None:
    limit, window, each = Limit(10, 0.1), 100_000, 6

    def work(_: int) -> list[int]:
        admissions = [teller.use(Admit(POOL, limit, longest_wait=PATIENT)) for _ in range(each)]
        return [admission.slot for admission in admissions if admission.slot is not None]

    with ThreadPoolExecutor(8) as threads:
        uses = sorted(slot for slots in threads.map(work, range(8)) for slot in slots)
    assert len(uses) == 8 * each
    assert all(later - earlier >= window for earlier, later in zip(uses, uses[limit.count :], strict=False))


def test_threads_and_event_loops_share_a_store(teller: Teller) -> None:
    """Two uses by a thread, one in whatever way this test asks."""
    for _ in range(2):
        assert teller.store.perform(Admit(POOL, HOURLY)).wait == 0
    assert teller.admit(POOL, HOURLY, claim=claim()).used == 3
    assert teller.store.perform(Admit(POOL, HOURLY)).slot is None
    assert teller.store.perform(Admit(POOL, None, claim=claim())).claim is ClaimState.IN_FLIGHT


def test_a_store_that_was_closed_is_opened_by_the_next_to_ask(teller: Teller) -> None:
    teller.admit(POOL, HOURLY)
    teller.store.close()
    assert teller.admit(POOL, HOURLY).wait == 0


@pytest.mark.parametrize("kind", ["sqlite", "redis"], indirect=True)
def test_of_32_processes_that_race_for_a_content_one_has_it(kind: str, place: str) -> None:
    assert sorted(in_processes(32, claim_state_at, kind, place, KEY)) == ["claimed"] + ["in_flight"] * 31


def test_of_32_threads_that_race_for_a_content_one_has_it(store: Store) -> None:
    barrier = threading.Barrier(32)

    def race(_: int) -> str:
        barrier.wait(30)
        return claim_state(store, KEY)

    with ThreadPoolExecutor(32) as threads:
        assert sorted(threads.map(race, range(32))) == ["claimed"] + ["in_flight"] * 31


# ------------------------------------------------------------------------------------------------- the same semantics


@dataclass(frozen=True)
class Step:
    """One thing that a caller does; ``which`` picks among the slots and claims it has."""

    what: str
    amount: int
    which: int


STEPS = st.builds(
    Step,
    st.sampled_from(["ask", "ask", "ask", "confirm", "correct", "late", "close", "claim", "end", "past", "refuse"]),
    st.integers(0, 3),
    st.integers(0, 9),
)


class Caller:
    """Does the same to a store as another does to another, and says what came of it in terms that both share."""

    def __init__(self, store: Store, pool: PoolKey) -> None:
        self._store = store
        self._pool = pool
        self._limit = Limit(4, 10_000.0)
        self._slots: list[tuple[int, int]] = []
        self._tokens: list[tuple[bytes, int]] = []

    def do(self, step: Step) -> Any:
        """Do one step; returns what the store said, with waits in whole thousands of seconds."""
        match step.what:
            case "ask" | "claim":
                wanted = claim(self._pool.pool.encode() + bytes([step.which % 3])) if step.what == "claim" else None
                return self._take(cost=step.amount or 1, claim=wanted, longest_wait=PATIENT)
            case "refuse":
                return self._take(cost=step.amount or 1, longest_wait=0.0)
            case "past":
                return self._take(longest_wait=PATIENT, past=(PastUse(step.which * 500 * MICROSECONDS, step.amount),))
            case "close":
                return self._store.perform(Report(self._pool, closed_for=step.which * 3_000.0))
            case "end" if self._tokens:
                key, token = self._tokens[step.which % len(self._tokens)]
                end = list(ClaimEnd)[step.amount % 3]
                return self._store.perform(Report(self._pool, claim=ClaimReport(key, token, end, 50_000.0)))
            case "confirm" if self._slots:
                slot, cost = self._slots.pop(step.which % len(self._slots))
                return self._take(cost=cost, holding=slot, longest_wait=PATIENT if step.amount else 0.0)
            case "correct" | "late" if self._slots:
                slot, cost = self._slots.pop(step.which % len(self._slots))
                # So late that it counts from now: the same order of uses, however fast a store is.
                late = 10**9 if step.what == "late" else 0
                correction = Correction(slot, cost, step.amount, late)
                return self._store.perform(Report(self._pool, corrections=(correction,)))
        return None

    def _take(self, *, cost: int = 1, **ask: Any) -> Any:
        admission: Admission = self._store.perform(Admit(self._pool, self._limit, cost=cost, **ask))
        if admission.slot is not None:
            self._slots.append((admission.slot, cost))
        if admission.token is not None and ask["claim"] is not None:
            self._tokens.append((ask["claim"].key, admission.token))
        taken, waits = admission.slot is not None, round(admission.wait / 500)
        return taken, waits, admission.closed, admission.used, admission.claim, admission.token is not None


NUMBERS = itertools.count()


class SteadyClock:
    """A clock that goes on by a millisecond whenever it is read."""

    def __init__(self) -> None:
        self._now = 1_000_000.0

    def __call__(self) -> float:
        self._now += 0.001
        return self._now


@pytest.mark.parametrize("kind", ["sqlite", "redis"], indirect=True)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(STEPS, max_size=30))
def test_every_store_answers_as_memory_does(store: Store, steps: list[Step]) -> None:
    clock, pool = SteadyClock(), PoolKey(f"pool {next(NUMBERS)}", b"o" * 16)
    callers = [Caller(each, pool) for each in (store, MemoryStore(clock, clock))]
    for step in steps:
        answers = [caller.do(step) for caller in callers]
        assert answers[0] == answers[1], step
