"""What every store promises of dead letters: they have an end, and it comes neither too early nor for what waits."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import JobStore

from .jobs import NOW, ids, put, take

DAY = 86_400.0

Open = Callable[[], JobStore]


def give_up(store: JobStore, stopped_at: float | None = NOW, **fields: Any) -> Job:
    """A dead letter."""
    one = put(store, **{"due": NOW - 10, **fields})
    (lease,) = take(store, 1)
    dead = replace(one, stopped="failed", stopped_at=stopped_at)
    store.put_back(lease, dead)
    return dead


def purge(store: JobStore, now: float, most: int = 100) -> Mapping[str, int]:
    return store.purge(now, retention=DAY, most=most)


def test_a_dead_letter_is_there_a_second_before_its_time_is_over_and_gone_a_second_after(store: JobStore) -> None:
    dead = give_up(store, operation="mail.send")
    assert purge(store, NOW + DAY - 1) == {}
    assert store.jobs() == [dead]
    assert purge(store, NOW + DAY + 1) == {"mail.send": 1}
    assert store.jobs() == []
    assert purge(store, NOW + DAY + 1) == {}


def test_a_job_that_waits_is_not_deleted_however_old_it_is(store: JobStore) -> None:
    old = {"created": NOW - 99 * DAY, "due": NOW - 99 * DAY, "expires": NOW - 98 * DAY}
    sending, waiting = put(store, **old), put(store, **old)
    assert ids(take(store, 1)) == [sending.id]
    assert purge(store, NOW + 99 * DAY) == {}
    assert store.jobs() == [sending, waiting]


def test_a_dead_letter_that_is_retried_and_given_up_again_is_kept_anew(store: JobStore) -> None:
    first = give_up(store)
    assert store.retry(first.id, now=NOW + DAY, expires=NOW + 9 * DAY)
    waiting = store.job(first.id)
    assert waiting is not None
    assert waiting.stopped_at is None
    assert purge(store, NOW + 2 * DAY) == {}, "it is to be sent"
    (lease,) = take(store, now=NOW + DAY)
    store.put_back(lease, replace(lease.job, stopped="failed", stopped_at=NOW + 2 * DAY))
    assert purge(store, NOW + 3 * DAY - 1) == {}
    assert purge(store, NOW + 3 * DAY) == {"user.upsert": 1}


def test_a_dead_letter_of_which_nobody_knows_its_age_is_kept_from_the_first_look_on(store: JobStore) -> None:
    dead = give_up(store, stopped_at=None)
    assert purge(store, NOW + 50 * DAY) == {}
    assert store.jobs() == [replace(dead, stopped_at=NOW + 50 * DAY)]
    assert purge(store, NOW + 51 * DAY) == {"user.upsert": 1}


def test_the_oldest_dead_letters_go_first_and_no_more_than_asked_for(store: JobStore) -> None:
    ages = (2, 4, 1, 3)
    young, _, youngest, _ = (give_up(store, stopped_at=NOW - days * DAY) for days in ages)
    assert purge(store, NOW + DAY, most=2) == {"user.upsert": 2}
    assert store.jobs() == [young, youngest]


def test_two_that_delete_at_once_count_each_dead_letter_once(store: JobStore, open_store: Open) -> None:
    for number in range(40):
        give_up(store, operation=("mail.send", "sms.send")[number % 2])
    begin = threading.Barrier(2)

    def work(own: JobStore) -> Counter[str]:
        begin.wait(30)
        counted: Counter[str] = Counter()
        while purged := purge(own, NOW + DAY, most=3):
            counted.update(purged)
        own.close()
        return counted

    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(work, (open_store(), open_store()))
    left = purge(store, NOW + DAY)
    assert first + second + Counter(left) == {"mail.send": 20, "sms.send": 20}
    assert store.jobs() == []
