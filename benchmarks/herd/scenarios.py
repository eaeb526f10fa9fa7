"""The outages that are simulated, who is sent through them, and what is read off."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.herd.servers import OutageServer
from benchmarks.herd.shipped import HttpxRetries, InsiderOtel, Stamina
from benchmarks.herd.simulator import Seconds, Strategy, Trace, simulate
from benchmarks.herd.strategies import (
    AwsStandard,
    Formula,
    Wait,
    decorrelated_jitter,
    equal_jitter,
    exponential,
    fixed,
    full_jitter,
    spread,
)

SEED = 20261122
MINUTE = 60.0
CALLS_PER_PROCESS = 100
"""Calls of one process in a minute: they share its retry budget or quota."""
BASE, CAP = 0.5, 20.0
"""Seconds, of the textbook formulas: a first wait of one second at most, and the cap of AWS."""
WINDOW = 300.0
"""Seconds over which Insider asks to spread retries."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """An outage and the calls that it hits.

    The usual traffic is ``clients`` calls in a minute. The server can do twice as much, and goes on serving it when the
    outage is over: so for those who come back there is room for as many calls in a second as there usually are.

    Attributes:
        title: What happens.
        outage: Its length in seconds, from second 0.
        arrivals: Seconds in which the first attempts are made, from second 0.
        share: How many of a minute's calls are hit.
    """

    title: str
    outage: float
    arrivals: float
    share: float = 1.0

    def capacity(self, clients: int) -> float:
        """Requests a second for which there is room.

        Args:
            clients: Calls in a usual minute.
        """
        return clients / MINUTE

    def starts(self, clients: int) -> Seconds:
        """First attempts: the same moments for every strategy.

        Args:
            clients: Calls in a usual minute.
        """
        return np.random.default_rng(SEED).random(round(clients * self.share)) * self.arrivals


STEADY = Scenario("An outage of 60 s; its calls come evenly, as usual", outage=MINUTE, arrivals=MINUTE)
BURST = Scenario("An outage of 60 s; its calls all come in its first second", outage=MINUTE, arrivals=1.0)
BLIP = Scenario("A blip of 1 s in the usual traffic", outage=1.0, arrivals=1.0, share=1 / MINUTE)
SCENARIOS = (STEADY, BURST, BLIP)

Maker = Callable[[Seconds, int], Strategy]


def _formula(wait: Wait) -> Maker:
    return lambda starts, processes: Formula(wait, len(starts), np.random.default_rng(SEED))


OURS = "insider-otel"
STRATEGIES: Mapping[str, Maker] = {
    "fixed, 1 s": _formula(fixed(1.0)),
    "exponential": _formula(exponential(BASE, CAP)),
    "full jitter": _formula(full_jitter(BASE, CAP)),
    "equal jitter": _formula(equal_jitter(BASE, CAP)),
    "decorrelated jitter": _formula(decorrelated_jitter(BASE, CAP)),
    "AWS standard mode": lambda starts, processes: AwsStandard(len(starts), processes, np.random.default_rng(SEED)),
    "httpx-retries": lambda starts, processes: HttpxRetries(len(starts), SEED),
    "httpx-retries, as in its README": lambda starts, processes: HttpxRetries(
        len(starts), SEED, total=5, backoff_factor=0.5
    ),
    "stamina": lambda starts, processes: Stamina(starts, SEED),
    "spread over 5 minutes": _formula(spread(WINDOW)),
    OURS: lambda starts, processes: InsiderOtel(starts, processes, SEED),
    f"{OURS}, deadline of 2 s": lambda starts, processes: InsiderOtel(starts, processes, SEED, deadline=2.0),
}
"""Those without a number of attempts in their definition go on until they are served."""


@dataclass(frozen=True, slots=True)
class Reading:
    """What one strategy did in one scenario.

    Attributes:
        load: Attempts in each second from second 0, as multiples of the capacity.
        attempts: Attempts made.
        attempts_per_call: The same for each call.
        peak: Load of the fullest second after the outage, as a multiple of the capacity; None without attempts then.
        peak_over_mean: The same over the mean of the seconds from the outage's end to the last attempt.
        all_served: Seconds from the outage's end until nobody was left; None if nobody was served at all.
        median: Seconds that the median call took, of those that were served.
        lost: Calls that gave up.
        lost_share: The same for each call.
    """

    load: Seconds
    attempts: int
    attempts_per_call: float
    peak: float | None
    peak_over_mean: float | None
    all_served: float | None
    median: float | None
    lost: int
    lost_share: float


def play(scenario: Scenario, name: str, clients: int) -> Reading:
    """Send the clients of a scenario through it.

    Args:
        scenario: The scenario.
        name: The strategy, one of ``STRATEGIES``.
        clients: Calls in a usual minute.
    """
    starts = scenario.starts(clients)
    capacity = scenario.capacity(clients)
    processes = max(1, clients // CALLS_PER_PROCESS)
    trace = simulate(starts, OutageServer(scenario.outage, capacity), STRATEGIES[name](starts, processes))
    return _read(trace, scenario, capacity)


def _read(trace: Trace, scenario: Scenario, capacity: float) -> Reading:
    load = trace.load / capacity
    after = load[int(scenario.outage) :]
    served = np.isfinite(trace.ends)
    return Reading(
        load=load,
        attempts=int(trace.attempts.sum()),
        attempts_per_call=float(trace.attempts.mean()),
        peak=float(after.max()) if len(after) else None,
        peak_over_mean=float(after.max() / after.mean()) if len(after) else None,
        all_served=float(trace.ends[served].max()) - scenario.outage if served.any() else None,
        median=float(np.median(trace.ends[served] - trace.starts[served])) if served.any() else None,
        lost=trace.lost,
        lost_share=trace.lost / len(trace.starts),
    )
