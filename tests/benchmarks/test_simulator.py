"""The simulator of the herd: exact, and in agreement with AWS's own."""

from __future__ import annotations

import heapq
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.herd import aws
from benchmarks.herd.servers import OutageServer, RowServer
from benchmarks.herd.simulator import GIVES_UP, Flags, Integers, Seconds, Trace, simulate
from benchmarks.herd.strategies import Formula, exponential, fixed, full_jitter


def random() -> np.random.Generator:
    return np.random.default_rng(7)


@cache
def contentions(clients: int) -> dict[str, aws.Contention]:
    return {name: aws.contend(name, clients, runs=20) for name in aws.STRATEGIES}


@pytest.mark.parametrize("clients", [100, 150])
@pytest.mark.parametrize("index", range(6))
def test_the_relations_that_aws_found_hold(index: int, clients: int) -> None:
    """Jitter saves calls, full jitter time as well, and decorrelated costs more calls than full."""
    relation = aws.relations(contentions(clients))[index]
    assert relation.passes, f"{relation.what}: {relation.value}"


@pytest.mark.parametrize("name", aws.STRATEGIES)
def test_times_and_calls_are_those_of_aws(name: str) -> None:
    """With 100 clients, as far as 20 runs can tell."""
    here, there = contentions(aws.CLIENTS)[name], aws.AWS_FOUND[name]
    assert here.calls == pytest.approx(there.calls, rel=0.04)
    assert here.seconds == pytest.approx(there.seconds, rel=0.15)


def test_a_row_is_written_once_by_each_of_its_clients() -> None:
    """Rows do not mix: every client of every row gets its one write."""
    trace = simulate(np.zeros(60), RowServer(3, 20, random()), Formula(fixed(0.0), 60, random()))
    assert trace.lost == 0
    assert (trace.attempts >= 1).all()
    assert len(np.unique(trace.ends)) == 60


def one_by_one(starts: Seconds, server: OutageServer, waits: list[float]) -> dict[int, float]:
    """The same simulation with one event at a time, as one would write it first."""
    events = [(start + server.step / 2, client, 0) for client, start in enumerate(starts.tolist())]
    heapq.heapify(events)
    used: dict[float, int] = {}
    ends = {}
    while events:
        time, client, failures = heapq.heappop(events)
        step = time // server.step
        place = used.get(step, 0)
        used[step] = place + 1
        # The server is asked for this request's place among those of its step.
        outcome = server.handle(np.arange(place + 1), np.full(place + 1, time))[place]
        answered = time + server.step / 2
        if outcome:
            ends[client] = answered
        else:
            wait = waits[min(failures, len(waits) - 1)]
            heapq.heappush(events, (answered + wait + server.step / 2, client, failures + 1))
    return ends


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), clients=st.integers(1, 60), capacity=st.floats(2.0, 80.0), outage=st.integers(0, 9))
def test_steps_of_many_events_give_what_single_events_give(
    seed: int, clients: int, capacity: float, outage: int
) -> None:
    """Exactly: an answer cannot cause anything within the step in which its request came."""
    starts = np.random.default_rng(seed).random(clients) * 4
    server = OutageServer(outage, capacity)
    trace = simulate(starts, server, Formula(exponential(0.25, 4.0), clients, random()))
    assert one_by_one(starts, server, [0.5, 1.0, 2.0, 4.0]) == dict(enumerate(trace.ends.tolist()))


def outage(clients: int = 3_000, capacity: float = 50.0) -> Trace:
    starts = random().random(clients) * 10
    return simulate(starts, OutageServer(10.0, capacity), Formula(full_jitter(0.5, 8.0), clients, random()))


def test_nobody_is_served_while_the_server_is_out_and_all_are_later() -> None:
    """Until then every attempt is lost work."""
    trace = outage()
    assert trace.ends.min() > 10.0
    assert trace.lost == 0
    assert trace.load.sum() == trace.attempts.sum()


def test_the_server_never_serves_more_than_it_can() -> None:
    """However many come."""
    served = np.bincount(np.floor(outage().ends - OutageServer.step / 2).astype(int))
    assert served.max() == 50
    assert served[10:60].min() == 50, "and no less while there are enough"


def test_the_same_seed_gives_the_same_trace() -> None:
    """To the last digit."""
    assert (outage().ends == outage().ends).all()


class GivesUp:
    """Makes one attempt."""

    def answered(self, clients: Integers, times: Seconds, served: Flags) -> Seconds:
        return np.full(len(clients), GIVES_UP)


def test_who_gives_up_is_lost() -> None:
    """After the attempts it made."""
    trace = simulate(np.array([0.0, 5.0, 9.99]), OutageServer(9.0, 100.0), GivesUp())
    assert trace.lost == 2
    assert trace.attempts.tolist() == [1, 1, 1]
    assert trace.load.tolist() == [1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1]


@pytest.mark.parametrize(("step", "says"), [(0.1, "power of two"), (0.5, "shorter than")])
def test_a_step_that_would_make_it_inexact_is_refused(step: float, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rather than simulated."""
    server = RowServer(1, 2, random())
    monkeypatch.setattr(server, "journey", lambda count: np.full(count, 0.01))
    monkeypatch.setattr(RowServer, "step", step)
    with pytest.raises(ValueError, match=says):
        simulate(np.zeros(2), server, Formula(fixed(0.0), 2, random()))
