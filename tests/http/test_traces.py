"""Whole traces, as they would be seen in Jaeger or Tempo."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry import baggage, context, trace
from opentelemetry.instrumentation.utils import suppress_http_instrumentation, suppress_instrumentation
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import InMemoryLogRecordExporter, SimpleLogRecordProcessor
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import NoOpTracerProvider, SpanKind, StatusCode

from insider_otel import Events, Settings, request_scope

from .conftest import Rig, event_names
from .test_calls import ACCEPTED, DUPLICATE, MAIL, OK, SLOW_DOWN, SMS, UPSERT
from .wire import Reply, Wire

PARTLY = (200, {"data": {"successful": {"count": 2}, "fail": {"count": 3, "errors": {}}}})
STATISTICS = "https://web-push.api.useinsider.com/v1/statistics/top-metrics"
CHANNEL = "https://verify.useinsider.com/v1/channel/create"
CHECK = "https://verify.useinsider.com/v1/check"

TREES: list[Any] = [
    pytest.param(UPSERT, [OK], ["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"], id="success"),
    pytest.param(
        UPSERT,
        [503, OK],
        [
            "call user.upsert succeeded",
            "  POST /api/user/v1/upsert 503",
            "  wait retry",
            "  POST /api/user/v1/upsert 200",
        ],
        id="503 healed by a quick retry",
    ),
    pytest.param(
        UPSERT,
        [PARTLY],
        ["call user.upsert partly_failed", "  POST /api/user/v1/upsert 200"],
        id="a 200 that lost records",
    ),
    pytest.param(
        STATISTICS,
        [SLOW_DOWN, (200, {})],
        [
            "call web_push.top_metrics succeeded",
            "  POST /v1/statistics/top-metrics 403",
            "  wait rate_limit",
            "  POST /v1/statistics/top-metrics 200",
        ],
        id="403 that is a rate limit",
    ),
    pytest.param(
        CHECK,
        [(401, {"errors": [{"message": "invalid code"}]})],
        ["call verify.check failed", "  POST /v1/check 401"],
        id="an OTP typo",
    ),
    pytest.param(
        CHANNEL,
        [(500, {"errors": [{"message": "channel already exists"}]})],
        ["call verify.channel_create failed", "  POST /v1/channel/create 500"],
        id="a permanent 500",
    ),
    pytest.param(
        MAIL,
        ["ReadTimeout", DUPLICATE],
        [
            "call mail.send succeeded",
            "  POST /mail/v1/send ReadTimeout",
            "  wait retry",
            "  POST /mail/v1/send 409",
        ],
        id="a timeout healed by the duplicate window",
    ),
    pytest.param(
        SMS,
        ["ReadTimeout"],
        ["call sms.send failed", "  POST /v1/send ReadTimeout"],
        id="silence about an SMS",
    ),
    pytest.param(MAIL, [ACCEPTED], ["call mail.send succeeded", "  POST /mail/v1/send 202"], id="accepted"),
    pytest.param(
        UPSERT,
        [(400, {"success": False, "message": "Partner is invalid."})],
        ["call user.upsert failed", "  POST /api/user/v1/upsert 400"],
        id="a wrong key as 400",
    ),
    pytest.param(
        UPSERT,
        [(429, {"error": "rejected: too many requests"}), OK],
        [
            "call user.upsert succeeded",
            "  POST /api/user/v1/upsert 429",
            "  wait rate_limit",
            "  POST /api/user/v1/upsert 200",
        ],
        id="429",
    ),
    pytest.param(
        UPSERT,
        ["ConnectError", OK],
        [
            "call user.upsert succeeded",
            "  POST /api/user/v1/upsert ConnectError",
            "  wait retry",
            "  POST /api/user/v1/upsert 200",
        ],
        id="a connection that could not be made",
    ),
    pytest.param(
        UPSERT,
        [503],
        [
            "call user.upsert failed",
            "  POST /api/user/v1/upsert 503",
            "  wait retry",
            "  POST /api/user/v1/upsert 503",
            "  wait retry",
            "  POST /api/user/v1/upsert 503",
            "  wait retry",
            "  POST /api/user/v1/upsert 503",
            "  wait retry",
            "  POST /api/user/v1/upsert 503",
        ],
        id="an outage",
    ),
    pytest.param(
        "https://unification.useinsider.com/api/user/v9/new",
        [(200, {})],
        ["call unlisted succeeded", "  POST 200"],
        id="an endpoint nobody documented",
    ),
    pytest.param(
        UPSERT,
        [520, 504, OK],
        [
            "call user.upsert succeeded",
            "  POST /api/user/v1/upsert 520",
            "  wait retry",
            "  POST /api/user/v1/upsert 504",
            "  wait retry",
            "  POST /api/user/v1/upsert 200",
        ],
        id="Cloudflare, then a gateway, then Insider",
    ),
]


@pytest.mark.parametrize(("url", "replies", "tree"), TREES)
def test_the_trace_of(rig: Rig, url: str, replies: list[Any], tree: list[str]) -> None:
    try:
        rig.flavour.post(url, transport=rig.answers(*replies), json={})
    except rig.flavour.module.TransportError:
        assert isinstance(replies[-1], str)
    assert rig.spans.tree() == tree


def test_a_call_refused_here_has_no_attempt(rig: Rig) -> None:
    transport = rig.answers((429, {"error": "rejected: too many requests"}))
    with request_scope(deadline=1.0, clock=rig.clock):
        rig.flavour.post(UPSERT, transport=transport, json={})
        rig.spans.clear()
        rig.flavour.post(UPSERT, transport=transport, json={})
    assert rig.spans.tree() == ["call user.upsert failed"]
    (call,) = rig.spans.calls()
    assert event_names(call) == ["insider.rate_limit.refused"]
    assert call.attributes["insider.attempts"] == 0
    assert call.attributes["insider.status.rule"] == "local.rate_limit"


# -- the contract, span by span ----------------------------------------------------------------------------------------


def test_the_call_says_how_it_ended_and_nothing_about_http(rig: Rig) -> None:
    rig.flavour.post(UPSERT, transport=rig.answers(503, PARTLY), json={})
    (call,) = rig.spans.calls()
    assert call.kind is SpanKind.INTERNAL
    assert call.name == "insider user.upsert"
    assert call.attributes == {
        "insider.operation": "user.upsert",
        "insider.product": "unification",
        "insider.outcome": "partly_failed",
        "insider.attempts": 2,
        "insider.wait.ms": 250,
        "insider.records.sent": 5,
        "insider.records.accepted": 2,
        "insider.records.failed": 3,
        "insider.status.category": "partial_failure",
        "insider.status.rule": call.attributes["insider.status.rule"],
        "insider.status.fault": "caller",
        "insider.status.retry": "never",
        "error.type": "partial_failure",
    }
    assert call.status.status_code is StatusCode.ERROR
    assert call.status.description is None


def test_an_attempt_is_a_client_span_by_the_http_conventions(rig: Rig, server: Wire) -> None:
    settings = Settings(hosts={server.address: "unification.useinsider.com"})
    server.script = [
        Reply(status=503, headers={"cf-ray": "8a1b2c3d4e5f-IST"}),
        Reply(),
    ]
    rig.flavour.post(server.url + "/api/user/v1/upsert?key=1", transport=rig.wrap(settings=settings), json={})
    first, second = rig.spans.attempts()
    assert first.kind is SpanKind.CLIENT
    assert first.name == "POST /api/user/v1/upsert"
    assert first.attributes == {
        "http.request.method": "POST",
        "url.full": f"{server.url}/api/user/v1/upsert?key=REDACTED",
        "url.template": "/api/user/v1/upsert",
        "server.address": "127.0.0.1",
        "server.port": server.port,
        "network.peer.address": "127.0.0.1",
        "network.peer.port": server.port,
        "network.protocol.version": "1.1",
        "http.response.status_code": 503,
        "http.response.header.cf-ray": ("8a1b2c3d4e5f-IST",),
        "error.type": "503",
        "insider.operation": "user.upsert",
        "insider.product": "unification",
        "insider.status.category": "unavailable",
        "insider.status.rule": first.attributes["insider.status.rule"],
        "insider.status.fault": "insider",
        "insider.status.retry": "backoff",
    }
    assert first.status.status_code is StatusCode.ERROR
    assert second.attributes["http.request.resend_count"] == 1
    assert second.status.status_code is StatusCode.UNSET
    assert server.seen[1].headers["traceparent"].split("-")[2] == f"{second.context.span_id:016x}"


def test_a_wait_is_a_span_with_a_planned_length(rig: Rig) -> None:
    rig.flavour.post(UPSERT, transport=rig.answers(503, OK), json={})
    (wait,) = rig.spans.waits()
    assert wait.kind is SpanKind.INTERNAL
    assert wait.name == "insider wait"
    assert wait.attributes == {
        "insider.operation": "user.upsert",
        "insider.product": "unification",
        "insider.wait.reason": "retry",
        "insider.wait.source": "jitter",
        "insider.wait.ms": 250,
    }


def test_a_call_that_recovered_is_not_an_error(rig: Rig) -> None:
    rig.flavour.post(UPSERT, transport=rig.answers(503, OK), json={})
    (call,) = rig.spans.calls()
    assert call.status.status_code is StatusCode.UNSET
    assert "error.type" not in call.attributes


def test_a_duplicate_is_no_error_whatever_its_status(rig: Rig) -> None:
    rig.flavour.post(MAIL, transport=rig.answers(DUPLICATE), json={})
    assert {span.status.status_code for span in rig.spans.all()} == {StatusCode.UNSET}
    (call,) = rig.spans.calls()
    assert event_names(call) == ["insider.dedupe.server_duplicate"]


def test_events_tell_the_story_of_a_call(rig: Rig) -> None:
    rig.flavour.post(UPSERT, transport=rig.answers((429, {"error": "rejected: too many requests"}), 503), json={})
    (call,) = rig.spans.calls()
    assert event_names(call) == [
        "insider.rate_limit.hit",
        "insider.retry.scheduled",
        "insider.retry.scheduled",
        "insider.retry.scheduled",
        "insider.retry.scheduled",
        "insider.retry.stopped",
    ]
    assert dict(call.events[1].attributes) == {
        "insider.status.category": "rate_limit",
        "insider.wait.reason": "rate_limit",
        "insider.wait.source": "window",
        "insider.wait.ms": 63000,
    }
    assert dict(call.events[-1].attributes) == {"insider.retry.stopped": "attempts"}


def test_everything_that_is_queried_is_a_whole_number_or_a_string(rig: Rig) -> None:
    rig.flavour.post(UPSERT, transport=rig.answers(503, PARTLY), json={})
    for span in rig.spans.all():
        for name, value in span.attributes.items():
            assert isinstance(value, str | int | tuple), name


def test_the_call_joins_the_trace_it_is_made_in(rig: Rig) -> None:
    tracer = rig.spans.tracer_provider.get_tracer("shop")
    with tracer.start_as_current_span("POST /signup", kind=SpanKind.SERVER) as server_span:
        rig.flavour.post(UPSERT, transport=rig.answers(503, OK), json={})
        assert trace.get_current_span() is server_span
    (call,) = rig.spans.calls()
    assert call.parent.span_id == server_span.get_span_context().span_id
    assert {span.parent.span_id for span in [*rig.spans.attempts(), *rig.spans.waits()]} == {call.context.span_id}
    assert len({span.context.trace_id for span in rig.spans.all()}) == 1


def test_stale_trace_headers_of_the_app_are_replaced(rig: Rig) -> None:
    seen: list[Any] = []

    def handler(request: Any) -> Any:
        seen.append(request)
        return rig.flavour.module.Response(200, json=OK[1])

    stale = {
        "traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
        "tracestate": "a=1",
        "baggage": "a=1",
    }
    token = context.attach(baggage.set_baggage("shop", "blue"))
    try:
        rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler)), json={}, headers=stale)
    finally:
        context.detach(token)
    (attempt,) = rig.spans.attempts()
    assert seen[0].headers["traceparent"].split("-")[1:3] == [
        f"{attempt.context.trace_id:032x}",
        f"{attempt.context.span_id:016x}",
    ]
    assert "tracestate" not in seen[0].headers
    assert seen[0].headers["baggage"] == "shop=blue"


@pytest.mark.parametrize("suppress", [suppress_instrumentation, suppress_http_instrumentation])
def test_suppressed_instrumentation_traces_and_propagates_nothing_but_still_retries(rig: Rig, suppress: Any) -> None:
    seen: list[Any] = []

    def handler(request: Any) -> Any:
        seen.append(request)
        return rig.flavour.module.Response(503 if len(seen) == 1 else 200, json={})

    with suppress():
        rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler)), json={})
    assert len(seen) == 2
    assert "traceparent" not in seen[0].headers
    assert rig.spans.all() == []
    assert rig.points("insider.client.call.duration") == []


def test_an_excluded_url_is_not_traced(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "unification,other")
    rig.flavour.post(UPSERT, transport=rig.answers(OK), json={})
    assert rig.spans.all() == []
    rig.flavour.post(MAIL, transport=rig.answers(ACCEPTED), json={})
    assert [call.name for call in rig.spans.calls()] == ["insider mail.send"]


def test_headers_are_captured_by_the_stock_variables(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST", "x-.*")
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE", "content-type")
    headers = {"X-PARTNER-NAME": "shop", "X-REQUEST-TOKEN": "token-of-the-shop"}
    rig.flavour.post(UPSERT, transport=rig.answers(OK), json={}, headers=headers)
    (attempt,) = rig.spans.attempts()
    assert attempt.attributes["http.request.header.x-partner-name"] == ("shop",)
    assert attempt.attributes["http.request.header.x-request-token"] == ("[REDACTED]",)
    assert attempt.attributes["http.response.header.content-type"] == ("application/json",)


def test_cloudflares_number_is_there_once_captured_or_not(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    def rays() -> dict[str, Any]:
        rig.spans.clear()
        answer = rig.flavour.module.Response(200, headers={"CF-Ray": "8a1b2c3d4e5f-IST"}, json={})
        rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(lambda request: answer)), json={})
        (attempt,) = rig.spans.attempts()
        return {name: value for name, value in attempt.attributes.items() if "ray" in name}

    assert rays() == {"http.response.header.cf-ray": ("8a1b2c3d4e5f-IST",)}
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE", ".*")
    assert rays() == {"http.response.header.cf-ray": ("8a1b2c3d4e5f-IST",)}
    monkeypatch.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS", "cf-ray")
    assert rays() == {"http.response.header.cf-ray": ("[REDACTED]",)}


def test_events_can_be_log_records(rig: Rig) -> None:
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider()
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))

    def events(choice: Events) -> tuple[list[str], list[str | None]]:
        exporter.clear()
        rig.spans.clear()
        settings = Settings(events=choice)
        inner = rig.answers(DUPLICATE)
        rig.flavour.post(
            MAIL, transport=rig.wrap(inner._transport, settings=settings, logger_provider=provider), json={}
        )
        (call,) = rig.spans.calls()
        for record in exporter.get_finished_logs():
            assert record.log_record.span_id == call.context.span_id
            assert record.log_record.attributes == {"insider.status.rule": "duplicate_within_15_minutes"}
        return event_names(call), [record.log_record.event_name for record in exporter.get_finished_logs()]

    name = "insider.dedupe.server_duplicate"
    assert events(Events.SPAN) == ([name], [])
    assert events(Events.LOG) == ([], [name])
    assert events(Events.BOTH) == ([name], [name])


@pytest.mark.parametrize(
    "tracers",
    [
        pytest.param(TracerProvider(sampler=ALWAYS_OFF, shutdown_on_exit=False), id="not sampled"),
        pytest.param(NoOpTracerProvider(), id="no SDK for traces"),
    ],
)
def test_events_are_log_records_of_traces_that_are_not_sampled_too(rig: Rig, tracers: Any) -> None:
    exporter = InMemoryLogRecordExporter()  # type: ignore[no-untyped-call]
    provider = LoggerProvider(shutdown_on_exit=False)
    provider.add_log_record_processor(SimpleLogRecordProcessor(exporter))
    settings = Settings(events=Events.LOG, quick_retries=1, spread_retries=0)
    inner = rig.flavour.answering(lambda request: rig.flavour.module.Response(503))
    transport = rig.wrap(inner, settings=settings, tracer_provider=tracers, logger_provider=provider)
    rig.flavour.post(UPSERT, transport=transport, json={})
    records = [record.log_record for record in exporter.get_finished_logs()]
    assert [record.event_name for record in records] == ["insider.retry.scheduled", "insider.retry.stopped"]
    assert records[-1].attributes == {"insider.retry.stopped": "attempts"}


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_metrics_of_a_call_that_was_retried(rig: Rig) -> None:
    rig.flavour.post(UPSERT, transport=rig.answers(503, PARTLY), json={})
    (call,) = rig.points("insider.client.call.duration")
    assert dict(call.attributes) == {
        "insider.operation": "user.upsert",
        "insider.outcome": "partly_failed",
        "insider.status.category": "partial_failure",
        "insider.status.fault": "caller",
    }
    assert call.sum == pytest.approx(0.25)
    assert call.explicit_bounds[-1] == 900
    (retries,) = rig.points("insider.client.retries")
    assert (retries.value, dict(retries.attributes)) == (
        1,
        {"insider.operation": "user.upsert", "insider.status.category": "unavailable"},
    )
    (wait,) = rig.points("insider.client.wait.duration")
    assert wait.sum == pytest.approx(0.25)
    records = {
        point.attributes["insider.records.result"]: point.value for point in rig.points("insider.client.records")
    }
    assert records == {"accepted": 2, "failed": 3}


def test_the_duration_of_requests_is_measured_on_exceptions_too(rig: Rig) -> None:
    rig.flavour.post(UPSERT, transport=rig.answers("ReadTimeout", OK), json={})
    points = {point.attributes.get("error.type"): point for point in rig.points("http.client.request.duration")}
    name = rig.flavour.module.__name__
    assert set(points) == {f"{name}.ReadTimeout", None}
    assert dict(points[None].attributes) == {
        "http.request.method": "POST",
        "server.address": "unification.useinsider.com",
        "server.port": 443,
        "url.template": "/api/user/v1/upsert",
        "http.response.status_code": 200,
    }


def test_duplicates_are_counted(rig: Rig) -> None:
    rig.flavour.post(MAIL, transport=rig.answers(DUPLICATE), json={})
    (point,) = rig.points("insider.client.duplicates")
    assert dict(point.attributes) == {"insider.operation": "mail.send", "insider.duplicate.source": "server"}


# -- nothing secret ----------------------------------------------------------------------------------------------------


def test_nothing_secret_or_personal_is_exported(rig: Rig, caplog: pytest.LogCaptureFixture) -> None:
    planted = ["token-of-the-shop", "jane@example.com", "+905550000001", "905550000001", "secret"]
    url = "https://unification.useinsider.com/api/user/v1/upsert?userId=jane@example.com&token=secret"
    refusal = (200, {"data": {"fail": {"count": 1, "errors": {"users.0.x": ["invalid phone number: +905550000001"]}}}})
    transport = rig.answers("ReadTimeout", 503, refusal)
    response = rig.flavour.post(
        url,
        transport=transport,
        json={"users": [{"identifiers": {"email": "jane@example.com", "phone_number": "+905550000001"}}]},
        headers={"X-REQUEST-TOKEN": "token-of-the-shop", "X-PARTNER-NAME": "shop"},
    )
    rig.spans.assert_no_secrets(*planted)
    exported = str(
        [list(rig.points(name)) for name in ("http.client.request.duration", "insider.client.call.duration")]
    )
    record = repr(response.extensions["insider_otel"])
    logged = "\n".join(r.getMessage() for r in caplog.records if r.name.startswith("insider_otel"))
    for secret in planted:
        assert secret not in exported
        assert secret not in record
        assert secret not in logged
