"""What goes wrong with the obvious way to do it: each test fails on the naive way, which its docstring names."""

from __future__ import annotations

import asyncio
import contextvars
import itertools
import json
import logging
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, StatusCode, TraceFlags, TraceState

from insider_otel import InsiderInstrumentor, Outcome, Settings, call_of, request_scope
from insider_otel.testing import FakeClock

from .conftest import Flavour, OpenSpans, Rig, event_names
from .stock import stock_of, stock_transport
from .test_calls import OK, UPSERT
from .wire import Reply, Wire

PATH = "/api/user/v1/upsert"
TOO_MANY = (429, {"error": "rejected: too many requests"})
UNLISTED = "https://unification.useinsider.com/api/user/v9/new"


def wired(server: Wire, **more: Any) -> Settings:
    return Settings(hosts={server.address: "unification.useinsider.com"}, quick_delay=0.0, **more)


def requesting(flavour: Flavour, method: str, url: str, transport: Any, **options: Any) -> Any:
    return flavour.using(lambda client: client.request(method, url, **options), transport=transport)


def recording(rig: Rig, *replies: Any, **wrap: Any) -> tuple[list[Any], Any]:
    """Our transport, and a list of the requests that it sends below."""
    seen: list[Any] = []
    queue = list(replies)

    def handle(request: Any) -> Any:
        seen.append(request)
        status, body = queue.pop(0) if len(queue) > 1 else queue[0]
        return rig.flavour.module.Response(status, json=body)

    return seen, rig.wrap(rig.flavour.answering(handle), **wrap)


def traceparents(requests: list[Any]) -> list[list[str]]:
    return [request.headers["traceparent"].split("-")[1:3] for request in requests]


def ids(spans: list[Any]) -> list[list[str]]:
    return [[f"{span.context.trace_id:032x}", f"{span.context.span_id:016x}"] for span in spans]


# -- the stock instrumentation -----------------------------------------------------------------------------------------


@pytest.fixture
def stock(flavour: Flavour) -> Iterator[Any]:
    """The stock instrumentor of a flavour; off again afterwards, and ours too."""
    instrumentor = stock_of(flavour)
    yield instrumentor
    for each in (instrumentor, InsiderInstrumentor()):
        if each.is_instrumented_by_opentelemetry:
            each.uninstrument()


OLD_NAMES = """
import json, sys
import httpx, httpx2
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from insider_otel import InsiderInstrumentor, Settings
from insider_otel.testing import CapturedSpans

spans = CapturedSpans()
address = sys.argv[1]
HTTPXClientInstrumentor().instrument(tracer_provider=spans.tracer_provider)
InsiderInstrumentor().instrument(
    tracer_provider=spans.tracer_provider, settings=Settings(hosts={address: "unification.useinsider.com"})
)
for module in (httpx, httpx2):
    module.post(f"http://{address}/api/user/v1/upsert", json={})
httpx.post(f"http://{address.replace('127.0.0.1', 'localhost')}/other", json={})
print(json.dumps([sorted(span.attributes) for span in spans.attempts()]))
"""


def test_our_attributes_have_their_stable_names_though_nobody_opted_in(server: Wire) -> None:
    """The stock spans carry the old names unless a variable says otherwise, so an alert on them stays silent."""
    environ = {name: value for name, value in os.environ.items() if name != "OTEL_SEMCONV_STABILITY_OPT_IN"}
    ran = subprocess.run(
        [sys.executable, "-c", OLD_NAMES, server.address],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    httpx_ours, httpx2_ours, httpx_stock = json.loads(ran.stdout)
    assert "http.status_code" in httpx_stock
    assert "http.response.status_code" not in httpx_stock
    for stable in (httpx_ours, httpx2_ours):
        assert {"http.response.status_code", "server.address", "url.full", "insider.status.category"} <= set(stable)
        assert "http.status_code" not in stable


WAYS = ("instrument", "instrument_client", "stock transport")
COMBINATIONS = [ways for count in range(len(WAYS) + 1) for ways in itertools.combinations(WAYS, count)]


@pytest.mark.parametrize("ways", COMBINATIONS, ids=lambda ways: " + ".join(ways) or "none")
def test_an_attempt_is_measured_once_however_the_stock_instrumentation_is_put_on(
    rig: Rig, server: Wire, stock: Any, ways: tuple[str, ...]
) -> None:
    """Two of its ways at once make two nested CLIENT spans, and its histogram counts each request twice."""
    flavour = rig.flavour
    providers = {"tracer_provider": rig.spans.tracer_provider, "meter_provider": rig.meter_provider}
    InsiderInstrumentor().instrument(settings=wired(server), **providers)
    server.script = [Reply(status=503), Reply()]
    inner = flavour.transport_class(verify=False)
    if "stock transport" in ways:
        inner = stock_transport(flavour)(inner, **providers)
    if "instrument" in ways:
        stock.instrument(**providers)

    def use(client: Any) -> Any:
        if "instrument_client" in ways:
            stock.instrument_client(client, **providers)
        return client.post(server.url + PATH, json={})

    flavour.using(use, transport=inner)
    assert sum(point.count for point in rig.points("http.client.request.duration")) == 2
    assert traceparents(server.seen) == ids(rig.spans.attempts())


def test_even_wrapped_from_outside_each_attempt_sends_a_trace_header_of_its_own(
    rig: Rig, server: Wire, stock: Any
) -> None:
    """One span above a transport that retries is one trace header on three requests."""
    server.script = [Reply(status=503), Reply(status=503), Reply()]

    def use(client: Any) -> Any:
        stock.instrument_client(client, tracer_provider=rig.spans.tracer_provider)
        return client.post(server.url + PATH, json={})

    rig.flavour.using(use, transport=rig.wrap(rig.flavour.transport_class(verify=False), settings=wired(server)))
    attempts = rig.spans.attempts()
    (call,) = rig.spans.calls()
    assert call.parent is None
    assert traceparents(server.seen) == ids(attempts)
    assert len(attempts) == 3


def test_a_hook_of_the_stock_instrumentation_that_raises_breaks_no_insider_call(
    rig: Rig, server: Wire, stock: Any
) -> None:
    """Such a hook kills the request that it was to describe."""

    def hook(*args: Any) -> None:
        raise RuntimeError("a bug in a hook")

    async def async_hook(*args: Any) -> None:
        raise RuntimeError("a bug in a hook")

    stock.instrument(
        tracer_provider=rig.spans.tracer_provider,
        request_hook=hook,
        response_hook=hook,
        async_request_hook=async_hook,
        async_response_hook=async_hook,
    )
    InsiderInstrumentor().instrument(settings=wired(server), tracer_provider=rig.spans.tracer_provider)
    inner = {"verify": False}
    assert rig.flavour.post(server.url + PATH, json={}, client=inner).status_code == 200
    with pytest.raises(RuntimeError, match="a bug in a hook"):
        rig.flavour.post(f"http://localhost:{server.port}/other", json={}, client=inner)


# -- one call is one trace ---------------------------------------------------------------------------------------------


def test_a_call_without_a_parent_is_one_trace_with_numbered_attempts_and_visible_waits(rig: Rig) -> None:
    """Retries without a span above them are as many traces, none of which says that it was a retry."""
    seen, transport = recording(rig, (503, None), (503, None), OK)
    rig.flavour.post(UPSERT, transport=transport, json={})
    assert len({span.context.trace_id for span in rig.spans.all()}) == 1
    resends = [span.attributes.get("http.request.resend_count") for span in rig.spans.attempts()]
    assert resends == [None, 1, 2]
    assert [span.attributes["insider.wait.ms"] for span in rig.spans.waits()] == [250, 150_000]
    assert traceparents(seen) == ids(rig.spans.attempts())


def test_call_and_attempt_last_until_the_body_has_been_read(rig: Rig, open_spans: OpenSpans) -> None:
    """A span that ends at the headers misses the time of the body, and the errors in it."""
    open_at_body: list[list[str]] = []

    async def slow_async() -> None:
        slow()

    def slow() -> None:
        open_at_body.append(open_spans.names())
        rig.clock.advance(3.0)

    body = rig.flavour.body(b"{}", then=slow_async if rig.flavour.is_async else slow)
    transport = rig.wrap(rig.flavour.answering(lambda request: rig.flavour.module.Response(200, stream=body)))
    rig.flavour.post(UPSERT, transport=transport, json={})
    assert open_at_body == [["insider user.upsert", "POST /api/user/v1/upsert"]]
    for name in ("http.client.request.duration", "insider.client.call.duration"):
        assert [point.sum for point in rig.points(name)] == [3.0]


def test_a_long_body_that_breaks_off_gives_an_exception_that_knows_its_call(rig: Rig, server: Wire) -> None:
    """An error in the body comes after the response, from somewhere that nobody looks at any more."""
    server.script = [Reply(body=b"[" + b"1," * 400_000, claim=5_000_000)]
    transport = rig.wrap(rig.flavour.transport_class(verify=False), settings=wired(server))
    with pytest.raises(rig.flavour.module.TransportError) as raised:
        rig.flavour.post(server.url + PATH, transport=transport, json={})
    assert call_of(raised.value).outcome is Outcome.FAILED


def test_an_answer_that_was_read_below_us_ends_its_call_at_once_however_long(rig: Rig, open_spans: OpenSpans) -> None:
    """A cache, or a transport that makes its answers up, hands over a response that nobody will read or close again."""
    body = b"[" + b"1," * 200_000 + b"1]"
    transport = rig.wrap(rig.flavour.answering(lambda request: rig.flavour.module.Response(200, content=body)))
    with request_scope() as scope:
        response = rig.flavour.post(UPSERT, transport=transport, json={})
    assert open_spans.names() == []
    assert scope.summary()["insider.request.calls"] == 1
    assert response.content == body


# -- attributes --------------------------------------------------------------------------------------------------------


def test_the_server_is_a_name_and_a_port_and_the_peer_is_an_address(rig: Rig, server: Wire) -> None:
    """The stock span has the host's name as the peer's address."""
    settings = Settings(hosts={f"localhost:{server.port}": "unification.useinsider.com"})
    inner = rig.flavour.transport_class(verify=False)
    rig.flavour.post(f"http://localhost:{server.port}{PATH}", transport=rig.wrap(inner, settings=settings), json={})
    (attempt,) = rig.spans.attempts()
    assert (attempt.attributes["server.address"], attempt.attributes["server.port"]) == ("localhost", server.port)
    assert attempt.attributes["network.peer.address"] == "127.0.0.1"
    assert attempt.attributes["network.peer.port"] == server.port


def test_the_port_is_there_though_the_url_does_not_say_it(rig: Rig) -> None:
    """The conventions require it; the stock span leaves the default port out."""
    rig.flavour.post(UPSERT, transport=rig.answers(OK), json={})
    (attempt,) = rig.spans.attempts()
    assert attempt.attributes["server.port"] == 443


def test_the_type_of_an_error_is_its_full_name(rig: Rig) -> None:
    """A bare ``ReadTimeout`` is a different class in every library."""
    with pytest.raises(rig.flavour.module.ConnectError):
        rig.flavour.post(
            UPSERT, transport=rig.answers("ConnectError", settings=Settings(quick_retries=0, spread_retries=0)), json={}
        )
    (attempt,) = rig.spans.attempts()
    assert attempt.attributes["error.type"] == f"{rig.flavour.module.__name__}.ConnectError"


def test_names_stay_few_whatever_is_in_the_path(rig: Rig) -> None:
    """A span name with an id in it is a name for each id; a bare method is one for everything."""
    transport = rig.answers((200, {}))
    for campaign in ("4711", "4712", "jane@example.com"):
        url = f"https://web-push.api.useinsider.com/v1/single/{campaign}"
        requesting(rig.flavour, "POST", url, transport)
    requesting(rig.flavour, "GET", UNLISTED + "/jane@example.com", transport)
    assert [(span.name, span.attributes.get("url.template")) for span in rig.spans.attempts()] == [
        *[("POST /v1/single/{campaign_id}", "/v1/single/{campaign_id}")] * 3,
        ("GET", None),
    ]
    rig.spans.assert_no_secrets("jane@example.com")


@pytest.mark.parametrize(
    ("body", "category"),
    [
        ({"errors": [{"message": "invalid code"}]}, "verification"),
        ({"error": "unauthorized"}, "authentication"),
    ],
)
def test_the_category_tells_a_typo_from_a_wrong_key_where_the_status_cannot(rig: Rig, body: Any, category: str) -> None:
    """Every 4xx is an error on a CLIENT span: an alert on it rings for each shopper who mistypes a code."""
    rig.flavour.post("https://verify.useinsider.com/v1/check", transport=rig.answers((401, body)), json={})
    (call,), (attempt,) = rig.spans.calls(), rig.spans.attempts()
    assert attempt.attributes["error.type"] == "401"
    assert attempt.status.status_code is StatusCode.ERROR
    for span in (call, attempt):
        assert span.attributes["insider.status.category"] == category
    assert call.attributes["error.type"] == category


# -- nothing secret ----------------------------------------------------------------------------------------------------


def test_keys_and_addresses_in_a_url_are_redacted_and_blank_parameters_stay(rig: Rig) -> None:
    """A list of four known keys lets ``email=`` and ``api_key=`` pass, and loses ``a=`` when it finds one."""
    url = (
        "https://jane:hunter2-word@unification.useinsider.com/api/user/v1/upsert"
        "?email=jane@example.com&api_key=k-4711&a=&limit=5&SIG=abc"
    )
    rig.flavour.post(url, transport=rig.answers(OK), json={})
    (attempt,) = rig.spans.attempts()
    assert attempt.attributes["url.full"] == (
        "https://REDACTED:REDACTED@unification.useinsider.com/api/user/v1/upsert"
        "?email=REDACTED&api_key=REDACTED&a=REDACTED&limit=5&SIG=REDACTED"
    )
    rig.spans.assert_no_secrets("jane", "hunter2-word", "k-4711", "SIG=abc")


def test_an_exceptions_text_is_in_no_span_of_ours_though_the_apps_own_span_records_it(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    """httpx puts the URL in its exceptions, and a span that an exception leaves records its text by default.

    What the app's own span records is the app's: it opens that span with ``record_exception=False`` if it minds.
    """
    transport = rig.answers("ReadTimeout")
    tracer = rig.spans.tracer_provider.get_tracer("shop")
    with (
        caplog.at_level(logging.DEBUG),
        pytest.raises(rig.flavour.module.ReadTimeout, match="token=secret"),
        tracer.start_as_current_span("POST /signup"),
    ):
        rig.flavour.post(UPSERT + "?token=secret", transport=transport, json={})
    (apps,) = [span for span in rig.spans.all() if span.instrumentation_scope.name == "shop"]
    assert "token=secret" in apps.status.description
    ours = [span for span in rig.spans.all() if span.instrumentation_scope.name == "insider_otel"]
    assert len(ours) == 1 + 5 + 4
    for span in ours:
        assert "secret" not in span.to_json()
        assert span.status.description is None
        assert "exception" not in event_names(span)
    assert not [record for record in caplog.records if record.name.startswith(("insider_otel", "opentelemetry"))]


# -- limits of the SDK -------------------------------------------------------------------------------------------------


def test_buckets_reach_as_far_as_calls_and_waits_do(rig: Rig) -> None:
    """The buckets of HTTP end at 10 s: all that waited would be beyond. Here each spread retry waits five minutes."""
    rig.random = lambda: 0.99
    rig.flavour.post(UPSERT, transport=rig.answers(503), json={})
    for name, seconds in (("insider.client.call.duration", 891), ("insider.client.wait.duration", 297)):
        points = rig.points(name)
        assert max(point.max for point in points) >= seconds
        for point in points:
            assert point.bucket_counts[-1] == 0
            assert {120, 180, 300} <= set(point.explicit_bounds)


@pytest.mark.parametrize(
    "replies",
    [[503], [TOO_MANY], [503, 503, 503, 503, TOO_MANY], ["ReadTimeout"]],
    ids=["outage", "rate limit", "outage, then rate limit", "silence"],
)
def test_a_call_has_fewer_events_than_a_span_holds(rig: Rig, replies: list[Any]) -> None:
    """The SDK keeps 128 and drops the oldest without a word."""
    transport = rig.answers(*replies, settings=Settings(quick_retries=20, spread_retries=20))
    try:
        rig.flavour.post(UPSERT, transport=transport, json={})
    except rig.flavour.module.ReadTimeout:
        assert replies == ["ReadTimeout"]
    (call,) = rig.spans.calls()
    assert call.attributes["insider.attempts"] > 20
    assert 20 < len(call.events) <= 128
    assert call.dropped_events == 0
    assert event_names(call)[-1] == "insider.retry.stopped"


# -- whose parent ------------------------------------------------------------------------------------------------------


def remote(sampled: bool) -> Any:
    """A context that came with a request: a span of another process."""
    context = SpanContext(
        trace_id=0x0AF7651916CD43DD8448EB211C80319C,
        span_id=0xB7AD6B7169203331,
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT),
        trace_state=TraceState([("shop", "blue")]),
    )
    return trace.use_span(NonRecordingSpan(context))


@pytest.mark.parametrize("sampled", [True, False], ids=["sampled", "not sampled"])
def test_what_a_remote_parent_decided_about_sampling_is_passed_on(rig: Rig, sampled: bool) -> None:
    """A header written by hand as ``-01`` samples in Insider's next hop what was sampled out here; policies go on."""
    exporter = InMemorySpanExporter()
    provider = TracerProvider(sampler=ParentBased(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    seen, transport = recording(rig, (503, None), OK, tracer_provider=provider)
    with remote(sampled):
        response = rig.flavour.post(UPSERT, transport=transport, json={})
    assert call_of(response).attempts == 2
    for request in seen:
        _, trace_id, _, flags = request.headers["traceparent"].split("-")
        assert trace_id == "0af7651916cd43dd8448eb211c80319c"
        assert bool(int(flags, 16) & TraceFlags.SAMPLED) is sampled
        assert request.headers["tracestate"] == "shop=blue"
    assert len(set(map(tuple, traceparents(seen)))) == 2
    finished = exporter.get_finished_spans()
    assert len(finished) == (4 if sampled else 0)
    above = [span.parent for span in finished if span.name == "insider user.upsert"]
    assert [f"{parent.span_id:x}" for parent in above if parent] == ["b7ad6b7169203331"] * sampled
    # Metrics are not sampled.
    assert [point.count for point in rig.points("insider.client.call.duration")] == [1]


class Threads:
    """A sync client of one family, used from a thread of an app that has a span and a request scope open."""

    def __init__(self, module: Any, spans: Any) -> None:
        self.rig = Rig(Flavour(module, is_async=False), spans, FakeClock())

    def call(self) -> None:
        self.rig.flavour.post(UPSERT, transport=self.rig.answers(OK), json={})

    def run(self, in_thread: Callable[[Callable[[], None]], Any]) -> tuple[bool, int]:
        """Whether the call found its parent, and how many calls its scope counted."""
        tracer = self.rig.spans.tracer_provider.get_tracer("shop")
        with tracer.start_as_current_span("POST /signup", kind=SpanKind.SERVER) as span, request_scope() as scope:
            in_thread(self.call)
        (call,) = self.rig.spans.calls()
        found = call.parent is not None and call.parent.span_id == span.get_span_context().span_id
        return found, scope.summary()["insider.request.calls"]


@pytest.fixture(params=[httpx, httpx2], ids=lambda module: module.__name__)
def threads(request: pytest.FixtureRequest, insider_spans: Any) -> Threads:
    return Threads(request.param, insider_spans)


def test_submit_loses_the_parent_and_the_scope(threads: Threads) -> None:
    """As with everything that lives in a context: an executor's threads have their own."""

    def submit(call: Callable[[], None]) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(call).result()

    assert threads.run(submit) == (False, 0)


def test_a_copied_context_keeps_the_parent_and_the_scope(threads: Threads) -> None:
    def submit(call: Callable[[], None]) -> None:
        with ThreadPoolExecutor(1) as pool:
            pool.submit(contextvars.copy_context().run, call).result()

    assert threads.run(submit) == (True, 1)


@pytest.mark.parametrize("to_thread", [asyncio.to_thread, anyio.to_thread.run_sync], ids=["asyncio", "anyio"])
def test_to_thread_keeps_the_parent_and_the_scope(threads: Threads, to_thread: Any) -> None:
    def run(call: Callable[[], None]) -> None:
        async def main() -> None:
            await to_thread(call)

        anyio.run(main)

    assert threads.run(run) == (True, 1)
