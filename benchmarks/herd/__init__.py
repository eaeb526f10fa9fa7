"""What happens to a server that comes back, by what its clients do meanwhile: a simulation of up to 1,000,000 of them.

``HERD_CLIENTS=1000000 python -m benchmarks herd`` takes another number than the default of 100,000.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path

from benchmarks.herd import aws
from benchmarks.herd.plot import draw
from benchmarks.herd.scenarios import (
    BURST,
    CALLS_PER_PROCESS,
    MINUTE,
    OURS,
    SCENARIOS,
    STEADY,
    STRATEGIES,
    Reading,
    Scenario,
    play,
)
from benchmarks.result import Measure, Result, Table

VARIABLE = "HERD_CLIENTS"
DEFAULT_CLIENTS = 100_000
FEWEST, MOST = 1_000, 1_000_000
PICTURE = Path(__file__).with_name("outage.svg")
_SHOWN = 420.0
"""Seconds in the picture: the outage, the five minutes after it, and one more."""
_HEADER = (
    "strategy",
    "attempts per call",
    "peak after the outage, over the room",
    "over the mean",
    "all served after, s",
    "median call, s",
    "lost",
    "lost, %",
)


def run() -> Result:
    """Simulate every strategy in every scenario, and AWS's own simulation as a check; draw the picture."""
    clients = clients_asked(os.environ)
    readings = {scenario: {name: play(scenario, name, clients) for name in STRATEGIES} for scenario in SCENARIOS}
    contentions = {name: aws.contend(name) for name in aws.STRATEGIES}
    if clients == DEFAULT_CLIENTS:  # the picture that is kept
        loads = ({name: reading.load for name, reading in readings[scenario].items()} for scenario in (STEADY, BURST))
        draw(PICTURE, *loads, outage=STEADY.outage, until=_SHOWN)
    return Result(
        measures=(*_bars(readings), *aws.relations(contentions)),
        tables=(*(_outage_table(scenario, readings[scenario]) for scenario in SCENARIOS), _aws_table(contentions)),
        notes=(
            f"{clients:,} calls in a usual minute, {CALLS_PER_PROCESS} of them from each process.",
            f"The room is what usual traffic leaves: as many calls a second as usual, {clients / MINUTE:,.0f}.",
            "Strategies without a number of attempts go on until they are served; the others lose calls.",
            "The mean says little of a blip: where calls are spread, hardly anybody is left in most of the seconds.",
        ),
    )


def clients_asked(environment: Mapping[str, str]) -> int:
    """How many clients to simulate.

    Args:
        environment: The environment's variables.

    Raises:
        ValueError: The variable is no number, or out of bounds.
    """
    text = environment.get(VARIABLE, str(DEFAULT_CLIENTS))
    if not text.isascii() or not text.isdigit() or not FEWEST <= int(text) <= MOST:
        raise ValueError(f"{VARIABLE} is {text!r}; it accepts a whole number from {FEWEST} to {MOST}")
    return int(text)


def _bars(readings: Mapping[Scenario, Mapping[str, Reading]]) -> Iterator[Measure]:
    for scenario in (STEADY, BURST):
        ours = readings[scenario][OURS]
        assert ours.peak is not None
        calls = "calls evenly" if scenario is STEADY else "calls at once"
        yield Measure(f"{OURS}, {calls}: peak after the outage, over the room", ours.peak, "", at_most=1.0)
        yield Measure(f"{OURS}, {calls}: attempts per call", ours.attempts_per_call, "", at_most=3.0)
        yield Measure(f"{OURS}, {calls}: calls lost", ours.lost_share * 100, "%", at_most=0.5)


def _outage_table(scenario: Scenario, readings: Mapping[str, Reading]) -> Table:
    return Table(scenario.title, _HEADER, tuple(_row(name, reading) for name, reading in readings.items()))


def _row(name: str, reading: Reading) -> tuple[str, ...]:
    return (
        name,
        f"{reading.attempts_per_call:.2f}",
        _number(reading.peak, 2),
        _number(reading.peak_over_mean, 1),
        _number(reading.all_served, 1),
        _number(reading.median, 1),
        f"{reading.lost:,}",
        f"{reading.lost_share * 100:.2f}",
    )


def _number(value: float | None, digits: int) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _aws_table(found: Mapping[str, aws.Contention]) -> Table:
    return Table(
        f"The check: AWS's simulation with {aws.CLIENTS} clients, mean of {aws.RUNS} runs here and of 100 there",
        ("jitter", "time here, s", "time at AWS, s", "calls here", "calls at AWS"),
        tuple(
            (
                name,
                f"{here.seconds:.2f}",
                f"{aws.AWS_FOUND[name].seconds:.2f}",
                f"{here.calls:,.0f}",
                f"{aws.AWS_FOUND[name].calls:,.0f}",
            )
            for name, here in found.items()
        ),
    )
