"""What every store promises that workers take jobs from."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import replace

import anyio
import pytest

from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import JobStore, OutboxError, Stats

from .jobs import LEASE, NOW, ids, job, put, take, unlimited

Open = Callable[[], JobStore]


# ----------------------------------------------------------------------------------------------------- put and take


def test_a_job_comes_out_as_it_was_put(store: JobStore) -> None:
    one = job(
        content=bytes(range(256)),
        account="shop-tr",
        line="a-line",
        context={"traceparent": "00-…", "tracestate": "vendor=1"},
        attempts=3,
        deliveries=2,
        ambiguous_since=NOW - 12.5,
        verdict={"category": "server", "message": "Ücret"},
        stopped_at=NOW - 3.25,
    )
    store.put(one)
    assert store.job(one.id) == one
    assert [lease.job for lease in take(store)] == [one]


def test_what_was_put_is_there_for_whoever_opens_the_outbox_next(store: JobStore, open_store: Open) -> None:
    one = put(store)
    store.close()
    assert open_store().jobs() == [one]
    assert store.jobs() == [one], "who closed it may use it again"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_event_loop_puts_jobs_too(store: JobStore, backend: str) -> None:
    one = job()
    anyio.run(store.put_async, one, backend=backend)
    assert store.jobs() == [one]


def test_two_jobs_cannot_have_one_name(store: JobStore) -> None:
    one = put(store)
    with pytest.raises(OutboxError):
        store.put(replace(one, content=b"p[]"))
    assert store.jobs() == [one]


def test_jobs_are_taken_as_they_fall_due_and_among_equals_as_they_came(store: JobStore) -> None:
    late, first, second, early = (put(store, due=NOW - seconds) for seconds in (1.0, 2.0, 2.0, 3.0))
    assert ids(take(store)) == [early.id, first.id, second.id, late.id]


def test_no_more_are_taken_than_asked_for(store: JobStore) -> None:
    first, second, third = (put(store) for _ in range(3))
    assert ids(take(store, 2)) == [first.id, second.id]
    assert ids(take(store, 2)) == [third.id]
    assert take(store, 2) == []


def test_a_job_is_not_taken_before_it_is_due(store: JobStore) -> None:
    one = put(store, due=NOW + 60)
    taken = store.take(10, NOW + 59.9, lease=LEASE, pace=unlimited)
    assert (taken.leases, taken.wake_at) == ([], NOW + 60)
    assert ids(take(store, now=NOW + 60)) == [one.id]


def test_an_empty_outbox_wakes_nobody(store: JobStore) -> None:
    assert store.take(10, NOW, lease=LEASE, pace=unlimited).wake_at is None


def test_pools_take_turns(store: JobStore) -> None:
    """A pool full of jobs keeps no other waiting."""
    for pool in ("user.upsert", "mail.send", "sms.send"):
        for _ in range(10):
            put(store, pool=pool)
    pools = [lease.job.pool for moment in range(6) for lease in take(store, 2, NOW + moment)]
    assert {pool: pools.count(pool) for pool in pools} == {"user.upsert": 4, "mail.send": 4, "sms.send": 4}


# ------------------------------------------------------------------------------------------------------------ leases


def test_a_job_is_nobody_elses_while_its_lease_lives(store: JobStore, open_store: Open) -> None:
    one = put(store)
    (lease,) = take(store)
    other = open_store()
    taken = other.take(10, NOW + LEASE - 0.1, lease=LEASE, pace=unlimited)
    assert (taken.leases, taken.wake_at) == ([], NOW + LEASE), "somebody looks again when the lease ends"
    assert ids(take(other, now=NOW + LEASE)) == [one.id]
    assert not store.begin(lease, NOW + LEASE), "the worker that was too slow must not send it"


def test_a_renewed_lease_lives_longer(store: JobStore) -> None:
    put(store)
    leases = take(store)
    store.renew(leases, NOW + 100)
    assert take(store, now=NOW + 99) == []
    assert store.begin(leases[0], NOW + 99)
    assert len(take(store, now=NOW + 100)) == 1


def test_who_lost_a_lease_cannot_renew_it(store: JobStore) -> None:
    put(store)
    lost = take(store)
    (new,) = take(store, now=NOW + LEASE)
    store.renew(lost, NOW + 1000)
    assert len(take(store, now=NOW + 2 * LEASE)) == 1, "the lease of another was not made longer"
    assert not store.begin(new, NOW + 2 * LEASE)


def test_a_job_that_is_given_back_is_there_for_others_at_once(store: JobStore) -> None:
    one = put(store)
    leases = take(store)
    store.release(leases)
    assert not store.begin(leases[0], NOW), "it is not this worker's any more"
    (again,) = take(store)
    assert again.job == one, "it was not sent, so nothing is noted"


def test_who_lost_a_lease_gives_back_nothing(store: JobStore) -> None:
    put(store)
    lost = take(store)
    (new,) = take(store, now=NOW + LEASE)
    store.release(lost)
    assert store.begin(new, NOW + LEASE)


def test_a_lease_without_a_begin_is_no_attempt(store: JobStore) -> None:
    """The worker died before it sent anything: the next one need not fear that Insider has it."""
    one = put(store)
    take(store)
    (again,) = take(store, now=NOW + LEASE)
    assert again.job == one


# --------------------------------------------------------------------------------------------- interrupted deliveries


def test_a_send_that_nothing_was_heard_of_is_an_attempt_that_insider_may_have(store: JobStore) -> None:
    one = put(store, attempts=2)
    (lease,) = take(store)
    assert store.begin(lease, NOW + 5)
    (again,) = take(store, now=NOW + LEASE)
    assert (again.job.attempts, again.job.ambiguous_since) == (3, NOW + 5)
    assert store.job(one.id) == again.job, "and it is written down"


def test_the_first_doubtful_send_is_the_one_that_counts(store: JobStore) -> None:
    put(store, ambiguous_since=NOW - 100)
    (lease,) = take(store)
    assert store.begin(lease, NOW)
    (again,) = take(store, now=NOW + LEASE)
    assert again.job.ambiguous_since == NOW - 100
    (third,) = take(store, now=NOW + 2 * LEASE)
    assert (third.job.attempts, third.job.ambiguous_since) == (1, NOW - 100), "the second worker never began"


def test_a_delivery_that_was_put_back_is_not_doubtful(store: JobStore) -> None:
    put(store)
    (lease,) = take(store)
    assert store.begin(lease, NOW)
    store.put_back(lease, replace(lease.job, attempts=1, deliveries=1, due=NOW + 3))
    (again,) = take(store, now=NOW + 3)
    assert (again.job.attempts, again.job.ambiguous_since) == (1, None)


def test_who_lost_a_lease_cannot_say_what_becomes_of_the_job(store: JobStore) -> None:
    one = put(store)
    (lost,) = take(store)
    assert store.begin(lost, NOW)
    take(store, now=NOW + LEASE)
    assert not store.put_back(lost, replace(one, stopped="failed")), "who asked is told"
    assert store.stats().dead == 0
    kept = store.job(one.id)
    assert kept is not None
    assert kept.ambiguous_since == NOW, "the doubt is not forgotten either"


def test_who_lost_a_lease_and_delivered_all_the_same_spares_the_next_one_the_sending(store: JobStore) -> None:
    put(store)
    (slow,) = take(store)
    assert store.begin(slow, NOW)
    (quick,) = take(store, now=NOW + LEASE)
    store.delivered(slow)
    assert not store.begin(quick, NOW + LEASE)
    assert store.stats() == Stats(waiting=0, dead=0, oldest=None, leased=0)


# --------------------------------------------------------------------------------------------------- what becomes of it


def test_a_delivered_job_is_forgotten(store: JobStore) -> None:
    one = put(store)
    (lease,) = take(store)
    assert store.begin(lease, NOW)
    store.delivered(lease)
    assert store.job(one.id) is None
    assert take(store, now=NOW + 1000) == []


def test_a_job_that_is_put_back_waits_and_holds_what_was_learned(store: JobStore) -> None:
    one = put(store)
    (lease,) = take(store)
    later = replace(
        one, due=NOW + 60, attempts=2, deliveries=1, ambiguous_since=NOW, verdict={"category": "server", "rule": "r"}
    )
    assert store.put_back(lease, later)
    assert store.job(one.id) == later
    assert take(store, now=NOW + 59) == []
    (again,) = take(store, now=NOW + 60)
    assert again.job == later


def test_a_dead_letter_stays_and_is_never_taken(store: JobStore) -> None:
    one = put(store)
    (lease,) = take(store)
    dead = replace(one, stopped="unsafe", stopped_at=NOW, verdict={"category": "network", "rule": "r"})
    store.put_back(lease, dead)
    assert take(store, now=NOW + 1e6) == []
    assert store.jobs("dead") == [dead]
    assert store.jobs("waiting") == []
    assert store.stats() == Stats(waiting=0, dead=1, oldest=None, leased=0)


# ------------------------------------------------------------------------------------------------------------- lines


def test_jobs_of_a_line_are_taken_one_after_another_in_their_order(store: JobStore) -> None:
    first, second = (put(store, line="jane") for _ in range(2))
    free = put(store)
    leases = take(store)
    assert ids(leases) == [first.id, free.id]
    assert take(store) == [], "the second waits for as long as the first is being sent"
    store.delivered(leases[0])
    assert ids(take(store)) == [second.id]


def test_the_head_of_a_line_holds_up_those_behind_it(store: JobStore) -> None:
    first = put(store, line="jane", due=NOW + 60)
    second = put(store, line="jane")
    other = put(store, line="john")
    taken = store.take(10, NOW, lease=LEASE, pace=unlimited)
    assert [lease.job.id for lease in taken.leases] == [other.id]
    store.delivered(taken.leases[0])
    assert store.take(10, NOW, lease=LEASE, pace=unlimited).wake_at == NOW + 60
    assert ids(take(store, now=NOW + 60)) == [first.id]
    (again,) = take(store, now=NOW + 60 + LEASE)
    assert again.job.id == first.id, "also if its worker dies"
    store.delivered(again)
    assert ids(take(store, now=NOW + 60 + LEASE)) == [second.id]


def test_a_dead_letter_holds_up_nobody(store: JobStore) -> None:
    first, second = (put(store, line="jane") for _ in range(2))
    (lease,) = take(store)
    store.put_back(lease, replace(first, stopped="failed"))
    assert ids(take(store)) == [second.id]


def test_a_discarded_job_holds_up_nobody(store: JobStore) -> None:
    first = put(store, line="jane", due=NOW + 60)
    second = put(store, line="jane")
    assert store.discard(first.id)
    assert ids(take(store)) == [second.id]


# -------------------------------------------------------------------------------------------------------------- pace


def _tenth(pool: str) -> float:
    return 0.1 if pool == "user.upsert" else 0.0


def test_deliveries_of_a_pool_start_apart(store: JobStore) -> None:
    for _ in range(5):
        put(store)
    put(store, pool="mail.send")
    leases = store.take(10, NOW, lease=LEASE, pace=_tenth).leases
    starts = [round(lease.start - NOW, 6) for lease in leases if lease.job.pool == "user.upsert"]
    assert starts == [0.0, 0.1, 0.2, 0.3, 0.4]
    assert [lease.start for lease in leases if lease.job.pool == "mail.send"] == [NOW]


def test_several_takers_share_a_pace(store: JobStore, open_store: Open) -> None:
    for _ in range(6):
        put(store)
    stores = (store, open_store(), open_store())
    starts = sorted(lease.start for one in stores for lease in one.take(2, NOW, lease=LEASE, pace=_tenth).leases)
    assert [round(start - NOW, 6) for start in starts] == [0.0, 0.1, 0.2, 0.3, 0.4, 0.5]


def test_no_more_jobs_are_taken_than_may_start_soon(store: JobStore) -> None:
    """The others are left to other workers, and to whoever comes if this one dies."""
    for _ in range(100):
        put(store)
    taken = store.take(1000, NOW, lease=LEASE, pace=_tenth)
    assert len(taken.leases) <= 11
    assert taken.leases[-1].start <= NOW + 1.001
    assert taken.wake_at is not None
    more = store.take(1000, taken.wake_at, lease=LEASE, pace=_tenth)
    assert more.leases, "there is something to take when it says so"
    assert more.leases[0].start == pytest.approx(taken.leases[-1].start + 0.1)


def test_a_pool_that_is_held_starts_nothing_before_that(store: JobStore) -> None:
    one = put(store)
    other = put(store, pool="mail.send")
    store.hold_pool("user.upsert", NOW + 60)
    taken = store.take(10, NOW, lease=LEASE, pace=_tenth)
    assert [lease.job.id for lease in taken.leases] == [other.id]
    assert taken.wake_at is not None
    assert NOW < taken.wake_at <= NOW + 60
    store.delivered(taken.leases[0])
    (lease,) = store.take(10, NOW + 60, lease=LEASE, pace=_tenth).leases
    assert (lease.job.id, lease.start) == (one.id, NOW + 60)


def test_a_pool_is_not_let_go_sooner_than_it_was_held(store: JobStore) -> None:
    put(store)
    store.hold_pool("user.upsert", NOW + 60)
    store.hold_pool("user.upsert", NOW + 5)
    assert store.take(10, NOW + 30, lease=LEASE, pace=_tenth).leases == []


def test_a_pace_of_hours_is_kept(store: JobStore) -> None:
    first, second = put(store), put(store)
    take_one = functools.partial(store.take, 10, lease=LEASE, pace=lambda pool: 7200.0)
    (lease,) = take_one(NOW).leases
    store.delivered(lease)
    assert take_one(NOW + 7000).leases == []
    (later,) = take_one(NOW + 7200).leases
    assert (lease.job.id, later.job.id) == (first.id, second.id)


@pytest.mark.parametrize("step", [0.0, 0.1])
def test_a_clock_that_was_ahead_for_a_moment_closes_no_pool(store: JobStore, step: float) -> None:
    ahead = NOW + 7 * 86_400
    put(store, due=ahead, expires=ahead + 60)
    (early,) = store.take(10, ahead, lease=LEASE, pace=lambda pool: step).leases
    store.delivered(early)
    one, two = put(store), put(store)
    leases = store.take(10, NOW, lease=LEASE, pace=lambda pool: step).leases
    assert [(lease.job.id, lease.start) for lease in leases] == [(one.id, NOW), (two.id, NOW + step)]


@pytest.mark.parametrize("ahead", [5.0, 60.0, 3600.0])
def test_what_is_taken_before_it_is_due_keeps_nothing_that_is_due_waiting(store: JobStore, ahead: float) -> None:
    soon, later = put(store, due=NOW + ahead), put(store, due=NOW + ahead + 1)
    (early,) = store.take(10, NOW, lease=LEASE, pace=unlimited, ahead=ahead).leases
    assert (early.job.id, early.start) == (soon.id, NOW)
    due = put(store)
    assert ids(take(store)) == [due.id]
    leases_end = max(NOW + LEASE, later.due)
    assert ids(take(store, now=leases_end)) == [due.id, soon.id, later.id], "leases are as long as any"


def test_a_job_that_is_leased_is_not_taken_ahead_of_the_end_of_its_lease(store: JobStore) -> None:
    put(store)
    assert len(take(store)) == 1
    assert store.take(10, NOW, lease=LEASE, pace=unlimited, ahead=3600.0).leases == []


def test_a_pool_that_is_held_is_open_to_who_takes_what_is_due_after_that(store: JobStore) -> None:
    put(store)
    store.hold_pool("user.upsert", NOW + 60)
    assert store.take(10, NOW, lease=LEASE, pace=unlimited, ahead=59.0).leases == []
    assert len(store.take(10, NOW, lease=LEASE, pace=unlimited, ahead=60.0).leases) == 1


# ------------------------------------------------------------------------------------------------------------ change


@pytest.mark.parametrize("who", ["the same process", "another one"])
def test_whoever_watches_notices_new_work(store: JobStore, open_store: Open, who: str) -> None:
    acting = store if who == "the same process" else open_store()
    seen = store.change()

    def is_noticed() -> bool:
        nonlocal seen
        before, seen = seen, store.change()
        assert store.change() == seen, "who looks twice sees the same"
        return bool(seen != before)

    first, second = put(acting, line="jane"), put(acting, line="jane")
    assert is_noticed()
    (lease,) = take(acting)
    is_noticed()
    acting.release([lease])
    assert is_noticed()
    (lease,) = take(acting)
    is_noticed()
    acting.put_back(lease, replace(first, stopped="failed"))
    assert is_noticed(), "the second of the line may go"
    acting.retry(first.id, now=NOW, expires=NOW)
    assert is_noticed()
    (lease,) = take(acting)
    is_noticed()
    acting.delivered(lease)
    assert is_noticed(), "the second of the line may go"
    acting.discard(second.id)
    assert is_noticed()


# ---------------------------------------------------------------------------------------------------- people's hands


def test_a_dead_letter_is_sent_once_more_if_somebody_says_so(store: JobStore) -> None:
    one = put(store, ambiguous_since=NOW - 1000, attempts=4, expires=NOW)
    (lease,) = take(store)
    store.put_back(lease, replace(lease.job, stopped="duplicate_window"))
    assert store.retry(one.id, now=NOW + 5, expires=NOW + 100)
    kept = store.job(one.id)
    assert kept == replace(one, due=NOW + 5, expires=NOW + 100, ambiguous_since=None)
    assert ids(take(store, now=NOW + 5)) == [one.id]


def test_a_retry_makes_no_time_shorter(store: JobStore) -> None:
    one = put(store, due=NOW + 60)
    assert store.retry(one.id, now=NOW, expires=NOW + 1)
    kept = store.job(one.id)
    assert kept is not None
    assert (kept.due, kept.expires) == (NOW, one.expires)


def test_a_job_that_is_being_sent_is_neither_retried_nor_discarded(store: JobStore) -> None:
    one = put(store)
    (lease,) = take(store, now=NOW, lease=3600)
    assert not store.retry(one.id, now=NOW + 5, expires=NOW + 100)
    assert not store.discard(one.id)
    assert store.begin(lease, NOW + 6)
    assert store.stats() == Stats(waiting=1, dead=0, oldest=NOW, leased=1)


def test_a_discarded_job_is_gone(store: JobStore) -> None:
    one, other = put(store), put(store)
    assert store.discard(one.id)
    assert not store.discard(one.id), "there is none"
    assert not store.retry(one.id, now=NOW, expires=NOW)
    assert store.job(one.id) is None
    assert store.jobs() == [other]


def test_jobs_are_listed_from_the_oldest_and_no_more_than_asked_for(store: JobStore) -> None:
    every = [put(store, due=NOW - number) for number in range(5)]
    (lease,) = take(store, 1)
    dead = replace(lease.job, stopped="failed")
    store.put_back(lease, dead)
    assert store.jobs() == [*every[:4], dead]
    assert store.jobs("waiting") == every[:4]
    assert store.jobs("waiting", most=2) == every[:2]
    assert store.jobs("dead") == [dead]


def test_names_are_listed_from_the_oldest_and_by_their_beginning(store: JobStore) -> None:
    for number, name in enumerate(("ab_1", "AB_1", "abc1", "ab_2")):
        put(store, id=name, due=NOW - number)
    (lease,) = take(store, 1)
    store.put_back(lease, replace(lease.job, stopped="failed"))
    assert store.ids() == ["ab_1", "AB_1", "abc1", "ab_2"]
    assert store.ids(beginning="ab_") == ["ab_1", "ab_2"], "no letter stands for another"
    assert store.ids("dead") == ["ab_2"]
    assert store.ids("waiting", beginning="ab_") == ["ab_1"]
    assert store.ids(beginning="ab_1 and more") == []


def test_stats_tell_how_full_it_is(store: JobStore) -> None:
    assert store.stats() == Stats(waiting=0, dead=0, oldest=None, leased=0)
    oldest = NOW - 500
    for created in (NOW, oldest, NOW - 10):
        put(store, created=created)
    (lease,) = take(store, 1, lease=3600)
    assert store.stats() == Stats(waiting=3, dead=0, oldest=oldest, leased=1)
    store.put_back(lease, replace(lease.job, stopped="failed"))
    assert store.stats() == Stats(waiting=2, dead=1, oldest=oldest, leased=0)


def test_a_name_that_nobody_has_is_no_job(store: JobStore) -> None:
    none: Job | None = store.job("nobody")
    assert none is None
