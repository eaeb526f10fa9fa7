"""Scenarios played for real: a fake Insider on a socket, an instrumented client, and the spans it leaves."""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from urllib.parse import quote

import httpx
from opentelemetry.context import Context
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricsData
from opentelemetry.sdk.resources import SERVICE_NAME, OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Status, StatusCode, format_trace_id

from insider_otel.api.classify import classify
from insider_otel.api.verdict import Category
from insider_otel.cli.demo.scenarios import CREDENTIALS, Scenario
from insider_otel.cli.output import UsageError
from insider_otel.http.record import Call, call_of
from insider_otel.http.scope import request_scope
from insider_otel.http.transport import InsiderTransport
from insider_otel.policy.settings import Settings
from insider_otel.policy.steps import Outcome
from insider_otel.telemetry import attributes as names
from insider_otel.testing._wire import Plan, Request
from insider_otel.testing.fake import FakeInsider
from insider_otel.testing.outbox import deliver_outbox
from insider_otel.testing.samples import SampleRequest, sample_request
from insider_otel.testing.server import ServedFake

_SERVICE = "insider-otel-demo"
# Jitter without chance: a quick retry comes after 0.3 x 1 s, so that its wait can be seen and every run looks alike.
_CHANCE = 0.3
# Seconds. No first delivery is due later than the retry window.
_SOON = 300.0
_NO_LIMITS = SpanLimits(
    max_attributes=SpanLimits.UNSET,
    max_events=SpanLimits.UNSET,
    max_links=SpanLimits.UNSET,
    max_span_attributes=SpanLimits.UNSET,
    max_event_attributes=SpanLimits.UNSET,
    max_link_attributes=SpanLimits.UNSET,
    max_attribute_length=SpanLimits.UNSET,
    max_span_attribute_length=SpanLimits.UNSET,
)


@dataclass(frozen=True, slots=True)
class Played:
    """A scenario that was played.

    Attributes:
        scenario: The scenario.
        bare: All that a client without insider-otel learns: a status, or an exception in its place.
        call: How its call ended.
        trace_id: Its trace id, as Jaeger and Tempo write it.
        spans: Its trace, in the order in which the spans ended.
        said: What Insider said in each answer, without what is secret or personal, by the answer's Cloudflare ray.
    """

    scenario: Scenario
    bare: str
    call: Call
    trace_id: str
    spans: tuple[ReadableSpan, ...]
    said: Mapping[str, str]

    @property
    def attempts(self) -> list[ReadableSpan]:
        """The spans of its HTTP requests, the first one first: the only one that a client alone would have made."""
        return _attempts(self.spans)

    def words_to(self, attempt: ReadableSpan) -> str:
        """What Insider said to an attempt; empty if it did not answer, or said nothing.

        Args:
            attempt: The attempt's span.
        """
        match (attempt.attributes or {}).get(names.HTTP_RESPONSE_CF_RAY):
            case (str() as ray,):
                return self.said.get(ray, "")
            case _:
                return ""


def _attempts(spans: Iterable[ReadableSpan]) -> list[ReadableSpan]:
    return [span for span in spans if span.kind is SpanKind.CLIENT]


class Recorder:
    """Spans and metrics of the demo, in memory; no global provider is touched.

    The resource is of the service ``insider-otel-demo``, unless the environment names another. Every span is recorded,
    and whole, whatever sampler and limits the environment names.
    """

    def __init__(self) -> None:
        resource = Resource.create({SERVICE_NAME: _SERVICE}).merge(OTELResourceDetector().detect())
        self.service = str(resource.attributes[SERVICE_NAME])
        self._spans = InMemorySpanExporter()
        self._metrics = InMemoryMetricReader()
        self.tracer_provider = TracerProvider(
            sampler=ALWAYS_ON, resource=resource, shutdown_on_exit=False, span_limits=_NO_LIMITS
        )
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._spans))
        self.meter_provider = MeterProvider([self._metrics], resource=resource, shutdown_on_exit=False)

    def take_spans(self) -> tuple[ReadableSpan, ...]:
        """The spans that ended since the last time."""
        spans = self._spans.get_finished_spans()
        self._spans.clear()
        return spans

    def metrics(self) -> MetricsData | None:
        """The metrics so far; None if there are none."""
        return self._metrics.get_metrics_data()


class _TalkativeFake(FakeInsider):
    """A fake that keeps the words of its answers, as far as they may be shown: a trace has none of them.

    Attributes:
        said: The words of each answer since this was emptied, by the answer's ray.
    """

    def __init__(self) -> None:
        super().__init__(credentials=CREDENTIALS)
        self.said: dict[str, str] = {}

    def handle(self, request: Request) -> Plan:
        """Decide what happens to a request, and keep the words of the answer."""
        plan = super().handle(request)
        self.said[plan.reply.headers["cf-ray"]] = classify(plan.reply.status, plan.reply.body).message
        return plan


class Stage:
    """A fake Insider on a socket, and a shop with an instrumented client.

    Args:
        served: Where the fake is served.
        fake: The fake.
        open_shop: Opens the shop's client, which has forgotten the limits and mails of the one before.
        passer_by: A client without insider-otel, for what others do.
        recorder: What records the client's telemetry.
    """

    def __init__(
        self,
        served: ServedFake,
        fake: _TalkativeFake,
        open_shop: Callable[[Scenario], httpx.Client],
        passer_by: httpx.Client,
        recorder: Recorder,
    ) -> None:
        self.url = served.url
        self._fake = fake
        self._open_shop = open_shop
        self._passer_by = passer_by
        self._recorder = recorder
        self._tracer = recorder.tracer_provider.get_tracer("insider_otel.cli.demo")

    def play(self, scenarios: Iterable[Scenario]) -> Iterator[Played]:
        """Play scenarios, each on a fake that has forgotten the one before.

        Args:
            scenarios: The scenarios.

        Yields:
            Each, when it is over.

        Raises:
            UsageError: The environment keeps the calls from being traced.
        """
        for scenario in scenarios:
            self._fake.reset()
            with self._open_shop(scenario) as shop:
                yield self._play(scenario, shop)

    def _play(self, scenario: Scenario, shop: httpx.Client) -> Played:
        for client, operations in ((self._passer_by, scenario.before), (shop, scenario.just_now)):
            for operation in operations:
                self._send(client, sample_request(operation, base_url=self.url), scenario.timeout)
        self._recorder.take_spans()
        bare = self._try_without(scenario) if scenario.just_now else None
        self._fake.script(scenario.operation, *scenario.script)
        self._fake.said.clear()
        call, trace_id = self._serve_page(scenario, shop)
        if scenario.outbox:
            deliver_outbox(shop, ahead=_SOON)
        spans = self._spans_of(trace_id)
        if not any(names.OPERATION in (span.attributes or {}) for span in spans):
            raise UsageError(
                "OTEL_PYTHON_HTTPX_EXCLUDED_URLS or OTEL_PYTHON_EXCLUDED_URLS leaves the demo's calls out of the "
                "traces; unset it for the demo"
            )
        bare = bare or _bare_status(_attempts(spans)[0])
        return Played(scenario, bare, call, trace_id, spans, dict(self._fake.said))

    def _spans_of(self, trace_id: str) -> tuple[ReadableSpan, ...]:
        # The outbox's worker has a trace of its own, which tells nothing of the call.
        spans = self._recorder.take_spans()
        return tuple(span for span in spans if span.context and format_trace_id(span.context.trace_id) == trace_id)

    def _try_without(self, scenario: Scenario) -> str:
        """What a client without insider-otel gets at this moment."""
        sample = sample_request(scenario.operation, scenario.body, base_url=self.url)
        return _status_text(self._send(self._passer_by, sample, scenario.timeout).status_code)

    def _serve_page(self, scenario: Scenario, shop: httpx.Client) -> tuple[Call, str]:
        """What the shop does when somebody opens the page: a SERVER span, a scope, and the call to Insider."""
        method, path = scenario.route.split()
        page = {names.HTTP_REQUEST_METHOD: method, "http.route": path, "url.path": path, "url.scheme": "https"}
        sample = sample_request(scenario.operation, scenario.body, base_url=self.url)
        with (
            self._tracer.start_as_current_span(scenario.route, Context(), SpanKind.SERVER, page) as span,
            request_scope(scenario.deadline) as scope,
        ):
            try:
                call = call_of(self._send(shop, sample, scenario.timeout))
            except httpx.TransportError as error:
                call = call_of(error)
            status = _status_of_page(call)
            span.set_attribute(names.HTTP_RESPONSE_STATUS_CODE, status)
            span.set_attributes(scope.summary())
            if status >= 500:
                span.set_status(Status(StatusCode.ERROR))
        return call, format_trace_id(span.get_span_context().trace_id)

    def _send(self, client: httpx.Client, sample: SampleRequest, timeout: float) -> httpx.Response:
        return client.request(
            sample.method, sample.url, headers=sample.headers, content=sample.content, timeout=timeout
        )


def _bare_status(attempt: ReadableSpan) -> str:
    found = attempt.attributes or {}
    status = found.get(names.HTTP_RESPONSE_STATUS_CODE)
    return _status_text(status) if isinstance(status, int) else str(found[names.ERROR_TYPE])


def _status_text(status: int) -> str:
    return f"{status} {httpx.codes.get_reason_phrase(status)}".rstrip()


_PAGES = {Category.VERIFICATION: 422, Category.CONFLICT: 409}


def _status_of_page(call: Call) -> int:
    """What the shop answers its own visitor: it goes by the verdict, so that a typo is no error page."""
    return _PAGES.get(call.verdict.category, 502) if call.outcome is Outcome.FAILED else 200


@contextmanager
def stage(recorder: Recorder) -> Generator[Stage]:
    """Set the stage for the length of a ``with`` block.

    Args:
        recorder: What records the telemetry of the shop's client.

    Yields:
        The stage.

    Raises:
        OSError: The fake cannot be served.
    """
    fake = _TalkativeFake()
    with (
        fake.serve() as served,
        httpx.Client(trust_env=False) as passer_by,
        TemporaryDirectory(prefix="insider-otel-demo-") as directory,
    ):

        def open_shop(scenario: Scenario) -> httpx.Client:
            transport = InsiderTransport(
                httpx.HTTPTransport(),
                # In full, so that no variable of the environment changes the play.
                settings=Settings(
                    hosts=served.hosts,
                    outbox=f"sqlite:///{quote(directory)}/outbox.db" if scenario.outbox else None,
                    credentials=lambda operation, account: sample_request(operation.name).headers,
                ),
                tracer_provider=recorder.tracer_provider,
                meter_provider=recorder.meter_provider,
                # With a clock of its own it shares no limits, mails and retry budget with others in the process.
                clock=time.monotonic,
                random=lambda: _CHANCE,
            )
            return httpx.Client(transport=transport, trust_env=False)

        yield Stage(served, fake, open_shop, passer_by, recorder)
