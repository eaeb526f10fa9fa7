"""The tail sampler keeps every trace in which something failed, though most failed calls end after it has judged."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.trace import SpanKind

from insider_otel import Fault, InsiderTransport, Outcome, Settings, call_of, defer
from insider_otel.testing import FakeClock, FakeInsider, deliver_outbox
from insider_otel.testing.samples import sample_request

from .exported import KEYS, NOBODY, UPSERT, USER
from .test_collector import PLAIN, SAMPLING
from .test_queries import ATTRIBUTES, VALUES

SAMPLER = SAMPLING["processors"]["tail_sampling"]
*TELLING, REST = SAMPLER["policies"]
DECISION_WAIT = float(SAMPLER["decision_wait"].removesuffix("s"))


class Collector(SpanProcessor):
    """Takes spans as the collector does, when they end, and judges their traces as its processor does.

    A trace is judged once, on the spans that came within ``decision_wait`` of its first one.

    Args:
        clock: The time of the calls.
    """

    def __init__(self, clock: FakeClock) -> None:
        self._clock = clock
        self._came: list[tuple[float, ReadableSpan]] = []

    def on_end(self, span: ReadableSpan) -> None:
        """Take a span."""
        self._came.append((self._clock(), span))

    def judged_on(self) -> list[ReadableSpan]:
        """The spans that the one trace of an operation was judged on."""
        (trace,) = {span.context.trace_id for _, span in self._came if "insider.operation" in (span.attributes or {})}
        came = [(time, span) for time, span in self._came if span.context.trace_id == trace]
        return [span for time, span in came if time <= came[0][0] + DECISION_WAIT]

    def keeps(self) -> bool:
        """Whether a policy that is not left to chance keeps the trace."""
        return any(
            (span.attributes or {}).get(policy["string_attribute"]["key"]) in policy["string_attribute"]["values"]
            for policy in TELLING
            for span in self.judged_on()
        )


class Shop:
    """A shop whose spans go to a collector; it makes one call.

    Attributes:
        collector: The collector.
        clock: The time.
        fake: Its Insider.
        client: Its client.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock, self.fake = FakeClock(), FakeInsider()
        self.collector = Collector(self.clock)
        provider = TracerProvider(shutdown_on_exit=False)
        provider.add_span_processor(self.collector)
        transport = InsiderTransport(
            self.fake.transport(),
            settings=Settings(**settings),
            tracer_provider=provider,
            clock=self.clock,
            sleep=self.clock.sleep,
            # The longest waits.
            random=lambda: 0.99,
        )
        self.client = httpx.Client(transport=transport, headers=KEYS)


@contextmanager
def shop(**settings: Any) -> Generator[Shop]:
    """Open a shop."""
    opened = Shop(**settings)
    with opened.client:
        yield opened


def outbox(folder: Path) -> dict[str, Any]:
    return {"outbox": f"sqlite:///{folder}/outbox.db", "credentials": lambda operation, account: KEYS}


@pytest.mark.parametrize("step", ["503", "500", "429", "401", "400", "reset", "timeout"])
def test_a_trace_with_a_failed_call_is_kept_though_the_call_takes_longer_than_the_judgement(step: str) -> None:
    with shop() as it:
        it.fake.script("*", step, repeat=True)
        began = it.clock()
        try:
            call = call_of(it.client.post(UPSERT, json=USER, timeout=0.1))
        except httpx.TransportError as error:
            call = call_of(error)
        assert call.outcome is Outcome.FAILED
        if step == "503":
            assert it.clock() - began > DECISION_WAIT, "this one is judged before the span of its call exists"
            assert not [
                span for span in it.collector.judged_on() if span.kind is SpanKind.INTERNAL and span.parent is None
            ]
        assert it.collector.keeps()


def test_a_trace_with_lost_records_is_kept() -> None:
    with shop() as it:
        call = call_of(it.client.post(UPSERT, json={"users": [*USER["users"], NOBODY]}))
        assert call.outcome is Outcome.PARTLY_FAILED
        assert it.collector.keeps()


@pytest.mark.parametrize("step", ["400", "401"])
def test_a_trace_of_a_deferred_call_is_kept_before_anybody_knows_that_its_delivery_fails(
    step: str, tmp_path: Path
) -> None:
    with shop(**outbox(tmp_path)) as it:
        assert defer(it.client, it.client.build_request("POST", UPSERT, json=USER)).status_code == 202
        it.clock.advance(DECISION_WAIT + 1)
        it.fake.script("user.upsert", step)
        assert deliver_outbox(it.client) == 1
        assert it.fake.requests
        assert not [span for span in it.collector.judged_on() if span.kind is SpanKind.CLIENT]
        assert it.collector.keeps()


def test_a_trace_of_a_call_that_is_deferred_because_insider_is_down_is_kept(tmp_path: Path) -> None:
    with shop(deadline=5.0, **outbox(tmp_path)) as it:
        it.fake.script("user.upsert", "503", repeat=True)
        assert it.client.post(UPSERT, json=USER).status_code == 202
        assert it.collector.keeps()


def test_a_trace_in_which_all_went_well_is_left_to_chance() -> None:
    with shop() as it:
        sample = sample_request("user.upsert")
        it.client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)
        assert not it.collector.keeps()
    assert REST["type"] == "probabilistic"
    assert REST["probabilistic"] == {"sampling_percentage": 1}


def test_the_policies_ask_for_values_that_occur_and_for_the_fault_of_anybody() -> None:
    for policy in TELLING:
        assert policy["type"] == "string_attribute"
        assert policy["string_attribute"]["key"] in ATTRIBUTES
        assert set(policy["string_attribute"]["values"]) <= VALUES[policy["string_attribute"]["key"]]
    asked = {policy["string_attribute"]["key"]: set(policy["string_attribute"]["values"]) for policy in TELLING}
    assert asked["insider.status.fault"] == {str(fault) for fault in Fault} - {str(Fault.NONE)}


def test_a_judgement_waits_for_the_first_attempt_of_a_call_that_waits_for_a_slot() -> None:
    """Without a deadline a call waits so long for a slot, before its first attempt."""
    timeout = httpx.Client().timeout.read
    assert timeout is not None
    assert Settings().retry_window + timeout <= DECISION_WAIT


def test_the_judgement_of_a_kept_trace_is_remembered_for_longer_than_its_spans() -> None:
    """A delivery comes hours later, and completes the trace."""
    assert SAMPLER["decision_cache"]["sampled_cache_size"] > SAMPLER["num_traces"]


def test_metrics_are_not_sampled() -> None:
    assert SAMPLING["service"]["pipelines"]["metrics"] == PLAIN["service"]["pipelines"]["metrics"]
    assert SAMPLING["service"]["pipelines"]["traces"]["processors"][2] == "tail_sampling"
