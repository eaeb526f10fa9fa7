"""AWS's own simulation of jitter, on this simulator: if it finds what AWS found, the simulator can be believed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from benchmarks.herd.servers import RowServer
from benchmarks.herd.simulator import simulate
from benchmarks.herd.strategies import (
    Formula,
    Wait,
    decorrelated_jitter,
    equal_jitter,
    exponential,
    fixed,
    full_jitter,
)
from benchmarks.result import Measure

BASE, CAP = 0.005, 2.0
"""Seconds, as in the blog."""
STRATEGIES: Mapping[str, Wait] = {
    "none": fixed(0.0),
    "exponential": exponential(BASE, CAP),
    "equal": equal_jitter(BASE, CAP),
    "full": full_jitter(BASE, CAP),
    "decorrelated": decorrelated_jitter(BASE, CAP),
}


@dataclass(frozen=True, slots=True)
class Contention:
    """How it ended, in the mean of the runs.

    Attributes:
        seconds: Until the last client had written.
        calls: Writes that were tried.
    """

    seconds: float
    calls: float


CLIENTS, RUNS, SEED = 100, 40, 20261122
AWS_FOUND: Mapping[str, Contention] = {
    "none": Contention(2.028, 2424),
    "exponential": Contention(64.251, 1861),
    "equal": Contention(6.682, 813),
    "full": Contention(4.856, 795),
    "decorrelated": Contention(4.561, 1000),
}
"""With as many clients: the means of 100 runs of aws-samples/aws-arch-backoff-simulator, restated for Python 3."""


def contend(name: str, clients: int = CLIENTS, runs: int = RUNS, seed: int = SEED) -> Contention:
    """Let clients update one row, each once.

    Args:
        name: The strategy, one of ``STRATEGIES``.
        clients: How many.
        runs: Runs, at once: each has a row of its own.
        seed: Where chance begins.
    """
    random = np.random.default_rng(seed)
    server = RowServer(runs, clients, random)
    trace = simulate(np.zeros(runs * clients), server, Formula(STRATEGIES[name], runs * clients, random))
    ends = trace.ends.reshape(runs, clients).max(axis=1)
    return Contention(float(ends.mean()), float(trace.attempts.sum() / runs))


def relations(found: Mapping[str, Contention]) -> tuple[Measure, ...]:
    """What AWS found, which holds for 100 clients and more, as ratios with their bounds.

    Args:
        found: How each of ``STRATEGIES`` ended.
    """
    none, exponential_, equal, full, decorrelated = (found[name] for name in STRATEGIES)
    return (
        _ratio("calls, full over exponential", full.calls, exponential_.calls, at_most=0.45),
        _ratio("calls, full over none", full.calls, none.calls, at_most=0.35),
        _ratio("time, full over exponential", full.seconds, exponential_.seconds, at_most=0.10),
        _ratio("calls, decorrelated over full", decorrelated.calls, full.calls, at_least=1.2),
        _ratio("calls, equal over full", equal.calls, full.calls, at_least=0.9, at_most=1.1),
        _ratio("time, equal over full", equal.seconds, full.seconds, at_least=1.1),
    )


def _ratio(
    what: str, value: float, base: float, *, at_most: float | None = None, at_least: float | None = None
) -> Measure:
    return Measure(f"AWS's simulation: {what}", value / base, "", at_most=at_most, at_least=at_least)
