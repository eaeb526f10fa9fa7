"""Captured spans: the trace as text, and no secret in it."""

from __future__ import annotations

from typing import cast

import httpx
import pytest
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from opentelemetry.util.types import AttributeValue

from insider_otel import InsiderTransport
from insider_otel.testing import CapturedSpans, FakeClock, FakeInsider, sample_request


@pytest.fixture
def spans() -> CapturedSpans:
    return CapturedSpans()


def test_the_trace_of_a_call_reads_as_text(spans: CapturedSpans) -> None:
    clock = FakeClock()
    fake = FakeInsider(clock=clock)
    fake.script("user.upsert", "service_unavailable")
    transport = InsiderTransport(
        fake.transport(), clock=clock, sleep=clock.sleep, random=lambda: 0.5, tracer_provider=spans.tracer_provider
    )
    sample = sample_request("user.upsert")
    tracer = spans.tracer_provider.get_tracer("shop")
    with (
        httpx.Client(transport=transport) as client,
        tracer.start_as_current_span("POST /signup", kind=SpanKind.SERVER),
    ):
        client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)
    assert spans.tree() == [
        "server POST /signup",
        "  call user.upsert succeeded",
        "    POST /api/user/v1/upsert 503",
        "    wait retry",
        "    POST /api/user/v1/upsert 200",
    ]
    assert [len(spans.calls()), len(spans.attempts()), len(spans.waits())] == [1, 2, 1]
    spans.assert_no_secrets("fake-key", "jane@example.com", "+905550000001")
    spans.clear()
    assert spans.tree() == []


def test_an_attempt_without_an_answer_shows_its_exception(spans: CapturedSpans) -> None:
    tracer = spans.tracer_provider.get_tracer("test")
    tracer.start_span("POST /a", kind=SpanKind.CLIENT, attributes={"error.type": "httpx.ReadTimeout"}).end()
    tracer.start_span("POST /b", kind=SpanKind.CLIENT).end()
    assert spans.tree() == ["POST /a ReadTimeout", "POST /b unanswered"]


def test_a_span_whose_parent_did_not_end_is_a_root(spans: CapturedSpans) -> None:
    tracer = spans.tracer_provider.get_tracer("test")
    with tracer.start_as_current_span("outer"):
        tracer.start_span("inner").end()
        assert spans.tree() == ["internal inner"]
    assert spans.tree() == ["internal outer", "  internal inner"]


SECRET = "jane+1@example.com"


def _leak(spans: CapturedSpans, place: str) -> None:
    tracer = spans.tracer_provider.get_tracer("test")
    link = [Link(SpanContext(1, 1, is_remote=True), {"a": SECRET})] if place == "link" else []
    with tracer.start_as_current_span(SECRET if place == "name" else "span", links=link) as span:
        if place == "attribute":
            span.set_attribute("url.full", f"https://example.com/{SECRET.upper()}")
        if place == "key":
            span.set_attribute(SECRET, 1)
        if place == "list":
            span.set_attribute("a", ["x", SECRET])
        if place == "percent-encoded":
            span.set_attribute("a", "jane%2b1%40example.com")
        if place == "event":
            span.add_event("e", {"a": SECRET})
        if place == "status":
            span.set_status(Status(StatusCode.ERROR, SECRET))


@pytest.mark.parametrize("place", ["name", "attribute", "key", "list", "percent-encoded", "event", "status", "link"])
def test_a_secret_is_found_wherever_it_shows(place: str, spans: CapturedSpans) -> None:
    _leak(spans, place)
    with pytest.raises(AssertionError, match="value 2 of 2 shows in the span") as caught:
        spans.assert_no_secrets("harmless", SECRET)
    if place != "name":
        assert SECRET not in str(caught.value)


def test_a_secret_in_the_resource_is_found() -> None:
    spans = CapturedSpans()
    spans.tracer_provider = TracerProvider(resource=Resource({"a": SECRET}), shutdown_on_exit=False)
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor

    spans.tracer_provider.add_span_processor(SimpleSpanProcessor(spans._exporter))
    spans.tracer_provider.get_tracer("test").start_span("span").end()
    with pytest.raises(AssertionError, match="value 1 of 1"):
        spans.assert_no_secrets(SECRET)


@pytest.mark.parametrize(
    ("secret", "shown"),
    [
        ('pa"ss', 'pa"ss'),
        ("C:\\keys\\shop", "C:\\keys\\shop"),
        ("first\nsecond", "first\nsecond"),
        ("Jane Doe@example.com", "https://example.com/users/Jane%20Doe@example.com"),
        ("a/b c", "https://example.com/?q=a/b%20c"),
        ("a/b c", "https://example.com/?q=a/b+c"),
        ("a/b c", "https://example.com/?next=%2F%3Fq%3Da/b%20c"),
        ('José "Pepe"', '{"name": "Jos\\u00e9 \\"Pepe\\""}'),
        ('José "Pepe"', '{"name": "José \\"Pepe\\""}'),
        ("istanbul", "İSTANBUL"),
        ("İnci Y\u0131lmaz", "INCI YILMAZ"),
        ("straße 5", "STRASSE 5"),
        ("905550000001", 905550000001),
        ("905550000001", [905550000001]),
        ("jane@example.com", b"to jane@example.com"),
    ],
)
def test_a_secret_is_found_however_it_is_written(secret: str, shown: object, spans: CapturedSpans) -> None:
    with spans.tracer_provider.get_tracer("test").start_as_current_span("span") as span:
        span.set_attribute("a", cast("AttributeValue", shown))
    with pytest.raises(AssertionError, match="shows in the span"):
        spans.assert_no_secrets(secret)
    spans.assert_no_secrets("another secret", 'another "secret"')


def test_a_secret_in_the_scope_or_the_trace_state_is_found(spans: CapturedSpans) -> None:
    provider = spans.tracer_provider
    provider.get_tracer("test", "1.0-secret-1", attributes={"a": "secret-2"}).start_span("span").end()
    state = TraceState([("a", "secret-3")])
    parent = NonRecordingSpan(
        SpanContext(1, 1, is_remote=True, trace_flags=TraceFlags(TraceFlags.SAMPLED), trace_state=state)
    )
    provider.get_tracer("test").start_span("span", set_span_in_context(parent)).end()
    for number in (1, 2, 3):
        with pytest.raises(AssertionError, match="shows in the span"):
            spans.assert_no_secrets(f"secret-{number}")


def test_a_value_that_would_be_found_anywhere_is_an_error(spans: CapturedSpans) -> None:
    with pytest.raises(ValueError, match="at least 3"):
        spans.assert_no_secrets("a")
