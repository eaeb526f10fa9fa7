"""Time that a call takes longer with the library, and with what is used in its place, than with httpx alone."""

from __future__ import annotations

import statistics
from contextlib import ExitStack
from itertools import product

from benchmarks.common.fresh import in_new_process
from benchmarks.common.loopback import loopback
from benchmarks.common.timing import Samples, added
from benchmarks.overhead import pieces
from benchmarks.overhead.world import measure
from benchmarks.result import Measure, Result, Table

_STOCK = "stock instrumentation"
_BARS = (("sampled", "stock sampled", 1.0), ("not sampled", "stock not sampled", 0.5))
_NO_SDK_BAR = 15.0
_OTHER_HOST_BAR = 2.0


def run() -> Result:
    """Measure every world in a process of its own, one after the other."""
    worlds: dict[str, Samples] = {}
    with ExitStack() as stack:
        port = stack.enter_context(loopback())
        for place, family, kind in product(("in process", "on a socket"), ("httpx", "httpx2"), ("sync", "async")):
            worlds[f"{family}, {kind}, {place}"] = in_new_process(
                measure, family, is_async=kind == "async", port=port if place == "on a socket" else None
            )
    calls, own = in_new_process(pieces.measure)
    return Result(
        measures=(*_bars(worlds), *_own_account(own)),
        tables=(_added(worlds), _ratios(worlds), _pieces(calls)),
        notes=(
            "Added: the median, over rounds, of what a call took beyond a bare one in the same round.",
            "In process, time is that of the thread that calls; on a socket, that of the clock on the wall.",
            f"stock: the {_STOCK} of OpenTelemetry for httpx, with the stable names of HTTP attributes.",
            "telemetry alone: the spans and measurements of a call of ours, written bare beside a bare call.",
            "nothing held: limits and duplicates off. other host: a request that is not to Insider.",
        ),
    )


def _bars(worlds: dict[str, Samples]) -> list[Measure]:
    """The bars hold in process, where the clock sees nothing but the code; a socket's numbers are in the tables."""
    found: list[Measure] = []
    for world, samples in worlds.items():
        if not world.endswith("in process"):
            continue
        for ours, stock, bar in _BARS:
            ratio = added(samples, ours, "bare") / added(samples, stock, "bare")
            found.append(Measure(f"{world}: added when {ours}, to that of the {_STOCK}", ratio, "", at_most=bar))
        no_sdk = added(samples, "no SDK", "bare") * 1e6
        found.append(Measure(f"{world}: added with the API alone", no_sdk, "µs", at_most=_NO_SDK_BAR))
    return found


def _own_account(own: Samples) -> list[Measure]:
    return [
        Measure(
            f"a request to another host, through the {way}", added(own, way, base) * 1e6, "µs", at_most=_OTHER_HOST_BAR
        )
        for way, base in pieces.OWN_ACCOUNT.items()
    ]


def _added(worlds: dict[str, Samples]) -> Table:
    names = list(dict.fromkeys(name for samples in worlds.values() for name in samples))
    rows: list[tuple[str, ...]] = []
    for world, samples in worlds.items():
        bare = f"{statistics.median(samples['bare']) * 1e6:.0f}"
        rest = (f"{added(samples, name, 'bare') * 1e6:+.0f}" if name in samples else "-" for name in names[1:])
        rows.append((world, bare, *rest))
    # One column for each world: there are more variants than worlds.
    columns = zip(("µs per call", *names), *rows, strict=True)
    header, *body = columns
    return Table("Time of a bare call, and what is added to it", header, tuple(body))


def _ratios(worlds: dict[str, Samples]) -> Table:
    pairs = (
        *((ours, stock) for ours, stock, _ in _BARS),
        ("no SDK", "stock no SDK"),
        ("sampled", "stock sampled, httpx-retries"),
        ("sampled", "stock sampled, stamina"),
        ("sampled, nothing held", "stock sampled"),
        ("telemetry alone, sampled", "stock sampled"),
        ("telemetry alone, not sampled", "stock not sampled"),
    )
    rows = tuple(
        (
            f"{ours} / {peer}",
            *(
                f"{added(samples, ours, 'bare') / added(samples, peer, 'bare'):.2f}" if peer in samples else "-"
                for samples in worlds.values()
            ),
        )
        for ours, peer in pairs
    )
    return Table("What is added, as a ratio", ("ours / theirs", *worlds), rows)


def _pieces(calls: Samples) -> Table:
    rows = tuple(
        (name, f"{added(calls, name, base) * 1e6:+.0f}" if name in calls else "no redis-server on this machine")
        for name, base in pieces.CALLS.items()
    )
    return Table("What the parts cost: httpx, sync, in process, sampled", ("call", "added, µs"), rows)
