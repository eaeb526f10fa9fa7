"""The instruments; made once for all calls through one transport or instrumentor."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Iterable, Iterator
from typing import Protocol, TypeVar

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter, get_meter_provider

from insider_otel._version import __version__
from insider_otel.telemetry import attributes as names

SCOPE = "insider_otel"
"""Name of the instrumentation scope."""

# The boundaries that the semantic conventions advise for HTTP.
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# A call waits: each of its three spread retries up to five minutes, so that the longest take fifteen.
_CALL_BUCKETS = (*_REQUEST_BUCKETS, 15, 30, 60, 120, 180, 240, 300, 600, 900)


class Instruments:
    """Every instrument the library records to.

    Args:
        meter: The meter that makes them.
    """

    __slots__ = ("call_duration", "deliveries", "duplicates", "records", "request_duration", "retries", "wait_duration")

    def __init__(self, meter: Meter) -> None:
        self.request_duration = meter.create_histogram(
            names.METRIC_REQUEST_DURATION,
            unit="s",
            description="Duration of HTTP client requests.",
            explicit_bucket_boundaries_advisory=_REQUEST_BUCKETS,
        )
        self.call_duration = meter.create_histogram(
            names.METRIC_CALL_DURATION,
            unit="s",
            description="Duration of calls to Insider, with their retries and waits.",
            explicit_bucket_boundaries_advisory=_CALL_BUCKETS,
        )
        self.retries = meter.create_counter(
            names.METRIC_RETRIES,
            unit="{retry}",
            description="Attempts after the first of a call, by what made them necessary.",
        )
        self.wait_duration = meter.create_histogram(
            names.METRIC_WAIT_DURATION,
            unit="s",
            description="Time calls spent waiting between attempts or for a rate limit.",
            explicit_bucket_boundaries_advisory=_CALL_BUCKETS,
        )
        self.duplicates = meter.create_counter(
            names.METRIC_DUPLICATES,
            unit="{call}",
            description="Calls whose content Insider already had.",
        )
        self.deliveries = meter.create_counter(
            names.METRIC_DELIVERIES,
            unit="{delivery}",
            description="Deliveries of deferred calls, by how they ended.",
        )
        self.records = meter.create_counter(
            names.METRIC_RECORDS,
            unit="{record}",
            description="Records that Insider says it took, or did not take.",
        )


class Pools(Protocol):
    """What knows how full the pools are."""

    def utilization(self) -> Iterator[tuple[str, float]]:
        """The share of each pool's limit that is used: 0 to 1, and above 1 where a limit was lowered since."""
        ...


class Jobs(Protocol):
    """How full an outbox is."""

    @property
    def waiting(self) -> int:
        """Jobs to be sent."""
        ...

    @property
    def dead(self) -> int:
        """Jobs that were given up, and that nobody has dealt with."""
        ...

    @property
    def oldest(self) -> float | None:
        """When the oldest job that waits was deferred, in seconds since 1970."""
        ...


class Watch(Protocol):
    """What knows how full an outbox is."""

    def stats(self) -> Jobs | None:
        """How full it is; None if it cannot be asked."""
        ...


_T = TypeVar("_T")
# No dictionary: a provider is somebody else's object, which need not have a hash.
_Observed = list[tuple[weakref.ref[MeterProvider], weakref.WeakSet[_T]]]

_pools: _Observed[Pools] = []
_outboxes: _Observed[Watch] = []
_lock = threading.Lock()


def observe_utilization(meter_provider: MeterProvider | None, pools: Pools) -> None:
    """Let a gauge tell how full the pools are; once, however many transports share them.

    Args:
        meter_provider: Whose gauge; the global provider's by default.
        pools: What knows.
    """
    meter, known = _observed(_pools, meter_provider, pools)
    if meter is None:
        return

    def observe(options: CallbackOptions) -> Iterable[Observation]:
        fullest: dict[str, float] = {}
        for each in known:
            for pool, used in each.utilization():
                fullest[pool] = max(fullest.get(pool, 0.0), used)
        return [Observation(used, {names.POOL: pool}) for pool, used in fullest.items()]

    meter.create_observable_gauge(
        names.METRIC_UTILIZATION,
        callbacks=[observe],
        unit="1",
        description="Share of a pool's rate limit that is used in the window that ends now.",
    )


def observe_outbox(meter_provider: MeterProvider | None, outbox: Watch) -> None:
    """Let gauges tell how full an outbox is; once, however many transports share it.

    Every process that shares an outbox says the same of it, so these are gauges, of which the greatest counts, and no
    sums. One that cannot be asked says nothing: a gap is seen, a zero would be believed.

    Args:
        meter_provider: Whose gauges; the global provider's by default.
        outbox: What knows.
    """
    meter, known = _observed(_outboxes, meter_provider, outbox)
    if meter is None:
        return

    def all_stats() -> list[Jobs]:
        return [stats for outbox in known if (stats := outbox.stats()) is not None]

    def count(options: CallbackOptions) -> Iterable[Observation]:
        if stats := all_stats():
            yield Observation(sum(each.waiting for each in stats), {names.JOB_STATE: "waiting"})
            yield Observation(sum(each.dead for each in stats), {names.JOB_STATE: "dead"})

    def oldest(options: CallbackOptions) -> Iterable[Observation]:
        now = time.time()
        if stats := all_stats():
            yield Observation(max(0.0 if each.oldest is None else max(now - each.oldest, 0.0) for each in stats))

    meter.create_observable_gauge(
        names.METRIC_JOBS,
        callbacks=[count],
        unit="{job}",
        description="Deferred calls in the outbox: those that wait to be sent, and those that were given up.",
    )
    meter.create_observable_gauge(
        names.METRIC_OLDEST_AGE,
        callbacks=[oldest],
        unit="s",
        description="Time since the oldest deferred call that waits to be sent was deferred.",
    )


def _observed(
    observed: _Observed[_T], meter_provider: MeterProvider | None, one: _T
) -> tuple[Meter | None, weakref.WeakSet[_T]]:
    """The meter for gauges about what is observed, and what that is; no meter if they are there already.

    One gauge for all: a provider that is asked for the same one again drops the second callback without a word.
    """
    provider = get_meter_provider() if meter_provider is None else meter_provider
    with _lock:
        for reference, known in observed:
            if _maker(reference()) is _maker(provider):
                known.add(one)
                return None, known
        # The provider keeps the callback for good, and must not keep what is gone, such as a transport's own pools.
        known = weakref.WeakSet((one,))
        alive = [each for each in observed if each[0]() is not None]
        observed[:] = [*alive, (weakref.ref(provider), known)]
    return get_meter(SCOPE, __version__, provider), known


def _maker(provider: MeterProvider | None) -> MeterProvider | None:
    """What makes a provider's instruments: the API's stand-in has the global one make them, as soon as that is set."""
    return getattr(provider, "_real_meter_provider", None) or provider
