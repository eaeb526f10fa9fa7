"""Leases that a clock wrote that was ahead then: nobody's if nobody renews them, and their worker's if it does."""

from __future__ import annotations

import pytest

from insider_otel.outbox.protocol import JobStore
from insider_otel.outbox.rules import LONGEST_LEASE

from .jobs import LEASE, NOW, ids, put, take, unlimited

DAY = 86_400.0


class Monotonic:
    """The clock that nobody sets."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 5.0
        monkeypatch.setattr("insider_otel.outbox.rules.monotonic", self)

    def __call__(self) -> float:
        return self.now


def test_a_job_is_sent_whose_worker_died_while_the_clock_was_ahead(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monotonic = Monotonic(monkeypatch)
    one, other = put(store), put(store)
    assert len(take(store, now=NOW + DAY)) == 2
    looked = store.take(10, NOW, lease=LEASE, pace=unlimited)
    assert (looked.leases, looked.wake_at) == ([], NOW + LONGEST_LEASE), "somebody looks again then"
    monotonic.now += LONGEST_LEASE
    freed = store.take(10, NOW + LONGEST_LEASE, lease=LEASE, pace=unlimited)
    assert freed.wake_at == NOW + LONGEST_LEASE, "at once"
    assert ids(take(store, now=NOW + LONGEST_LEASE)) == [one.id, other.id]


@pytest.mark.parametrize("was_sent", [False, True])
def test_it_can_be_discarded_and_may_have_arrived_if_it_was_sent(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, was_sent: bool
) -> None:
    monotonic = Monotonic(monkeypatch)
    put(store)
    (lease,) = take(store, now=NOW + DAY)
    if was_sent:
        assert store.begin(lease, NOW + DAY)
    for _ in range(2):
        assert not store.discard(lease.job.id)
        take(store)
        monotonic.now += LONGEST_LEASE
    (again,) = take(store)
    assert again.job.ambiguous_since == (NOW + DAY if was_sent else None)
    store.release([again])
    assert store.discard(lease.job.id)


@pytest.mark.parametrize("ahead", [0.0, DAY], ids=["right", "ahead"])
def test_a_worker_that_renews_its_lease_keeps_it_whatever_its_clock_says(
    store: JobStore, monkeypatch: pytest.MonkeyPatch, ahead: float
) -> None:
    monotonic = Monotonic(monkeypatch)
    put(store)
    (lease,) = take(store, now=NOW + ahead)
    for _ in range(9):
        now = NOW + monotonic.now
        store.renew([lease], now + ahead + LONGEST_LEASE)
        assert take(store, now=now) == []
        monotonic.now += LONGEST_LEASE / 3
        assert take(store, now=NOW + monotonic.now - 1) == []
    assert store.begin(lease, NOW + monotonic.now + ahead)


def test_a_clock_that_is_behind_for_a_moment_takes_no_lease_from_its_worker(
    store: JobStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monotonic = Monotonic(monkeypatch)
    put(store)
    (lease,) = take(store)
    assert take(store, now=NOW - DAY) == []
    monotonic.now += LEASE / 3
    assert take(store, now=NOW + LEASE / 3) == []
    assert store.begin(lease, NOW + LEASE / 3)
