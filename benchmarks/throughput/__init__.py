"""Many calls at once, and many calls on end: calls per second, and memory."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from benchmarks.common.fresh import in_new_process
from benchmarks.common.loopback import loopback
from benchmarks.result import Measure, Result, Table
from benchmarks.throughput import memory, rates
from benchmarks.throughput.kinds import BARE, KINDS, OURS

_ROUNDS = 5
_BODY = 100_000
_IN_FLIGHT_BAR = 20_000.0
# One object, or 50 bytes, kept of every call would be a hundred times the first and the whole of the second.
_BLOCKS_BAR = 0.01
_GROWTH_BAR = 50.0
_TASKS = f"{rates.IN_FLIGHT:,} tasks"
_THREADS = f"{rates.THREADS} threads"

Rate = Callable[[str, int], tuple[float, float]]


def run() -> Result:
    """Measure everything in processes of their own, one after the other."""
    in_flight = {_TASKS: _in_flight(memory.of_tasks), _THREADS: _in_flight(memory.of_threads)}
    grown = {kind: in_new_process(memory.growth, kind) for kind in (BARE, OURS)}
    measures = [
        Measure(
            f"memory of a call in flight beyond httpx's own, {way}",
            taken[OURS] - taken[BARE],
            "bytes",
            at_most=_IN_FLIGHT_BAR,
        )
        for way, taken in in_flight.items()
    ]
    (resident, blocks), (resident_later, blocks_later) = grown[OURS][1], grown[OURS][-1]
    half = memory.CALLS_PER_SECOND * memory.SECONDS / 2
    measures += [
        Measure("growth over ten minutes' calls", (blocks_later - blocks) / half, "blocks a call", at_most=_BLOCKS_BAR),
        Measure("the same, resident memory", (resident_later - resident) / half, "bytes a call", at_most=_GROWTH_BAR),
    ]
    return Result(
        measures=tuple(measures),
        tables=(_rates(), _in_flight_table(in_flight), _growth_table(grown)),
        notes=(
            f"{_TASKS} share {rates.CLIENTS} clients: httpcore compares all connections of a pool for each request.",
            f"Growth is that of the second half: {half:,.0f} calls.",
            f"Ten minutes' calls: {memory.CALLS_PER_SECOND} a second by the library's clock, as fast as they go.",
            f"Calls in flight have bodies of {_BODY:,} bytes, made before memory is looked at: a copy would be seen.",
        ),
    )


def _in_flight(measure: Callable[[str, int], float]) -> dict[str, float]:
    return {kind: in_new_process(measure, kind, _BODY) for kind in KINDS}


def _rates() -> Table:
    ways: dict[str, Rate] = {_TASKS: rates.with_tasks, _THREADS: rates.with_threads}
    found: dict[tuple[str, str], list[tuple[float, float]]] = {}
    with loopback() as port:
        for number in range(_ROUNDS):
            for way, rate in ways.items():
                for kind in KINDS if number % 2 else reversed(KINDS):
                    found.setdefault((way, kind), []).append(in_new_process(rate, kind, port))
    rows = tuple(_rate_row(way, kind, found[way, kind], found[way, BARE]) for way in ways for kind in KINDS)
    header = (
        "at once",
        "with",
        "calls/s",
        "slowest to fastest run",
        "to bare, in the same round",
        "resident memory, MB",
    )
    return Table("Calls over a socket", header, rows)


def _rate_row(way: str, kind: str, runs: list[tuple[float, float]], bare: list[tuple[float, float]]) -> tuple[str, ...]:
    rates_of_runs = [per_second for per_second, _ in runs]
    return (
        way,
        kind,
        f"{statistics.median(rates_of_runs):,.0f}",
        f"{min(rates_of_runs):,.0f} to {max(rates_of_runs):,.0f}",
        f"{statistics.median(own / other for own, (other, _) in zip(rates_of_runs, bare, strict=True)):.2f}",
        f"{statistics.median(resident for _, resident in runs) / 1e6:.0f}",
    )


def _in_flight_table(in_flight: dict[str, dict[str, float]]) -> Table:
    rows = tuple((way, *(f"{taken[kind]:,.0f}" for kind in KINDS)) for way, taken in in_flight.items())
    return Table("Bytes of a call whose answer is awaited", ("in flight", *KINDS), rows)


def _growth_table(grown: dict[str, list[tuple[float, float]]]) -> Table:
    rows = tuple(
        (kind, *(f"{resident / 1e6:.2f} MB, {blocks:,.0f}" for resident, blocks in quarters))
        for kind, quarters in grown.items()
    )
    quarters = (f"after {(number + 1) * memory.SECONDS / 60 / memory.QUARTERS:g} min" for number in range(4))
    return Table("Resident memory, and blocks that Python has allocated", ("with", *quarters), rows)
