"""Eight processes at one outbox: each job is one worker's."""

from __future__ import annotations

import time
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from tests.state.race import in_processes

from .conftest import PATIENT
from .jobs import put, take, unlimited

_PROCESSES = 8
_JOBS = 400
_BOUND = 60.0


def _work_it_off(path: Path) -> list[tuple[str, float]]:
    """Take jobs until there are none: what was sent and when."""
    store = SQLiteOutbox(path, timeout=PATIENT)
    sent: list[tuple[str, float]] = []
    ends = time.monotonic() + _BOUND
    while store.stats().waiting and time.monotonic() < ends:
        for number, lease in enumerate(take(store, 5, time.time(), lease=_BOUND)):
            if lease.job.deliveries == 0 and number == 0:
                store.put_back(lease, replace(lease.job, deliveries=1))
            elif lease.job.deliveries == 0 and number == 1:
                store.release([lease])
            elif store.begin(lease, time.time()):
                sent.append((lease.job.id, time.time()))
                store.delivered(lease)
    store.close()
    return sent


def test_each_job_is_sent_by_one_process_once(path: Path) -> None:
    store = SQLiteOutbox(path, timeout=PATIENT)
    names = [put(store, line=f"line-{number % 40}" if number % 2 else None).id for number in range(_JOBS)]
    lines = {one.id: one.line for one in store.jobs(most=_JOBS)}
    sent = [one for each in in_processes(_PROCESSES, _work_it_off, path) for one in each]
    assert Counter(name for name, _ in sent) == Counter(names)
    for line in {line for line in lines.values() if line is not None}:
        order = [name for name, _ in sorted(sent, key=lambda one: one[1]) if lines[name] == line]
        assert order == [name for name in names if lines[name] == line], "a line keeps its order"
    store.close()


def _put_many(path: Path) -> list[str]:
    store = SQLiteOutbox(path, timeout=PATIENT)
    names = [put(store, id=f"{id(store)}-{time.time_ns()}-{number}").id for number in range(50)]
    store.close()
    return names


def test_no_job_is_lost_of_many_that_are_put_at_once(path: Path) -> None:
    """The file is made by whoever is first."""
    names = [name for each in in_processes(_PROCESSES, _put_many, path) for name in each]
    store = SQLiteOutbox(path, timeout=PATIENT)
    assert sorted(one.id for one in store.jobs(most=1000)) == sorted(names)
    assert len(names) == _PROCESSES * 50
    store.close()


def _take_at_a_pace(path: Path) -> list[float]:
    store = SQLiteOutbox(path, timeout=PATIENT)
    starts: list[float] = []
    ends = time.monotonic() + _BOUND
    while store.stats().waiting and time.monotonic() < ends:
        taken = store.take(4, time.time(), lease=_BOUND, pace=lambda pool: 0.01)
        starts += [lease.start for lease in taken.leases]
        for lease in taken.leases:
            store.delivered(lease)
    store.close()
    return starts


def test_the_pace_of_a_pool_is_kept_by_all_of_them_together(path: Path) -> None:
    store = SQLiteOutbox(path, timeout=PATIENT)
    for _ in range(200):
        put(store)
    starts = sorted(start for each in in_processes(4, _take_at_a_pace, path) for start in each)
    assert len(starts) == 200
    gaps = [later - earlier for earlier, later in pairwise(starts)]
    assert min(gaps) > 0.01 - 1e-5
    assert not store.take(1, time.time(), lease=_BOUND, pace=unlimited).leases
    store.close()
