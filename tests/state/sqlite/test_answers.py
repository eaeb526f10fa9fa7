"""What the sqlite store answers: as memory does, by its own clock, and in no more room than it needs."""

from __future__ import annotations

import contextlib
import sqlite3
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insider_otel.api.operations import Limit
from insider_otel.state import sqlite_rows
from insider_otel.state.memory import MemoryStore
from insider_otel.state.protocol import (
    Admission,
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Correction,
    ListPools,
    PastUse,
    PoolKey,
    Report,
    Request,
)
from insider_otel.state.sqlite_store import SQLiteStore

from .help import PATIENT, PLENTY, POOL, Clock, admit, rows, use_of

_LIMITS = st.sampled_from([None, Limit(3, 1.0), Limit(5, 0.5), Limit(4, 86_400.0, calendar=True)])
_KEYS = st.sampled_from([b"a" * 16, b"b" * 16, b"c" * 16])
_SECONDS = st.sampled_from([0.0, 0.001, 0.3, 1.0, 90_000.0])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_it_answers_as_the_memory_store_does(data: st.DataObject) -> None:
    """Whatever is asked, in whatever order, at whatever moment."""
    clock = Clock(1_800_000_000.0)
    memory = MemoryStore(clock, clock)
    slots: list[int] = [0]
    tokens: list[int | None] = [None]

    def corrections() -> tuple[Correction, ...]:
        correction = st.builds(
            Correction,
            st.sampled_from(slots),
            st.integers(1, 3),
            st.integers(0, 4),
            st.sampled_from([0, 1000, 400_000]),
        )
        return tuple(data.draw(st.lists(correction, max_size=2)))

    with tempfile.TemporaryDirectory() as directory, pytest.MonkeyPatch.context() as patched:
        # So few moments are otherwise all among the last.
        patched.setattr(sqlite_rows, "_LAST", 2)
        store = SQLiteStore(Path(directory) / "state.db", timeout=PATIENT, monotonic=clock, wall_clock=clock)
        for _ in range(data.draw(st.integers(1, 30))):
            clock.now += data.draw(_SECONDS) + 0.0001
            request: Request
            match data.draw(st.sampled_from(["admit", "admit", "admit", "report"])):
                case "admit":
                    claim = st.builds(ClaimAsk, _KEYS, _SECONDS, st.sampled_from(tokens))
                    request = Admit(
                        POOL,
                        data.draw(_LIMITS),
                        cost=data.draw(st.integers(1, 4)),
                        longest_wait=data.draw(_SECONDS),
                        holding=data.draw(st.none() | st.sampled_from(slots)),
                        corrections=corrections(),
                        past=tuple(
                            data.draw(
                                st.lists(st.builds(PastUse, st.integers(0, 500_000), st.integers(1, 2)), max_size=2)
                            )
                        ),
                        claim=data.draw(st.none() | claim),
                    )
                case _:
                    claim_report = st.builds(
                        ClaimReport, _KEYS, st.sampled_from(tokens), st.sampled_from(ClaimEnd), _SECONDS
                    )
                    request = Report(
                        POOL,
                        corrections=corrections(),
                        closed_for=data.draw(st.none() | _SECONDS),
                        learned=data.draw(_LIMITS),
                        claim=data.draw(st.none() | claim_report),
                    )
            expected, answered = memory.perform(request), store.perform(request)
            if isinstance(expected, Admission):
                # What only a shared store can say.
                assert answered._replace(born=0) == expected
                if expected.slot is not None:
                    slots.append(expected.slot)
                tokens.append(expected.token)
        assert store.perform(ListPools()) == memory.perform(ListPools())
        store.close()


def test_it_reads_hardly_more_of_many_uses_than_of_few(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also to find a slot that was used late: it is one of the last."""
    said: list[str] = []

    class Traced(sqlite3.Connection):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self.set_trace_callback(said.append)

    monkeypatch.setattr(sqlite3, "Connection", Traced)
    store, limit = SQLiteStore(path, timeout=PATIENT), Limit(25_000, 60.0)
    readings: list[int] = []
    for uses in (10, 10_000):
        store.perform(Admit(POOL, limit, cost=uses))
        slot = store.perform(Admit(POOL, limit)).slot
        said.clear()
        store.perform(Admit(POOL, limit, corrections=(Correction(slot, 1, 1, 100),)))
        readings.append(sum("FROM moments" in statement for statement in said))
    store.close()
    assert 0 < readings[0] <= readings[1] <= readings[0] + 5


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_wall_clock_that_is_set_changes_nothing(path: Path, jump: float) -> None:
    monotonic, wall = Clock(1000.0), Clock(1_800_000_000.0)
    limit = Limit(2, 10.0)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic, wall_clock=wall)
    store.perform(Report(PoolKey("closed", b""), closed_for=60.0))
    assert [admit(store, limit).wait for _ in range(2)] == [0.0, 0.0]
    monotonic.now += 4
    wall.now += jump
    assert admit(store, limit).wait == 6.0
    assert use_of(store, PoolKey("closed", b"")).closed_for == 56.0
    store.close()


def test_time_goes_on_after_a_reboot(path: Path) -> None:
    """The machine is away for 30 seconds, and its monotonic clock begins anew."""
    limit = Limit(1, 60.0)
    before = SQLiteStore(path, timeout=PATIENT, monotonic=Clock(90_000.0), wall_clock=Clock(1_800_000_000.0))
    assert admit(before, limit).wait == 0.0
    before.close()
    monotonic = Clock(5.0)
    after = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic, wall_clock=Clock(1_800_000_030.0))
    assert admit(after, limit).wait == 30.0
    monotonic.now += 30
    assert admit(after, limit).wait == 0.0
    after.close()


def test_time_never_goes_back_after_a_reboot_with_a_clock_that_is_not_set_yet(path: Path) -> None:
    limit = Limit(1, 60.0)
    before = SQLiteStore(path, timeout=PATIENT, monotonic=Clock(90_000.0), wall_clock=Clock(1_800_000_000.0))
    admit(before, limit)
    before.close()
    after = SQLiteStore(path, timeout=PATIENT, monotonic=Clock(5.0), wall_clock=Clock(0.0))
    assert use_of(after).used == 1
    assert admit(after, limit).wait == 60.0
    after.close()


def test_calendar_days_go_by_the_wall_clock(path: Path) -> None:
    wall = Clock(1_800_000_000.0 // 86_400 * 86_400 + 86_400 - 60)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=Clock(1000.0), wall_clock=wall)
    day = Limit(1, 86_400.0, calendar=True)
    assert admit(store, day).wait == 0.0
    assert admit(store, day).wait == 62.0
    wall.now += 62
    assert admit(store, day).wait == 0.0
    store.close()


def test_moments_that_no_longer_count_are_deleted(path: Path) -> None:
    monotonic = Clock(1000.0)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic)
    limit = Limit(50, 1.0)
    for _ in range(40):
        for _ in range(50):
            assert admit(store, limit).slot is not None
        monotonic.now += 1
        assert rows(path, "moments") <= 2 * limit.count
    for _ in range(3):
        monotonic.now += 3600
        admit(store, limit)
    assert rows(path, "moments") == 1
    store.close()


def test_pools_that_nobody_asks_for_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "MOST_POOLS", 3)
    monotonic = Clock(1000.0)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic)

    def ask(name: str) -> None:
        store.perform(Admit(PoolKey(name, b""), PLENTY, cost=10, worker=b"w"))

    def names() -> set[str]:
        return {use.pool.pool for use in store.perform(ListPools())}

    for name in ("a", "b", "c", "a"):
        ask(name)
        monotonic.now += 10
    ask("d")
    assert names() == {"a", "c", "d"}, "there is room for three, and b was asked for longest ago"
    monotonic.now += 3 * 86_400
    ask("e")
    ask("e")
    ask("f")
    assert names() == {"e", "f"}
    assert (rows(path, "moments"), rows(path, "workers")) == (30, 2)
    store.close()


def test_a_pool_that_is_closed_for_long_stays(path: Path) -> None:
    monotonic = Clock(1000.0)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic)
    store.perform(Report(POOL, closed_for=7 * 86_400.0))
    monotonic.now += 6 * 86_400
    store.perform(Admit(PoolKey("another", b""), PLENTY))
    assert use_of(store).closed_for == 86_400.0
    store.close()


def test_claims_are_bounded_and_the_oldest_goes(path: Path) -> None:
    store = SQLiteStore(path, timeout=PATIENT, most_claims=10)

    def ask(number: int) -> ClaimState | None:
        return admit(store, claim=ClaimAsk(bytes([number]) * 16, lease=60.0)).claim

    for number in range(25):
        assert ask(number) is ClaimState.CLAIMED
    assert rows(path, "claims") == 10
    assert [ask(number) for number in range(15, 25)] == [ClaimState.IN_FLIGHT] * 10
    assert ask(14) is ClaimState.CLAIMED
    store.close()


def test_claims_that_have_expired_go_in_passing(path: Path) -> None:
    monotonic = Clock(1000.0)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic)
    for number in range(200):
        key = number.to_bytes(16, "big")
        admission = admit(store, claim=ClaimAsk(key, lease=60.0))
        store.perform(Report(POOL, claim=ClaimReport(key, admission.token, ClaimEnd.DONE, lasts=100.0)))
        monotonic.now += 10
    assert rows(path, "claims") <= 12
    store.close()


def test_a_limit_that_a_newer_version_knows_more_of_can_be_read(path: Path, store: SQLiteStore) -> None:
    store.perform(Report(POOL, learned=Limit(30, 60.0)))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("""UPDATE pools SET learned_limit = '{"count": 31, "window": 60.0, "colour": "red"}'""")
        other.commit()
    assert admit(store).learned == Limit(31, 60.0)
