"""The benchmarks that measure, each run once in small: that they run at all, and the shape of what they find.

No time is looked at: what it was is for the benchmarks to say, on a machine that does nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF

from benchmarks import classify, limiter, overhead, throughput
from benchmarks.common.calls import REPLY, UPSERT, instant_transport
from benchmarks.common.fresh import in_new_process
from benchmarks.common.loopback import loopback
from benchmarks.common.timing import Samples
from benchmarks.limiter import judged, stores
from benchmarks.overhead import pieces, world
from benchmarks.overhead.telemetry import bare_telemetry
from benchmarks.result import Result
from benchmarks.throughput import memory, rates
from benchmarks.throughput.kinds import KINDS
from insider_otel import InsiderTransport
from insider_otel.api.responses import responses
from tests.state.redis_server import find_program, redis_server

FEW = 8
VERDICT = {"refused": 0.0, "share": 0.97, "failed": 0.0}


def here(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """In this process and not in a new one, which would not know how little is wanted."""
    return function(*args, **kwargs)


def check(result: Result) -> None:
    """A result can be printed: every row has a cell for each column, every number is one."""
    for table in result.tables:
        assert table.title
        assert table.rows
        assert all(len(row) == len(table.header) for row in table.rows), table
    for measure in result.measures:
        assert measure.value == measure.value, f"{measure.what} is no number"


def test_the_server_on_a_socket_answers_what_is_answered_in_process() -> None:
    """Several requests on one connection, too."""
    with loopback() as port, httpx.Client(base_url=f"http://127.0.0.1:{port}") as client:
        assert [client.post("/", content=b"x" * size).content for size in (0, 10, 100_000)] == [REPLY] * 3


def test_classify_looks_at_every_documented_reply(monkeypatch: pytest.MonkeyPatch) -> None:
    """And at long ones."""
    for size in ("_ROUNDS", "_COUNT", "_BIG_ROUNDS", "_BIG_COUNT"):
        monkeypatch.setattr(classify, size, 1)
    result = classify.run()
    check(result)
    others, documented = result.tables
    assert len(documented.rows) == sum(row.status is not None for row in responses())
    assert sum("1 MB" in row[0] for row in others.rows) == 6


def world_in_small(family: str, *, is_async: bool, port: int | None) -> Samples:
    """``world.measure`` with two rounds of one call: in a process of its own, for nobody closes the clients."""
    with pytest.MonkeyPatch.context() as sizes:
        sizes.setattr(world, "_IN_PROCESS", (2, 1, thread_time))
        sizes.setattr(world, "_ON_A_SOCKET", (2, 1, perf_counter))
        return world.measure(family, is_async=is_async, port=port)


def pieces_in_small() -> tuple[Samples, Samples]:
    """``pieces.measure`` in the same way."""
    with pytest.MonkeyPatch.context() as sizes:
        for size in ("_ROUNDS", "_COUNT", "_SHORT_ROUNDS", "_SHORT_COUNT"):
            sizes.setattr(pieces, size, 2)
        return pieces.measure()


@pytest.mark.parametrize(
    ("family", "is_async", "on_a_socket"),
    [("httpx", False, False), ("httpx2", True, False), ("httpx", True, True)],
)
def test_overhead_measures_all_variants_in_the_same_rounds(family: str, is_async: bool, on_a_socket: bool) -> None:
    """Each is answered, or the measuring stops."""
    with loopback() as port:
        samples = in_new_process(world_in_small, family, is_async=is_async, port=port if on_a_socket else None)
    assert {"bare", "sampled", "not sampled", "no SDK", "stock sampled", "other host"} <= samples.keys()
    assert ("stock sampled, httpx-retries" in samples) is (family == "httpx")
    assert {len(seconds) for seconds in samples.values()} == {2}


class Recording:
    """Where spans and measurements go, to be compared."""

    def __init__(self, **options: Any) -> None:
        self._spans, self._reader = InMemorySpanExporter(), InMemoryMetricReader()
        tracer_provider = TracerProvider(shutdown_on_exit=False, **options)
        tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        meter_provider = MeterProvider([self._reader], shutdown_on_exit=False)
        self.providers: dict[str, Any] = {"tracer_provider": tracer_provider, "meter_provider": meter_provider}

    def spans(self) -> list[Any]:
        spans = self._spans.get_finished_spans()
        names = {span.context.span_id: span.name for span in spans}
        return [
            (span.name, span.kind, span.attributes, span.parent and names[span.parent.span_id], span.status.status_code)
            for span in spans
        ]

    def points(self) -> list[Any]:
        data = self._reader.get_metrics_data()
        return [
            (metric.name, type(metric.data), point.attributes)
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if "utilization" not in metric.name
            for point in metric.data.data_points
        ]


def test_telemetry_alone_is_that_of_a_call() -> None:
    """The same spans, one under the other, with the same attributes, and the same measurements."""
    ours, bare, unsampled = Recording(), Recording(), Recording(sampler=ALWAYS_OFF)
    with httpx.Client(transport=InsiderTransport(instant_transport(httpx), **ours.providers)) as client:
        client.post(UPSERT.url, content=UPSERT.content, headers=UPSERT.headers)
    bare_telemetry(**bare.providers)()
    bare_telemetry(**unsampled.providers)()
    assert len(ours.spans()) == 2
    assert bare.spans() == ours.spans()
    assert unsampled.spans() == []
    assert bare.points() == unsampled.points() == ours.points()


def test_overhead_tells_bars_parts_and_ratios(monkeypatch: pytest.MonkeyPatch) -> None:
    """One world stands for all: they differ in nothing that the tables know of."""
    samples = in_new_process(world_in_small, "httpx", is_async=False, port=None)
    parts = in_new_process(pieces_in_small)
    assert parts[0].keys() <= {*pieces.CALLS, *pieces.CALLS.values()}

    def measured(function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return samples if function is world.measure else parts

    monkeypatch.setattr(overhead, "in_new_process", measured)
    result = overhead.run()
    check(result)
    assert len([measure for measure in result.measures if measure.at_most is not None]) == 4 * 3 + 2
    assert [row[0] for row in result.tables[-1].rows] == [*pieces.CALLS]


def test_throughput_and_memory_are_told_for_all_who_take_part(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a few calls in flight, and ten minutes that have a few seconds."""
    monkeypatch.setattr(throughput, "in_new_process", here)
    monkeypatch.setattr(throughput, "_ROUNDS", 1)
    monkeypatch.setattr(throughput, "_BODY", 1_000)
    for module in (memory, rates):
        monkeypatch.setattr(module, "IN_FLIGHT", FEW)
        monkeypatch.setattr(module, "THREADS", FEW)
    monkeypatch.setattr(rates, "CLIENTS", 2)
    monkeypatch.setattr(memory, "CALLS_PER_SECOND", 1)
    monkeypatch.setattr(memory, "SECONDS", 4 * FEW)
    result = throughput.run()
    check(result)
    speed, in_flight, growth = result.tables
    assert [row[1] for row in speed.rows] == [*KINDS, *KINDS]
    assert in_flight.header == ("in flight", *KINDS)
    assert len(growth.rows) == 2


def senders() -> list[str]:
    return [*judged.SENDERS, *(judged.REDIS_SENDERS if find_program() is not None else ())]


def sent_with(names: list[str], places: dict[str, str]) -> dict[str, int]:
    """What each of them gets from somebody who takes everything; in a process of its own, where some leave threads."""
    way = httpx.MockTransport(lambda request: httpx.Response(200, json={}))
    known = judged.SENDERS | judged.REDIS_SENDERS
    return {name: known[name](way, places)().status_code for name in names}


def test_every_limiter_sends(tmp_path: Path) -> None:
    """Through its own code."""
    with ExitStack() as stack:
        places = {"sqlite": f"sqlite:///{tmp_path / 'state.db'}"}
        if find_program() is not None:
            places["redis"] = stack.enter_context(redis_server(tcp=True)).url
        assert in_new_process(sent_with, senders(), places) == dict.fromkeys(senders(), 200)


def test_who_holds_no_limit_is_told_too_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """The judge judges: a few requests in a second are allowed, and many more are made."""
    monkeypatch.setattr(judged, "COUNT", 2)
    monkeypatch.setattr(judged, "WINDOW", 1)
    monkeypatch.setattr(judged, "SECONDS", 3)
    verdict = judged.judge("nothing", None)
    assert verdict["refused"] > 0
    assert verdict["failed"] >= verdict["refused"]
    assert verdict["share"] > 0


def stores_in_small() -> Samples:
    """``stores.measure`` with one reservation, and few in a busy window."""
    with pytest.MonkeyPatch.context() as sizes:
        for size in ("_ROUNDS", "_COUNT", "_SHARED_COUNT"):
            sizes.setattr(stores, size, 1)
        sizes.setattr(stores, "BUSY", FEW)
        return stores.measure()


def test_the_limiters_bars_are_those_of_this_library_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 429 more, or a tenth of the limit left unused, and it fails."""
    reservations = in_new_process(stores_in_small)
    verdicts = dict.fromkeys(senders(), VERDICT)

    def measured(function: Callable[..., Any], *args: Any) -> Any:
        return verdicts[args[0]] if function is judged.judge else reservations

    monkeypatch.setattr(limiter, "in_new_process", measured)
    result = limiter.run()
    check(result)
    assert all(measure.passes for measure in result.measures)
    assert all("insider-otel" in measure.what for measure in result.measures)
    assert [row[0] for row in result.tables[1].rows] == senders()

    verdicts["pyrate-limiter, memory"] = {**VERDICT, "refused": 9.0}
    assert all(measure.passes for measure in limiter.run().measures)
    verdicts["insider-otel, memory"] = {"refused": 1.0, "share": 0.89, "failed": 0.0}
    assert [measure.what for measure in limiter.run().measures if not measure.passes] == [
        "429s suffered, insider-otel, memory",
        "share of the limit used, insider-otel, memory",
    ]
