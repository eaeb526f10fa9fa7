"""Deferred calls: what it takes to keep one, and how evenly a backlog is worked off."""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from pathlib import Path

from benchmarks.common.fresh import in_new_process
from benchmarks.outbox import backlog, enqueue, outage
from benchmarks.outbox.plot import draw
from benchmarks.outbox.shop import Curve
from benchmarks.result import Measure, Result, Table
from insider_otel.policy.deferral import SHARE

PICTURE = Path(__file__).with_name("load.svg")
_PUT_BAR = 1.0
_PEAK_BAR = 1.3


def run() -> Result:
    """Measure the keeping, simulate an outage, work a backlog off, and draw the two curves."""
    samples = in_new_process(enqueue.measure)
    suffered, worked_off = outage.suffer(), backlog.work_off()
    outage_limit, backlog_limit = _rate(outage.LIMIT), _rate(backlog.LIMIT)
    draw(PICTURE, suffered, outage_limit, outage.OUTAGE, worked_off, backlog_limit)
    return Result(
        measures=(
            Measure(
                "put, sync=normal (the default), median", _median(samples, enqueue.PUT) * 1e3, "ms", at_most=_PUT_BAR
            ),
            *_bars(f"outage of {outage.OUTAGE:g} s, {outage.CALLS:,} calls", suffered, outage.CALLS),
            *_bars(f"backlog of {backlog.JOBS:,} calls", worked_off, backlog.JOBS),
        ),
        tables=(
            Table(
                "Keeping a call",
                ("what", "median, ms", "p99, ms"),
                tuple(_row(name, seconds) for name, seconds in samples.items()),
            ),
            Table(
                "While the limit holds the jobs back",
                ("what", "limit, per s", "mean second", "peak second", "least second", "all done after, s"),
                (
                    _curve_row("outage, fake clock", suffered, outage_limit),
                    _curve_row("backlog, real time", worked_off, backlog_limit),
                ),
            ),
        ),
        notes=(
            f"Deliveries use {SHARE:.0%} of a limit: the rest is for calls that somebody waits for.",
            f"Backlog: {backlog.WORKERS} worker processes share it.",
        ),
    )


def _bars(what: str, found: Curve, calls: int) -> Iterator[Measure]:
    yield Measure(f"{what}: peak second, over the mean at the limit", found.peak_over_mean, "", at_most=_PEAK_BAR)
    yield Measure(f"{what}: lost", calls - found.delivered + found.left, "", at_most=0)
    yield Measure(f"{what}: sent twice", found.twice, "", at_most=0)
    yield Measure(f"{what}: 429s suffered", found.refused, "", at_most=0)


def _median(samples: dict[str, list[float]], kind: str) -> float:
    return statistics.median(samples[f"{kind}, sync=normal"])


def _row(name: str, seconds: list[float]) -> tuple[str, ...]:
    last = statistics.quantiles(seconds, n=100)[-1]
    return name, f"{statistics.median(seconds) * 1e3:.2f}", f"{last * 1e3:.2f}"


def _curve_row(name: str, found: Curve, limit: float) -> tuple[str, ...]:
    at_limit = found.seconds[found.drained]
    return (
        name,
        f"{limit:g}",
        f"{statistics.mean(at_limit):.1f}",
        f"{max(at_limit)}",
        f"{min(at_limit)}",
        f"{len(found.seconds)}",
    )


def _rate(limit: str) -> float:
    count, _, window = limit.removesuffix("s").partition("/")
    return int(count) / float(window)
