"""The instruments; made once for all calls through one transport or instrumentor."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Iterator
from typing import Protocol

from opentelemetry.metrics import CallbackOptions, Meter, MeterProvider, Observation, get_meter, get_meter_provider

from insider_otel._version import __version__
from insider_otel.telemetry import attributes as names

SCOPE = "insider_otel"
"""Name of the instrumentation scope."""

# The boundaries that the semantic conventions advise for HTTP.
_REQUEST_BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10)
# A call waits, and its retries are spread over five minutes: the last boundary is where that window ends.
_CALL_BUCKETS = (*_REQUEST_BUCKETS, 15, 30, 60, 120, 180, 240, 300)


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


_observed: weakref.WeakKeyDictionary[MeterProvider, weakref.WeakSet[Pools]] = weakref.WeakKeyDictionary()


def observe_utilization(meter_provider: MeterProvider | None, pools: Pools) -> None:
    """Let a gauge tell how full the pools are; once, however many transports share them.

    Args:
        meter_provider: Whose gauge; the global provider's by default.
        pools: What knows.
    """
    provider = get_meter_provider() if meter_provider is None else meter_provider
    known = _observed.get(provider)
    if known is not None:
        known.add(pools)
        return
    # The provider keeps the callback for good, and must not keep the pools of a transport that is gone.
    known = _observed.setdefault(provider, weakref.WeakSet())
    known.add(pools)

    def observe(options: CallbackOptions) -> Iterable[Observation]:
        fullest: dict[str, float] = {}
        for each in known:
            for pool, used in each.utilization():
                fullest[pool] = max(fullest.get(pool, 0.0), used)
        return [Observation(used, {names.POOL: pool}) for pool, used in fullest.items()]

    # One for all pools: a provider that is asked for the same gauge again drops the second callback without a word.
    get_meter(SCOPE, __version__, provider).create_observable_gauge(
        names.METRIC_UTILIZATION,
        callbacks=[observe],
        unit="1",
        description="Share of a pool's rate limit that is used in the window that ends now.",
    )
