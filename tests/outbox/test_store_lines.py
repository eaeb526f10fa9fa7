"""A line in an outbox: one after another, also where somebody has a call sent again that was given up."""

from __future__ import annotations

from dataclasses import replace

from insider_otel.outbox.protocol import JobStore

from .jobs import LEASE, NOW, ids, put, take, unlimited


def test_one_that_is_sent_again_waits_for_a_later_one_that_is_being_sent(store: JobStore) -> None:
    first, second = (put(store, line="jane") for _ in range(2))
    (lease,) = take(store)
    store.put_back(lease, replace(first, stopped="failed", stopped_at=NOW))
    (sent,) = take(store)
    assert sent.job.id == second.id
    assert store.begin(sent, NOW)
    assert store.retry(first.id, now=NOW, expires=NOW + 86_400)
    taken = store.take(10, NOW, lease=LEASE, pace=unlimited)
    assert taken.leases == []
    assert taken.wake_at is not None
    assert taken.wake_at <= NOW + LEASE, "somebody looks when the worker of the second may be no more"
    store.delivered(sent)
    assert ids(take(store)) == [first.id]


def test_it_goes_before_a_later_one_whose_worker_died(store: JobStore) -> None:
    first, second = (put(store, line="jane") for _ in range(2))
    (lease,) = take(store)
    store.put_back(lease, replace(first, stopped="failed", stopped_at=NOW))
    assert ids(take(store)) == [second.id]
    assert store.retry(first.id, now=NOW, expires=NOW + 86_400)
    (again,) = take(store, now=NOW + LEASE)
    assert again.job.id == first.id
    store.delivered(again)
    assert ids(take(store, now=NOW + LEASE)) == [second.id]
