"""The summary finds the server span, whoever made it and when."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import httpx
import pytest
from opentelemetry.trace import SpanKind, Tracer

from insider_otel import InsiderTransport, RequestScope
from insider_otel.http.scope import open_scope, within
from insider_otel.telemetry.server_span import watch_server_spans
from insider_otel.testing import CapturedSpans, FakeInsider, sample_request

UPSERT = sample_request("user.upsert")


@pytest.fixture
def tracer(insider_spans: CapturedSpans, monkeypatch: pytest.MonkeyPatch) -> Tracer:
    """The tracer of a framework's instrumentation. The global provider of a test is one of its own."""
    monkeypatch.setattr("insider_otel.telemetry.server_span.get_tracer_provider", lambda: insider_spans.tracer_provider)
    return insider_spans.tracer_provider.get_tracer("framework")


def upsert(times: int = 1) -> None:
    with httpx.Client(transport=InsiderTransport(FakeInsider().transport())) as client:
        for _ in range(times):
            client.post(UPSERT.url, headers=UPSERT.headers, content=UPSERT.content)


def server_span(tracer: Tracer, name: str = "GET /") -> Any:
    return tracer.start_as_current_span(name, kind=SpanKind.SERVER)


def test_a_span_that_is_there_before_the_scope(tracer: Tracer) -> None:
    with server_span(tracer) as span, within(open_scope(5)):
        upsert(2)
        assert span.attributes["insider.request.calls"] == 2
        assert span.attributes["insider.request.failed_calls"] == 0


def test_a_span_that_is_made_within_the_scope(tracer: Tracer) -> None:
    scope = open_scope(5)
    with within(scope), server_span(tracer) as span:
        upsert(2)
        assert span.attributes["insider.request.calls"] == 2


def test_a_call_before_the_span_is_made_is_on_it_too(tracer: Tracer) -> None:
    scope = open_scope(5)
    with within(scope):
        upsert()
        with server_span(tracer) as span:
            assert span.attributes["insider.request.calls"] == 1


def test_a_span_of_another_kind_between_the_two_is_passed_by(tracer: Tracer) -> None:
    watch_server_spans()
    with server_span(tracer) as span, tracer.start_as_current_span("middleware"), within(open_scope(5)):
        upsert()
        assert span.attributes["insider.request.calls"] == 1


def test_of_two_server_spans_the_outer_one_has_the_summary(tracer: Tracer) -> None:
    with server_span(tracer) as outer:
        scope = open_scope(5)
        with within(scope), server_span(tracer, "inner") as inner:
            upsert()
    assert outer.attributes["insider.request.calls"] == 1
    assert "insider.request.calls" not in inner.attributes


def test_a_page_without_calls_has_no_summary(tracer: Tracer) -> None:
    with server_span(tracer) as span, within(open_scope(5)):
        pass
    assert not [name for name in span.attributes if name.startswith("insider.")]


def test_a_span_that_has_ended_is_left_alone(tracer: Tracer, caplog: pytest.LogCaptureFixture) -> None:
    """OpenTelemetry would log a warning for each attribute."""
    with server_span(tracer) as span:
        scope = open_scope(5)
    with within(scope):
        upsert()
    assert "insider.request.calls" not in span.attributes
    assert not caplog.records


def test_the_span_of_an_earlier_request_in_the_same_thread_is_not_taken(tracer: Tracer) -> None:
    watch_server_spans()
    with server_span(tracer, "first") as first, within(open_scope(5)) as _:
        upsert()
    scope = open_scope(5)
    with within(scope):
        upsert(2)
    assert scope.server_span is None
    assert first.attributes["insider.request.calls"] == 1


def test_a_scope_that_is_closed_or_gone_takes_no_later_span(tracer: Tracer) -> None:
    scope = open_scope(5)
    scope.close()
    with server_span(tracer):
        assert scope.server_span is None
    reference = weakref.ref(scope)
    del scope
    gc.collect()
    assert reference() is None
    with server_span(tracer) as span:
        assert not span.attributes


def test_scopes_at_once_have_each_their_own_span(tracer: Tracer) -> None:
    def serve(name: str, times: int) -> tuple[Any, RequestScope]:
        with server_span(tracer, name) as span:
            scope = open_scope(5)
            with within(scope):
                upsert(times)
        return span, scope

    for times in (1, 3):
        span, scope = serve(f"GET /{times}", times)
        assert span.attributes["insider.request.calls"] == times == scope.summary()["insider.request.calls"]


def test_a_held_span_ends_when_it_is_released(tracer: Tracer, insider_spans: CapturedSpans) -> None:
    """A streamed body is made after the framework has ended the span."""
    with server_span(tracer) as span:
        scope = open_scope(5)
        scope.hold_server_span()
    assert span.is_recording()
    with within(scope):
        upsert()
    scope.close()
    assert not span.is_recording()
    (ended,) = (each for each in insider_spans.all() if each.kind is SpanKind.SERVER)
    assert ended.attributes
    assert ended.attributes["insider.request.calls"] == 1


def test_a_span_that_a_scope_within_the_request_holds_ends_with_that_and_has_its_calls(tracer: Tracer) -> None:
    """An app that is mounted in another one makes the body."""
    whole = open_scope(5)
    with within(whole):
        inner = open_scope(5)
        with within(inner), server_span(tracer) as span:
            inner.hold_server_span()
        assert inner.server_span == span
        with within(inner):
            upsert()
    assert span.is_recording()
    inner.close()
    assert not span.is_recording()
    assert span.attributes["insider.request.calls"] == 1


def test_a_span_that_two_scopes_of_a_request_hold_ends_when_both_let_go(tracer: Tracer) -> None:
    with server_span(tracer) as span:
        whole = open_scope(5)
        whole.hold_server_span()
        with within(whole):
            holding, other = open_scope(5), open_scope(5)
        holding.hold_server_span()
        other.close()
    holding.release_server_span()
    assert span.is_recording()
    whole.release_server_span()
    assert not span.is_recording()


def test_a_held_span_ends_with_the_request_whoever_holds_it(tracer: Tracer) -> None:
    with server_span(tracer) as span:
        whole = open_scope(5)
        with within(whole):
            open_scope(5).hold_server_span()
    whole.close()
    assert not span.is_recording()


def test_a_held_span_that_nobody_ended_is_not_ended_by_its_release(tracer: Tracer) -> None:
    with server_span(tracer) as span:
        scope = open_scope(5)
        scope.hold_server_span()
        scope.release_server_span()
        assert span.is_recording()
    assert not span.is_recording()
