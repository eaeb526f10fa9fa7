"""Writers and workers are killed two hundred times, at any moment: nothing that was accepted is lost, nor sent twice.

``pytest -s tests/outbox/test_kill.py`` prints the counts.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.testing import FakeInsider
from insider_otel.testing._records import RecordedRequest
from insider_otel.testing.faults import Step, delay, reply, reset

from .killed import DELIVERIES, Killable, Place, deliver, line_of, marker_of, playing, write

_ROUNDS = 200
_SEED = 20260101
_PATIENCE = 120.0
_LONGEST_LIFE = 0.2


def _faults(chance: random.Random) -> list[str | Step]:
    """Two of three answers are good, half of them slow; of the others some fail to come after the work was done."""
    faults: list[str | Step] = [
        "503",
        "503",
        "502",
        "reset",
        "reset",
        reset(processed=True),
        reply(502, processed=True),
    ]
    good: list[str | Step] = ["ok", delay(0.04)]
    steps = good * len(faults) + faults
    chance.shuffle(steps)
    return steps


@pytest.mark.once
def test_every_accepted_call_ends_in_one_delivery_or_a_dead_letter(tmp_path: Path) -> None:
    chance = random.Random(_SEED)
    fake = FakeInsider()
    fake.script("*", *_faults(chance), repeat=True)
    with fake.serve() as served:
        place = Place(tmp_path, served.url, served.hosts)
        writer, *workers = cast = [
            Killable("writer", write, place),
            Killable("worker-a", deliver, place),
            Killable("worker-b", deliver, place),
        ]
        killed = Counter[str]()
        with playing(*cast, killed=killed):
            for one in cast:
                one.wait_until_it_works(_PATIENCE)
            for _ in range(_ROUNDS):
                time.sleep(chance.uniform(0, _LONGEST_LIFE))
                victims = chance.choice([[writer], [chance.choice(workers)], [writer, chance.choice(workers)]])
                for one in victims:
                    one.kill(killed)
                    one.begin()
                for one in victims:
                    one.wait_until_it_works(_PATIENCE)
        fake.script("*")
        with playing(Killable("worker-c", deliver, place), killed=killed):
            store = SQLiteOutbox(tmp_path / "outbox.db")
            _drain(store)
        told = dict(line.split() for line in place.told.read_text().splitlines())
        dead = {one.id: str(one.stopped) for one in store.jobs("dead", most=1_000_000)}
        store.close()
    _judge(told, dead, fake.requests, killed)


def _drain(store: SQLiteOutbox) -> None:
    ends = time.monotonic() + _PATIENCE
    while (stats := store.stats()).waiting:
        assert time.monotonic() < ends, f"jobs still wait: {stats}"
        time.sleep(0.1)


def _judge(
    told: Mapping[str, str], dead: Mapping[str, str], requests: Iterable[RecordedRequest], killed: Mapping[str, int]
) -> None:
    by_call: dict[str, list[RecordedRequest]] = defaultdict(list)
    arrivals: dict[str, int] = {}
    for number, request in enumerate(requests):
        call = marker_of(request.operation, request.json)
        by_call[call].append(request)
        if request.accepted:
            arrivals.setdefault(call, number)
    accepted = {call: [each for each in made if each.accepted] for call, made in by_call.items()}

    lost = [call for call, job in told.items() if not accepted.get(call) and job not in dead]
    assert not lost, f"{len(lost)} calls were answered with 202, and never delivered: {lost[:5]}"

    twice = {call: taken for call, taken in accepted.items() if len(taken) > 1}
    assert {taken[0].operation for taken in twice.values()} <= {"user.upsert"}, "nothing is sent twice that must not be"
    unheard = Counter[str]()
    for taken in twice.values():
        for each in taken[:-1]:
            if each.status in {200, 201}:
                # The answer was on its way: only who was killed before it came, or before it was noted, sends again.
                unheard[each.headers["user-agent"]] += 1
    assert unheard.keys() <= killed.keys(), "who lived sent nothing twice"
    assert all(count <= DELIVERIES for count in unheard.values()), "no more than it had in the air"
    again = _repeats(by_call)
    assert set(dead.values()) <= {"unsafe"}, "with an hour of patience nothing else is given up"
    _order_is_kept(told, by_call, arrivals, dead)

    print(
        f"\n{sum(killed.values())} processes killed in {_ROUNDS} rounds; {len(told)} calls answered with 202: "
        f"{sum(bool(accepted.get(call)) for call in told)} delivered, "
        f"{sum(job in dead for job in told.values())} dead letters ({dict(Counter(dead.values()))}); "
        f"{sum(len(made) for made in by_call.values())} requests, {sum(map(len, accepted.values()))} accepted; "
        f"accepted twice: {len(twice)} idempotent calls ({sum(unheard.values())} because of a kill); "
        f"repeats that Insider ignored: {again}"
    )
    assert len(told) > _ROUNDS
    assert dead
    assert unheard, "no process was killed in the middle of a delivery: the test has shown nothing"


def _repeats(by_call: Mapping[str, list[RecordedRequest]]) -> int:
    """How many mails came once more after they had been accepted: Insider ignores them, within its window."""
    count = 0
    for made in by_call.values():
        if made[0].operation == "mail.send":
            first = next((number for number, each in enumerate(made) if each.accepted), len(made))
            count += len(made[first + 1 :])
    return count


def _order_is_kept(
    told: Mapping[str, str],
    by_call: Mapping[str, list[RecordedRequest]],
    arrivals: Mapping[str, int],
    dead: Mapping[str, str],
) -> None:
    """Calls with one ordering key arrive in the order in which they were made."""
    lines: dict[tuple[str, int], list[int]] = defaultdict(list)
    for call, job in told.items():
        line = line_of(call)
        if line is not None and job not in dead:
            lines[by_call[call][0].operation, line].append(arrivals[call])
    assert len(lines) > 3
    assert all(order == sorted(order) for order in lines.values())
