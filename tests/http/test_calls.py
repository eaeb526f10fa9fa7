"""What a call does: sends, waits, stops, and what the app gets. Kept by both families, sync and async."""

from __future__ import annotations

import gc
import gzip
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from importlib import import_module
from threading import Event
from typing import Any

import httpx
import pytest

from insider_otel import (
    AsyncInsiderTransport,
    Call,
    Category,
    InsiderTransport,
    Outcome,
    Settings,
    Stop,
    Verdict,
    call_of,
    classify,
    request_scope,
)
from insider_otel.http import attempt
from insider_otel.testing import FakeClock, set_testing

from .conftest import Flavour, Rig, event_names
from .wire import Reply, Wire

UPSERT = "https://unification.useinsider.com/api/user/v1/upsert"
MAIL = "https://mail.useinsider.com/mail/v1/send"
SMS = "https://sms.useinsider.com/v1/send"
START = "https://live-activity.api.useinsider.com/api/v1/live-activity/start"

OK = (200, {"data": {"successful": {"count": 1}, "fail": {}}})
ACCEPTED = (202, {"message_id": "00000000-0000-4000-8000-000000000001", "status_message": "accepted"})
DUPLICATE = (
    409,
    {
        "status_message": "This request has already been received and is being processed. "
        "Any duplicate content from the user will be ignored for the next 15 minutes."
    },
)
SLOW_DOWN = (
    403,
    {"error": {"message": "Too many attempts, please slow down the request. 30 Requests/minute is allowed."}},
)


def test_a_failure_that_passes_is_healed_by_a_quick_retry(rig: Rig) -> None:
    response = rig.flavour.post(UPSERT, transport=rig.answers(503, OK), json={"users": []})
    call = call_of(response)
    assert response.status_code == 200
    assert (call.outcome, call.attempts, call.waited) == (Outcome.SUCCEEDED, 2, 0.25)
    assert rig.clock.sleeps == [0.25]


def test_an_outage_is_retried_twice_quickly_then_over_the_window(rig: Rig) -> None:
    response = rig.flavour.post(UPSERT, transport=rig.answers(503, settings=Settings()), json={"users": []})
    call = call_of(response)
    assert response.status_code == 503
    assert (call.outcome, call.attempts, call.stopped) == (Outcome.FAILED, 6, Stop.ATTEMPTS)
    assert rig.clock.sleeps == [0.5, 0.5, 150.0, 150.0, 150.0]


def test_in_a_request_scope_a_call_ends_with_what_it_has(rig: Rig) -> None:
    with request_scope(deadline=2.0, clock=rig.clock) as scope:
        response = rig.flavour.post(UPSERT, transport=rig.answers(503), json={"users": []})
    call = call_of(response)
    assert (response.status_code, call.attempts, call.stopped) == (503, 2, Stop.DEADLINE)
    assert sum(rig.clock.sleeps) < 2.0
    assert scope.summary() == {
        "insider.request.calls": 1,
        "insider.request.failed_calls": 1,
        "insider.request.retries": 1,
        "insider.request.duplicates": 0,
        "insider.request.rate_limited": 0,
        "insider.request.deferred": 0,
        "insider.request.wait_ms": 250,
    }


def test_the_deadline_of_the_settings_holds_outside_a_scope(rig: Rig) -> None:
    response = rig.flavour.post(UPSERT, transport=rig.answers(503, settings=Settings(deadline=2.0)), json={})
    assert call_of(response).stopped is Stop.DEADLINE


def test_a_deadline_that_has_passed_sends_nothing_and_says_so(rig: Rig) -> None:
    def handler(request: Any) -> Any:
        raise AssertionError("nothing is to be sent")

    with request_scope(deadline=1.0, clock=rig.clock):
        rig.clock.advance(1.0)
        with pytest.raises(rig.flavour.module.ConnectTimeout) as raised:
            rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler)), json={})
    call = call_of(raised.value)
    assert (call.attempts, call.stopped, call.verdict.rule) == (0, Stop.DEADLINE, "local.deadline")


def test_the_timeouts_of_an_attempt_are_cut_to_what_is_left(rig: Rig) -> None:
    seen: list[dict[str, float]] = []

    def handler(request: Any) -> Any:
        seen.append(request.extensions["timeout"])
        return rig.flavour.module.Response(503)

    with request_scope(deadline=2.0, clock=rig.clock):
        rig.flavour.post(
            UPSERT,
            transport=rig.wrap(rig.flavour.answering(handler)),
            json={},
            timeout=rig.flavour.module.Timeout(5.0, connect=0.5, pool=None),
        )
    assert seen[0] == pytest.approx({"connect": 0.5, "read": 2.0, "write": 2.0, "pool": 2.0})
    assert seen[1] == pytest.approx({"connect": 0.5, "read": 1.75, "write": 1.75, "pool": 1.75})


def test_without_a_deadline_the_timeouts_are_the_apps_own(rig: Rig) -> None:
    seen: list[Any] = []

    def handler(request: Any) -> Any:
        seen.append(request.extensions["timeout"])
        return rig.flavour.module.Response(200)

    rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler)), json={}, timeout=7.0)
    assert seen == [{"connect": 7.0, "read": 7.0, "write": 7.0, "pool": 7.0}]


def test_a_scope_within_a_scope_cannot_outlast_it(rig: Rig) -> None:
    with request_scope(deadline=1.0, clock=rig.clock) as outer, request_scope(deadline=9.0, clock=rig.clock) as inner:
        assert inner.remaining == pytest.approx(1.0)
        rig.flavour.post(UPSERT, transport=rig.answers(OK), json={})
    assert inner.summary()["insider.request.calls"] == outer.summary()["insider.request.calls"] == 1


def test_a_scope_that_ended_binds_no_work_that_outlives_it(rig: Rig) -> None:
    with request_scope(deadline=1.0, clock=rig.clock) as scope:
        pass
    rig.clock.advance(5.0)
    assert scope.remaining is None


def test_a_call_that_outlives_its_request_is_bound_by_the_deadline_no_longer(rig: Rig) -> None:
    call = _call_that_outlives_its_request(rig, Settings())
    assert (call.outcome, call.attempts, call.waited >= 30.0) == (Outcome.SUCCEEDED, 2, True)


def test_a_call_that_outlives_its_request_is_bound_by_the_setting_as_if_there_had_been_none(rig: Rig) -> None:
    call = _call_that_outlives_its_request(rig, Settings(deadline=29.0))
    assert (call.outcome, call.attempts, call.stopped) == (Outcome.FAILED, 1, Stop.DEADLINE)


def _call_that_outlives_its_request(rig: Rig, settings: Settings) -> Call:
    """A call in a thread of a request with a deadline of 1 s, which is over before Insider says "in 30 seconds"."""
    sent, over = Event(), Event()
    answers = iter([rig.flavour.module.Response(503, headers={"Retry-After": "30"}), rig.flavour.module.Response(200)])

    def handler(request: Any) -> Any:
        sent.set()
        assert over.wait(60)
        return next(answers)

    def post() -> Call:
        return call_of(
            rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler), settings=settings), json={})
        )

    with ThreadPoolExecutor() as threads:
        with request_scope(deadline=1.0, clock=rig.clock):
            outliving = threads.submit(copy_context().run, post)
            assert sent.wait(60)
        over.set()
        return outliving.result()


def test_a_scope_refuses_a_deadline_that_is_no_length_of_time() -> None:
    with pytest.raises(ValueError, match="deadline is -1"), request_scope(deadline=-1):
        pass


def test_observe_mode_changes_nothing(rig: Rig) -> None:
    with request_scope(deadline=0.0, clock=rig.clock):
        response = rig.flavour.post(
            UPSERT,
            transport=rig.answers(503, OK, settings=Settings(mode="observe")),
            json={},
        )
    call = call_of(response)
    assert (response.status_code, call.attempts, call.stopped, rig.clock.sleeps) == (503, 1, None, [])


# -- rate limits -------------------------------------------------------------------------------------------------------


def test_a_403_that_is_a_rate_limit_waits_out_the_window_it_names(rig: Rig) -> None:
    url = "https://web-push.api.useinsider.com/v1/statistics/top-metrics"
    response = rig.flavour.post(url, transport=rig.answers(SLOW_DOWN, (200, {})), json={})
    assert call_of(response).outcome is Outcome.SUCCEEDED
    assert rig.clock.sleeps == [63.0]


def test_too_many_requests_closes_the_pool_for_every_call_with_the_same_key(rig: Rig) -> None:
    transport = rig.answers((429, {"error": "rejected: too many requests"}), OK)
    key, other = {"X-PARTNER-NAME": "shop", "X-REQUEST-TOKEN": "a"}, {"X-PARTNER-NAME": "shop", "X-REQUEST-TOKEN": "b"}
    with request_scope(deadline=5.0, clock=rig.clock) as scope:
        first = rig.flavour.post(UPSERT, transport=transport, json={}, headers=key)
        second = rig.flavour.post(UPSERT, transport=transport, json={}, headers=key)
        stranger = rig.flavour.post(UPSERT, transport=transport, json={}, headers=other)
    assert call_of(first).stopped is Stop.DEADLINE
    assert (second.status_code, second.headers["x-insider-otel"], second.headers["retry-after"]) == (
        429,
        "refused",
        "60",
    )
    assert isinstance(second, rig.flavour.module.Response)
    assert (call_of(second).attempts, call_of(second).verdict.category) == (0, Category.RATE_LIMIT)
    assert stranger.status_code == 200
    assert scope.summary()["insider.request.rate_limited"] == 2


def test_a_call_that_can_wait_waits_for_the_pool_to_open(rig: Rig) -> None:
    transport = rig.answers((429, {"error": "rejected: too many requests"}), OK)
    with request_scope(deadline=5.0, clock=rig.clock):
        rig.flavour.post(UPSERT, transport=transport, json={})
    response = rig.flavour.post(UPSERT, transport=transport, json={})
    assert response.status_code == 200
    assert rig.clock.sleeps == [63.0]
    assert "insider.rate_limit.waited" in event_names(rig.spans.calls()[-1])


# -- what may be sent twice --------------------------------------------------------------------------------------------


def test_a_mail_that_got_no_answer_is_sent_again_and_its_duplicate_is_good_news(rig: Rig) -> None:
    response = rig.flavour.post(MAIL, transport=rig.answers("ReadTimeout", DUPLICATE), json={})
    call = call_of(response)
    assert response.status_code == 409
    assert (call.outcome, call.attempts, call.verdict.category) == (Outcome.SUCCEEDED, 2, Category.DUPLICATE)


def test_an_sms_that_got_no_answer_is_not_sent_again(rig: Rig) -> None:
    with pytest.raises(rig.flavour.module.ReadTimeout) as raised:
        rig.flavour.post(SMS, transport=rig.answers("ReadTimeout", ACCEPTED), json={})
    call = call_of(raised.value)
    assert (call.outcome, call.attempts, call.stopped) == (Outcome.FAILED, 1, Stop.UNSAFE)


@pytest.mark.parametrize("failure", ["ConnectError", "ConnectTimeout", "PoolTimeout"])
def test_what_was_never_sent_may_always_be_sent_again(rig: Rig, failure: str) -> None:
    response = rig.flavour.post(SMS, transport=rig.answers(failure, ACCEPTED), json={})
    assert call_of(response).attempts == 2


def test_an_answer_that_says_not_processed_may_be_retried_even_for_an_sms(rig: Rig) -> None:
    assert call_of(rig.flavour.post(SMS, transport=rig.answers(503, ACCEPTED), json={})).attempts == 2


def test_a_live_activity_is_never_started_twice(rig: Rig) -> None:
    response = rig.flavour.post(START, transport=rig.answers(503, OK), json={})
    assert (call_of(response).attempts, call_of(response).stopped) == (1, Stop.UNSAFE)


def test_a_generator_body_is_sent_once_and_the_first_failure_is_not_masked(rig: Rig) -> None:
    sent: list[bytes] = []

    def handler(request: Any) -> Any:
        sent.append(request.content)
        return rig.flavour.module.Response(503)

    if rig.flavour.is_async:

        async def body() -> Any:
            yield b'{"users": '
            yield b"[]}"
    else:

        def body() -> Any:
            yield b'{"users": '
            yield b"[]}"

    response = rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler)), content=body())
    assert (response.status_code, call_of(response).stopped) == (503, Stop.NOT_REPLAYABLE)
    assert sent == [b'{"users": []}']


# -- the app's own manners ---------------------------------------------------------------------------------------------


def test_each_attempt_is_a_request_of_its_own(rig: Rig) -> None:
    seen: list[Any] = []

    def handler(request: Any) -> Any:
        seen.append(request)
        request.headers["x-left-behind"] = "1"
        return rig.flavour.module.Response(503)

    response = rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler)), json={"users": []})
    assert len({id(request) for request in seen}) == 5
    assert len({request.headers["traceparent"] for request in seen}) == 5
    assert all(request.content == seen[0].content for request in seen)
    assert "x-left-behind" not in response.request.headers
    assert "traceparent" not in response.request.headers


def test_the_response_belongs_to_the_apps_request(rig: Rig) -> None:
    response = rig.flavour.post(UPSERT, transport=rig.answers(503, OK), json={})
    assert str(response.request.url) == UPSERT
    assert response.json() == OK[1]


def test_an_exception_is_the_transports_own_and_knows_the_apps_request(rig: Rig) -> None:
    with pytest.raises(rig.flavour.module.ConnectError) as raised:
        rig.flavour.post(
            UPSERT, transport=rig.answers("ConnectError", settings=Settings(quick_retries=0, spread_retries=0)), json={}
        )
    assert str(raised.value.request.url) == UPSERT


def test_other_hosts_pass_untouched(rig: Rig) -> None:
    seen: list[Any] = []

    def handler(request: Any) -> Any:
        seen.append(request)
        return rig.flavour.module.Response(503)

    response = rig.flavour.post("https://example.com/api", transport=rig.wrap(rig.flavour.answering(handler)), json={})
    assert response.status_code == 503
    assert seen[0] is response.request
    assert "traceparent" not in seen[0].headers
    assert rig.spans.tree() == []
    with pytest.raises(LookupError, match="no Insider call"):
        call_of(response)


def test_call_of_an_exception_from_elsewhere_says_what_to_do() -> None:
    with pytest.raises(LookupError, match=r"Settings\.hosts"):
        call_of(ValueError("other"))


def test_a_transport_within_a_transport_is_one_call(rig: Rig) -> None:
    inner = rig.answers(503, OK)
    response = rig.flavour.post(UPSERT, transport=rig.wrap(inner), json={})
    assert response.status_code == 200
    assert call_of(response).attempts == 2
    assert len(rig.spans.calls()) == 1


def test_calls_share_nothing_but_the_budget(rig: Rig) -> None:
    transport = rig.answers(503, OK, 503, OK)
    for _ in range(2):
        assert call_of(rig.flavour.post(UPSERT, transport=transport, json={})).attempts == 2


def test_five_failures_in_a_row_end_quick_retries_on_that_host_alone(rig: Rig) -> None:
    transport = rig.answers(503, settings=Settings(quick_retries=1, spread_retries=0))
    stops = [call_of(rig.flavour.post(UPSERT, transport=transport, json={})).stopped for _ in range(4)]
    assert stops == [Stop.ATTEMPTS, Stop.ATTEMPTS, Stop.BUDGET, Stop.BUDGET]
    assert call_of(rig.flavour.post(MAIL, transport=transport, json={})).stopped is Stop.ATTEMPTS


def test_an_error_of_the_transport_that_is_no_http_error_passes_through(rig: Rig) -> None:
    def handler(request: Any) -> Any:
        raise ZeroDivisionError("a bug in a transport")

    with pytest.raises(ZeroDivisionError):
        rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler)), json={})
    (call,) = rig.spans.calls()
    assert call.attributes["insider.outcome"] == "failed"


# -- bodies on a real socket -------------------------------------------------------------------------------------------


@pytest.fixture
def wired(server: Wire) -> Settings:
    return Settings(hosts={server.address: "unification.useinsider.com"}, quick_delay=0.01)


def upsert(flavour: Flavour, server: Wire, transport: Any, **options: Any) -> Any:
    return flavour.post(server.url + "/api/user/v1/upsert", transport=transport, json={"users": []}, **options)


def test_a_body_that_breaks_off_is_retried_before_the_app_sees_it(rig: Rig, server: Wire, wired: Settings) -> None:
    server.script = [Reply(body=b'{"data": {"succ', claim=500)]
    response = upsert(rig.flavour, server, rig.wrap(settings=wired))
    assert (response.json()["data"]["successful"]["count"], call_of(response).attempts) == (1, 2)


def test_a_reset_connection_is_retried(rig: Rig, server: Wire, wired: Settings) -> None:
    server.script = [Reply(reset=True)]
    assert call_of(upsert(rig.flavour, server, rig.wrap(settings=wired))).attempts == 2


def test_a_refusal_whose_body_breaks_off_is_still_a_refusal(rig: Rig, server: Wire, wired: Settings) -> None:
    server.script = [Reply(status=401, body=b'{"error": "Bad Api', claim=500)]
    with pytest.raises(rig.flavour.module.TransportError) as raised:
        upsert(rig.flavour, server, rig.wrap(settings=wired))
    assert call_of(raised.value).verdict.category is Category.AUTHENTICATION
    assert call_of(raised.value).attempts == 1


def test_a_large_download_streams_through_and_the_call_covers_it(rig: Rig, server: Wire, wired: Settings) -> None:
    body = b"[" + b'{"id": 1},' * 200_000 + b"{}]"
    server.script = [Reply(body=body)]
    url = server.url + "/api/user/v1/profile"
    unfinished: list[bool] = []
    streamed = rig.flavour.stream(
        url, on_open=lambda response: unfinished.append(rig.spans.calls() == []), transport=rig.wrap(settings=wired)
    )
    assert streamed == body
    assert unfinished == [True]
    assert [call.attributes["insider.outcome"] for call in rig.spans.calls()] == ["succeeded"]


def test_a_large_download_that_breaks_off_fails_the_call(rig: Rig, server: Wire, wired: Settings) -> None:
    server.script = [Reply(body=b"[" + b"1," * 400_000, claim=5_000_000)]
    with pytest.raises(rig.flavour.module.TransportError):
        upsert(rig.flavour, server, rig.wrap(settings=wired))
    (call,) = rig.spans.calls()
    assert call.attributes["insider.outcome"] == "failed"
    assert call.attributes["error.type"] == "network"


def test_a_long_answer_that_is_not_read_ends_its_call_when_it_is_closed(
    rig: Rig, server: Wire, wired: Settings
) -> None:
    server.script = [Reply(body=b"[" + b"1," * 400_000 + b"1]")]
    rig.flavour.stream(server.url + "/api/user/v1/profile", read=False, transport=rig.wrap(settings=wired))
    gc.collect()
    assert [call.attributes["insider.outcome"] for call in rig.spans.calls()] == ["succeeded"]


def test_a_stream_of_events_is_not_held_back_for_a_verdict(rig: Rig, server: Wire, wired: Settings) -> None:
    server.script = [Reply(body=b"data: 1\n\n", headers={"content-type": "text/event-stream"})]
    response = upsert(rig.flavour, server, rig.wrap(settings=wired))
    assert response.text == "data: 1\n\n"
    assert call_of(response).verdict.category is Category.SUCCESS


def test_a_compressed_answer_is_read_for_the_verdict_and_left_whole(rig: Rig, server: Wire, wired: Settings) -> None:
    failed = b'{"data": {"successful": {"count": 1}, "fail": {"count": 2, "errors": {}}}}'
    server.script = [Reply(body=gzip.compress(failed), headers={"content-encoding": "gzip"})]
    response = upsert(rig.flavour, server, rig.wrap(settings=wired))
    assert response.content == failed
    assert call_of(response).verdict.failed == 2


def test_a_decompression_bomb_is_not_unpacked_for_the_verdict(
    rig: Rig, server: Wire, wired: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def measuring(status: int | None, body: bytes = b"", **more: Any) -> Verdict:
        sizes.append(len(body))
        return classify(status, body, **more)

    monkeypatch.setattr(attempt, "classify", measuring)
    server.script = [Reply(body=gzip.compress(b" " * 50_000_000), headers={"content-encoding": "gzip"})]

    rig.flavour.stream(server.url + "/api/user/v1/profile", read=False, transport=rig.wrap(settings=wired))
    assert sizes == [256 * 1024]


def test_a_coding_that_makes_megabytes_of_some_bytes_is_decoded_in_small_pieces(
    insider_spans: Any, server: Wire, wired: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As brotli does; its package need not be here. httpx2 bounds its decoders itself."""
    pieces: list[int] = []

    class Brotli:
        def decode(self, data: bytes) -> bytes:
            pieces.append(len(data))
            return b" " * (len(data) * 1_000_000)

        def flush(self) -> bytes:
            return b""

    monkeypatch.setitem(import_module("httpx._decoders").SUPPORTED_DECODERS, "br", Brotli)
    server.script = [Reply(body=b"b" * 1000, headers={"content-encoding": "br"})]
    rig = Rig(Flavour(httpx, is_async=False), insider_spans, FakeClock())
    rig.flavour.stream(server.url + "/api/user/v1/profile", read=False, transport=rig.wrap(settings=wired))
    assert pieces == [16]


# -- in tests ----------------------------------------------------------------------------------------------------------


def test_a_test_run_neither_sleeps_nor_repeats_itself(flavour: Flavour, server: Wire, wired: Settings) -> None:
    transport_class = AsyncInsiderTransport if flavour.is_async else InsiderTransport
    server.script = [Reply(status=503), Reply(status=429, body=b'{"error": "rejected: too many requests"}')]
    with set_testing(attempts=2):
        response = upsert(flavour, server, transport_class(flavour.transport_class(), settings=wired))
        assert (response.status_code, call_of(response).attempts) == (429, 2)
        again = upsert(flavour, server, transport_class(flavour.transport_class(), settings=wired))
    assert (again.status_code, call_of(again).attempts) == (200, 1)
