"""What the memory store keeps, whoever asked last and however often it is looked at."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel.api.operations import Limit
from insider_otel.state.expiry import GUARD
from insider_otel.state.memory import MemoryStore
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    Correction,
    ListPools,
    PoolKey,
    PoolUse,
    Report,
)

POOL = PoolKey("user.upsert", b"o" * 16)
LONG, SHORT = Limit(1, 100.0), Limit(2, 1.0)
DAILY = Limit(2, 86_400.0, calendar=True)
CONTENT = b"c" * 16
PATIENT = 1e8
NOON = 1_800_014_400.0
MIDNIGHT = NOON + 43_200


class Clock:
    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> MemoryStore:
    return MemoryStore(clock, clock)


def admit(store: MemoryStore, limit: Limit | None, pool: PoolKey = POOL) -> Admission:
    admission = store.perform(Admit(pool, limit))
    assert isinstance(admission, Admission)
    return admission


def listed(store: MemoryStore) -> dict[PoolKey, PoolUse]:
    return {use.pool: use for use in store.perform(ListPools())}


def come_new_pools(store: MemoryStore) -> None:
    """Each takes the place of two that are idle."""
    for number in range(5):
        store.perform(Report(PoolKey("mail.send", number.to_bytes(16)), closed_for=1_000_000.0))


@pytest.mark.parametrize("last", [None, SHORT], ids=["no limit", "a shorter one"])
def test_a_pool_that_holds_uses_is_kept_whatever_was_asked_for_last(
    store: MemoryStore, clock: Clock, last: Limit | None
) -> None:
    admit(store, LONG)
    clock.now += 0.5
    admit(store, last)
    clock.now += 99.4
    come_new_pools(store)
    assert admit(store, LONG).slot is None


@pytest.mark.parametrize(("limit", "ends"), [(LONG, NOON + 100), (DAILY, MIDNIGHT + GUARD / MICROSECONDS)])
@pytest.mark.parametrize("asks_without", [False, True], ids=["asked with it last", "asked without it last"])
def test_a_pool_goes_when_its_uses_no_longer_count(
    store: MemoryStore, clock: Clock, limit: Limit, ends: float, asks_without: bool
) -> None:
    admit(store, limit)
    if asks_without:
        admit(store, None)
    clock.now = ends - 0.001
    come_new_pools(store)
    assert POOL in listed(store)
    clock.now = ends
    store.perform(Report(PoolKey("whatsapp.send", b"o" * 16)))
    assert POOL not in listed(store)


def test_a_limit_of_another_kind_leaves_nothing_to_wait_for(store: MemoryStore, clock: Clock) -> None:
    """Also not its longer window."""
    admit(store, DAILY)
    admit(store, SHORT)
    clock.now += 1
    come_new_pools(store)
    assert POOL not in listed(store)


def test_looking_forgets_nothing(store: MemoryStore, clock: Clock) -> None:
    """Though the limit asked with last counts the uses no longer, another still does."""
    admit(store, LONG)
    admit(store, SHORT)
    clock.now += 10
    assert listed(store)[POOL].used == 0
    assert admit(store, LONG).slot is None


@given(st.data(), st.sampled_from([Limit(4, 100.0), Limit(4, 86_400.0, calendar=True)]))
def test_what_is_listed_is_what_is_used(data: st.DataObject, limit: Limit) -> None:
    """As a call learns it that takes nothing, because its content is done."""
    clock = Clock()
    store = MemoryStore(clock, clock)
    store.perform(Report(POOL, claim=ClaimReport(CONTENT, None, ClaimEnd.DONE, 1e9)))
    slots: list[int] = []
    for _ in range(data.draw(st.integers(1, 12))):
        clock.now += data.draw(st.sampled_from([0.0, 1.0, 60.0, 100.0, 43_202.0]))
        if len(slots) > 0 and data.draw(st.booleans()):
            slot = slots.pop(data.draw(st.integers(0, len(slots) - 1)))
            store.perform(Report(POOL, corrections=(Correction(slot, 1, 0),)))
        else:
            admission = store.perform(Admit(POOL, limit, longest_wait=PATIENT))
            slots.append(admission.slot)
        clock.now += data.draw(st.sampled_from([0.0, 40.0, 99.0]))
        use = listed(store)[POOL].used
        assert use == store.perform(Admit(POOL, limit, claim=ClaimAsk(CONTENT, 60.0))).used


@given(st.data(), st.sampled_from([Limit(4, 100.0), Limit(4, 86_400.0, calendar=True)]))
def test_a_slot_is_corrected_as_by_a_report(data: st.DataObject, limit: Limit) -> None:
    """On the clock that the limit goes by: what is told of a slot to come is none of this clock's."""
    monotonic, wall = Clock(), Clock()
    monotonic.now = 1000.0
    one, other = MemoryStore(monotonic, wall), MemoryStore(monotonic, wall)
    for _ in range(data.draw(st.integers(1, 12))):
        passed = data.draw(st.sampled_from([0.0, 1.0, 60.0, 100.0, 43_202.0]))
        monotonic.now += passed
        wall.now += passed
        admission = one.perform(Admit(POOL, limit, longest_wait=PATIENT, cost=2))
        assert other.perform(Admit(POOL, limit, longest_wait=PATIENT, cost=2)) == admission
        late = round(data.draw(st.sampled_from([0.0, 0.5, 70.0])) * MICROSECONDS)
        correction = Correction(admission.slot, 2, data.draw(st.integers(0, 3)), late)
        monotonic.now += 1
        wall.now += 1
        one.correct(POOL, correction)
        other.perform(Report(POOL, corrections=(correction,)))
        assert one.uses(POOL) == other.uses(POOL)
    assert listed(one) == listed(other)
