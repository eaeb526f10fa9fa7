"""Limits of calendar days where the wall clock is set: a closing of the pool goes by the steady clock meanwhile."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from insider_otel.api.operations import Limit
from insider_otel.state import redis_commands
from insider_otel.state.expiry import window_end
from insider_otel.state.memory import MemoryStore
from insider_otel.state.protocol import MICROSECONDS, Admission, Admit, Correction, PoolKey, Report, Request, Store
from insider_otel.state.redis_store import RedisStore
from insider_otel.state.sqlite_store import SQLiteStore

from .race import TIMEOUT

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


# A server's clock cannot be set; what the script sees of it can.
_SCRIPT = (
    'local redis = {call = function(word, ...) if word == "TIME" then return redis.call("LRANGE", "clock", 0, 1) end '
    "return redis.call(word, ...) end}\n" + redis_commands.SCRIPT
)


class ClockedRedisStore(RedisStore):
    """A store whose server goes by the clock on the wall."""

    def __init__(self, url: str, clocks: Clocks) -> None:
        super().__init__(url, timeout=TIMEOUT)
        self._clocks = clocks
        self._admin: Any = redis.Redis.from_url(url)
        self._admin.flushall()

    def perform(self, request: Request) -> Any:
        seconds, rest = divmod(round(self._clocks.wall * MICROSECONDS), MICROSECONDS)
        self._admin.delete("clock")
        self._admin.rpush("clock", seconds, rest)
        return super().perform(request)

    def close(self) -> None:
        super().close()
        self._admin.close()


def open_store(kind: str, clocks: Clocks, place: str) -> Store:
    match kind:
        case "memory":
            return MemoryStore(lambda: clocks.steady, lambda: clocks.wall)
        case "sqlite":
            return SQLiteStore(place, timeout=30, monotonic=lambda: clocks.steady, wall_clock=lambda: clocks.wall)
        case _:
            return ClockedRedisStore(place, clocks)


@pytest.fixture(params=["memory", "sqlite", "redis"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    kind: str = request.param
    if kind == "redis":
        use_script(monkeypatch)
    return kind


def use_script(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(redis_commands, "SCRIPT", _SCRIPT)
    monkeypatch.setattr(redis_commands, "_SCRIPT_NAME", hashlib.sha1(_SCRIPT.encode()).hexdigest())


def admit(store: Store, limit: Limit, **ask: float | int | None) -> Admission:
    admission: Admission = store.perform(Admit(POOL, limit, **ask))  # type: ignore[arg-type]
    return admission


def test_a_use_stays_on_its_day_where_the_clock_is_set_back_while_the_pool_is_closed(kind: str, place: str) -> None:
    limit, clocks = Limit(1, 86_400.0, calendar=True), Clocks(MIDNIGHT + 10 * HOUR)
    store = open_store(kind, clocks, place)
    assert admit(store, limit).wait == 0
    store.perform(Report(POOL, closed_for=15 * HOUR))
    clocks.wall -= HOUR
    assert admit(store, limit).slot is None
    clocks.pass_by(15 * HOUR + 3)
    assert clocks.wall == MIDNIGHT + 24 * HOUR + 3
    assert admit(store, limit).wait == 0
    store.close()


def test_what_is_left_of_a_day_is_to_be_had_at_once_where_the_clock_is_set_back(kind: str, place: str) -> None:
    limit, clocks = Limit(3, 86_400.0, calendar=True), Clocks(MIDNIGHT + 10 * HOUR)
    store = open_store(kind, clocks, place)
    assert admit(store, limit).wait == 0
    clocks.wall -= HOUR
    assert [admit(store, limit).wait for _ in range(3)] == [0.0, 0.0, 15 * HOUR + 2]
    store.close()


def test_a_clock_that_was_wrong_by_more_than_a_day_holds_nobody(kind: str, place: str) -> None:
    limit, clocks = Limit(1, 86_400.0, calendar=True), Clocks(MIDNIGHT + 400 * 24 * HOUR)
    store = open_store(kind, clocks, place)
    assert admit(store, limit).wait == 0
    clocks.wall = MIDNIGHT
    assert admit(store, limit).wait == 0
    assert admit(store, limit).wait == 24 * HOUR + 2
    store.close()


def test_no_slot_is_taken_that_is_further_away_than_is_waited_for_since_the_clock_was_set_back(
    kind: str, place: str
) -> None:
    limit, clocks = Limit(1, 86_400.0, calendar=True), Clocks(MIDNIGHT - 10)
    store = open_store(kind, clocks, place)
    assert admit(store, limit).wait == 0
    waiting = admit(store, limit, longest_wait=60)
    assert waiting.wait == 12
    clocks.wall -= HOUR
    for holding in (waiting.slot, None):
        admission = admit(store, limit, longest_wait=60, holding=holding)
        assert (admission.slot, admission.wait) == (None, HOUR + 12)
    # It is left for who waits that long.
    assert admit(store, limit, longest_wait=2 * HOUR).wait == HOUR + 12
    store.close()


@pytest.mark.parametrize("back", [2.0, HOUR])
def test_a_closing_is_over_when_it_is_over_however_far_the_clock_was_set_back(
    back: float, kind: str, place: str
) -> None:
    limit, clocks = Limit(2, 86_400.0, calendar=True), Clocks(MIDNIGHT + 10 * HOUR)
    store = open_store(kind, clocks, place)
    assert admit(store, limit).wait == 0
    clocks.wall -= back
    store.perform(Report(POOL, closed_for=60))
    too_long = admit(store, limit, longest_wait=30)
    assert (too_long.slot, too_long.closed) == (None, True)
    assert too_long.wait == pytest.approx(60, abs=0.001)
    waiting = admit(store, limit, longest_wait=90)
    assert waiting.closed
    assert waiting.wait == pytest.approx(60, abs=0.001)
    clocks.pass_by(60)
    assert admit(store, limit, holding=waiting.slot).wait == 0
    assert admit(store, limit).slot is None
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


@pytest.mark.parametrize("kind", ["redis"])
@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    count=st.integers(1, 3),
    steps=st.lists(
        st.one_of(
            st.tuples(st.just("pass"), st.sampled_from([1.0, 600.0, HOUR, 5 * HOUR])),
            st.tuples(st.just("set back"), st.sampled_from([60.0, HOUR])),
            st.tuples(st.just("close"), st.sampled_from([90.5, HOUR + 7.7, 3 * HOUR + 11.9])),
            st.tuples(st.just("ask"), st.sampled_from([0.0, 100.3, 5000.3, 1e9])),
            st.tuples(st.just("wake"), st.sampled_from([0.0, 100.3, 5000.3, 1e9])),
        ),
        min_size=5,
        max_size=20,
    ),
)
def test_the_script_answers_as_the_store_in_memory(
    kind: str, place: str, monkeypatch: pytest.MonkeyPatch, count: int, steps: list[tuple[str, float]]
) -> None:
    use_script(monkeypatch)
    limit, clocks = Limit(count, 86_400.0, calendar=True), Clocks(MIDNIGHT + 20 * HOUR)
    stores = [open_store("memory", clocks, ""), open_store(kind, clocks, place)]
    waiting: list[tuple[int | None, ...]] = []
    for number, (what, amount) in enumerate(steps):
        # No two closings end at once: the server's moments are a few microseconds later.
        closed_for = amount + number if what == "close" else None
        # So that the server's time is as steady: it sees the clock only when it is asked.
        for store in stores:
            store.perform(Report(POOL, (Correction(1, 1, 0),), closed_for))
        match what:
            case "pass":
                clocks.pass_by(amount)
            case "set back":
                clocks.wall -= amount
            case "ask" | "wake":
                held = waiting.pop(0) if what == "wake" and waiting else (None, None)
                answers = [
                    admit(store, limit, longest_wait=amount, holding=slot)
                    for store, slot in zip(stores, held, strict=True)
                ]
                ours, the_scripts = ((each.slot is None, each.closed, each.used) for each in answers)
                assert ours == the_scripts
                assert answers[0].wait == pytest.approx(answers[1].wait, abs=0.01)
                if answers[0].slot is not None and answers[0].wait:
                    waiting.append(tuple(each.slot for each in answers))
            case _:
                pass
    for store in stores:
        store.close()
