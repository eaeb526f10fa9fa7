"""Limits and claims: how fast slots are given out, and how well Insider's limit is kept and used."""

from __future__ import annotations

import statistics
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchmarks.common.fresh import in_new_process
from benchmarks.common.timing import Samples
from benchmarks.limiter import judged, stores
from benchmarks.result import Measure, Result, Table
from tests.state.redis_server import MISSING, find_program, redis_server

_AT_ONCE = 4
_OURS = "insider-otel, "
_SHARE_BAR = 0.9
_MILLISECONDS = f"{judged.FASTEST * 1e3:g} to {judged.SLOWEST * 1e3:g} ms"


def run() -> Result:
    """Measure the stores one after the other, then have senders judged, a few at a time: they mostly wait."""
    samples = in_new_process(stores.measure)
    verdicts = _verdicts()
    ours = {name: verdict for name, verdict in verdicts.items() if name.startswith(_OURS)}
    measures = [Measure(f"429s suffered, {name}", verdict["refused"], "", at_most=0) for name, verdict in ours.items()]
    measures += [
        Measure(f"share of the limit used, {name}", verdict["share"], "", at_least=_SHARE_BAR)
        for name, verdict in ours.items()
    ]
    notes = [
        f"Reservations: one after the other, of a limit of {stores.LIMIT.count:,} in {stores.LIMIT.window:g} s.",
        f"Busy: {stores.BUSY:,} slots of the window are taken already.",
        f"Judged: {judged.THREADS} threads send as much as they may for {judged.SECONDS} s.",
        f"{judged.COUNT} in {judged.WINDOW} s are allowed; the way there takes {_MILLISECONDS}.",
        "Share used: the window, to the time from a request that was taken to the one that had its place.",
    ]
    if find_program() is None:
        notes.append(f"Redis is left out: {MISSING}.")
    return Result(tuple(measures), (_rates(samples), _judged(verdicts)), tuple(notes))


def _verdicts() -> dict[str, dict[str, float]]:
    names = list(judged.SENDERS)
    with ExitStack() as stack:
        url = None
        if find_program() is not None:
            url = stack.enter_context(redis_server(tcp=True)).url
            names += judged.REDIS_SENDERS
        pool = stack.enter_context(ThreadPoolExecutor(_AT_ONCE))
        runs = {name: pool.submit(in_new_process, judged.judge, name, url) for name in names}
        return {name: run.result() for name, run in runs.items()}


def _rates(samples: Samples) -> Table:
    rows = tuple(
        (name, f"{1 / middle:,.0f}", f"{middle * 1e6:.1f}")
        for name, middle in ((name, statistics.median(seconds)) for name, seconds in samples.items())
    )
    return Table("Reservations", ("store", "per second", "µs each"), rows)


def _judged(verdicts: dict[str, dict[str, float]]) -> Table:
    rows = tuple(
        (name, f"{verdict['refused']:.0f}", f"{verdict['share']:.1%}", f"{verdict['failed']:.0f}")
        for name, verdict in verdicts.items()
    )
    return Table("Judged by Insider's limit", ("sent with", "429s suffered", "share used", "calls failed"), rows)
