"""Limits of calendar days where the wall clock is set: a closing of the pool goes by the steady clock meanwhile."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insider_otel.api.operations import Limit
from insider_otel.state.expiry import window_end
from insider_otel.state.memory import MemoryStore
from insider_otel.state.protocol import MICROSECONDS, Admission, Admit, Correction, PoolKey, Report, Store
from insider_otel.state.sqlite_store import SQLiteStore

POOL = PoolKey("raw.export", b"o" * 16)
HOUR = 3600.0
MIDNIGHT = 20_000 * 86_400.0


class Clocks:
    """A steady clock, and one on the wall that can be set."""

    def __init__(self, wall: float) -> None:
        self.steady = 1_000.0
        self.wall = wall

    def pass_by(self, seconds: float) -> None:
        self.steady += seconds
        self.wall += seconds


def open_store(kind: str, clocks: Clocks, path: Path) -> Store:
    if kind == "memory":
        return MemoryStore(lambda: clocks.steady, lambda: clocks.wall)
    return SQLiteStore(path, timeout=30, monotonic=lambda: clocks.steady, wall_clock=lambda: clocks.wall)


@pytest.fixture(params=["memory", "sqlite"])
def kind(request: pytest.FixtureRequest) -> str:
    kind: str = request.param
    return kind


def admit(store: Store, limit: Limit, **ask: float | int | None) -> Admission:
    admission: Admission = store.perform(Admit(POOL, limit, **ask))  # type: ignore[arg-type]
    return admission


def test_a_use_stays_on_its_day_where_the_clock_is_set_back_while_the_pool_is_closed(kind: str, tmp_path: Path) -> None:
    limit, clocks = Limit(1, 86_400.0, calendar=True), Clocks(MIDNIGHT + 10 * HOUR)
    store = open_store(kind, clocks, tmp_path / "state.db")
    assert admit(store, limit).wait == 0
    store.perform(Report(POOL, closed_for=15 * HOUR))
    clocks.wall -= HOUR
    assert admit(store, limit).slot is None
    clocks.pass_by(15 * HOUR + 3)
    assert clocks.wall == MIDNIGHT + 24 * HOUR + 3
    assert admit(store, limit).wait == 0
    store.close()


def test_what_is_left_of_a_day_is_to_be_had_at_once_where_the_clock_is_set_back(kind: str, tmp_path: Path) -> None:
    limit, clocks = Limit(3, 86_400.0, calendar=True), Clocks(MIDNIGHT + 10 * HOUR)
    store = open_store(kind, clocks, tmp_path / "state.db")
    assert admit(store, limit).wait == 0
    clocks.wall -= HOUR
    assert [admit(store, limit).wait for _ in range(3)] == [0.0, 0.0, 15 * HOUR + 2]
    store.close()


def test_a_clock_that_was_wrong_by_more_than_a_day_holds_nobody(kind: str, tmp_path: Path) -> None:
    limit, clocks = Limit(1, 86_400.0, calendar=True), Clocks(MIDNIGHT + 400 * 24 * HOUR)
    store = open_store(kind, clocks, tmp_path / "state.db")
    assert admit(store, limit).wait == 0
    clocks.wall = MIDNIGHT
    assert admit(store, limit).wait == 0
    assert admit(store, limit).wait == 24 * HOUR + 2
    store.close()


STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("pass"), st.sampled_from([0.0, 1.0, 600.0, HOUR, 5 * HOUR, 13 * HOUR])),
        st.tuples(st.just("set"), st.sampled_from([-HOUR, -HOUR, -60.0, 60.0, HOUR])),
        st.tuples(st.just("close"), st.sampled_from([60.0, HOUR, 3 * HOUR, 20 * HOUR])),
        st.tuples(st.just("ask"), st.sampled_from([0.0, 1e9])),
        st.tuples(st.just("wake"), st.just(0.0)),
    ),
    max_size=40,
)


@settings(max_examples=500, deadline=None)
@given(count=st.integers(1, 3), steps=STEPS)
def test_no_slot_is_lost_or_granted_twice_however_the_clock_is_set(count: int, steps: list[tuple[str, float]]) -> None:
    limit, clocks = Limit(count, 86_400.0, calendar=True), Clocks(MIDNIGHT + 20 * HOUR)
    store = MemoryStore(lambda: clocks.steady, lambda: clocks.wall)
    waiting: list[int] = []
    uses: list[int] = []
    shown = [clocks.wall]

    def take(admission: Admission) -> None:
        if admission.slot is not None:
            (waiting if admission.wait else uses).append(admission.slot)

    for what, amount in steps:
        match what:
            case "pass":
                clocks.pass_by(amount)
            case "set":
                shown.append(clocks.wall)
                clocks.wall += amount
            case "close":
                store.perform(Report(POOL, closed_for=amount))
            case "ask":
                take(admit(store, limit, longest_wait=amount))
            case _ if waiting:
                take(admit(store, limit, longest_wait=1e9, holding=waiting.pop(0)))
    for use in uses:
        assert sum(other <= use < window_end(other, limit) for other in uses) <= count
    # When the pool is open, no clock stands still, and nobody waits any more, what was not used is to be had.
    store.perform(Report(POOL, corrections=tuple(Correction(slot, 1, 0) for slot in waiting)))
    clocks.pass_by(22 * HOUR)
    now = round(max(clocks.wall, *shown) * MICROSECONDS)
    left = count - sum(use <= now < window_end(use, limit) for use in uses)
    assert [admit(store, limit).slot is not None for _ in range(count)] == [place < left for place in range(count)]
