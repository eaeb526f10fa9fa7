"""The gauges of the outbox say how full it is, are silent where that is not known, and never break an export."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader

from insider_otel.outbox.protocol import OutboxError, Stats
from insider_otel.outbox.watch import Watch, watch
from insider_otel.telemetry.metrics import observe_outbox, observe_utilization
from insider_otel.testing import FakeClock

JOBS = "insider.outbox.jobs"
AGE = "insider.outbox.oldest.age"


class Outbox:
    """An outbox as far as gauges look at it."""

    name = "fake"

    def __init__(self, answer: Stats | Exception) -> None:
        self.answer = answer
        self.asked = 0

    def stats(self) -> Stats:
        self.asked += 1
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


class Broker:
    """An outbox that does not know how full it is."""

    name = "celery"


class Pools:
    """Something else that is measured."""

    def utilization(self) -> Iterator[tuple[str, float]]:
        yield "user.upsert", 0.5


@pytest.fixture
def provider() -> Iterator[tuple[MeterProvider, InMemoryMetricReader]]:
    reader = InMemoryMetricReader()
    provider = MeterProvider([reader], shutdown_on_exit=False)
    yield provider, reader
    provider.shutdown()


def points(reader: InMemoryMetricReader) -> dict[str, dict[str | None, float]]:
    """What is exported: by metric and state, a value."""
    data = reader.get_metrics_data()
    found: dict[str, dict[str | None, float]] = {}
    for resource in data.resource_metrics if data else ():
        for metric in (metric for scope in resource.scope_metrics for metric in scope.metrics):
            for point in metric.data.data_points:
                state = (point.attributes or {}).get("insider.outbox.job.state")
                found.setdefault(metric.name, {})[None if state is None else str(state)] = point.value  # type: ignore[union-attr]
    return found


def observed(provider: MeterProvider, answer: Stats | Exception) -> Watch:
    outbox: Any = Outbox(answer)
    looking = Watch(outbox)
    observe_outbox(provider, looking)
    return looking


def test_they_say_how_many_wait_how_many_are_dead_and_how_long_the_oldest_has_waited(
    provider: tuple[MeterProvider, InMemoryMetricReader],
) -> None:
    looking = observed(provider[0], Stats(waiting=3, dead=1, oldest=time.time() - 100, leased=1))
    exported = points(provider[1])
    assert exported[JOBS] == {"waiting": 3, "dead": 1}
    assert 100 <= exported[AGE][None] < 160
    assert looking.can_tell


def test_an_empty_outbox_is_no_gap(provider: tuple[MeterProvider, InMemoryMetricReader]) -> None:
    looking = observed(provider[0], Stats(waiting=0, dead=0, oldest=None, leased=0))
    assert points(provider[1]) == {JOBS: {"waiting": 0, "dead": 0}, AGE: {None: 0.0}}
    del looking


def test_several_outboxes_of_a_process_are_told_together(
    provider: tuple[MeterProvider, InMemoryMetricReader],
) -> None:
    kept = [observed(provider[0], Stats(2, 1, time.time() - age, 0)) for age in (50, 500)]
    exported = points(provider[1])
    assert exported[JOBS] == {"waiting": 4, "dead": 2}
    assert 500 <= exported[AGE][None] < 560
    assert len(kept) == 2


@pytest.mark.parametrize("trouble", [OutboxError("the disk is full"), RuntimeError("a bug")])
def test_an_outbox_in_trouble_leaves_a_gap_and_the_other_metrics_are_exported(
    trouble: Exception, provider: tuple[MeterProvider, InMemoryMetricReader]
) -> None:
    pools = Pools()
    observe_utilization(provider[0], pools)
    looking = observed(provider[0], trouble)
    assert points(provider[1]) == {"insider.client.rate_limit.utilization": {None: 0.5}}
    del looking


def test_an_outbox_is_asked_once_a_second_however_many_look() -> None:
    outbox: Any = Outbox(Stats(1, 0, None, 0))
    clock = FakeClock()
    looking = Watch(outbox, clock)
    assert [looking.stats() for _ in range(5)] == [outbox.answer] * 5
    assert outbox.asked == 1
    clock.advance(1.0)
    looking.stats()
    assert outbox.asked == 2


def test_an_outbox_is_looked_at_by_one_watch_and_a_broker_cannot_tell() -> None:
    broker: Any = Broker()
    assert watch(broker) is watch(broker)
    assert not watch(broker).can_tell
