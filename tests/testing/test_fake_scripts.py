"""Scripted faults, in process, for every kind of client; time passes on the fake's clock."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from types import ModuleType
from typing import Any

import httpx
import pytest

from insider_otel.api.responses import responses
from insider_otel.testing import (
    FakeClock,
    FakeInsider,
    delay,
    documented,
    reply,
    reset,
    sample_request,
    timeout,
    truncate,
)

from .conftest import Ask, asking
from .test_fake_answers import is_documented

Send = Callable[..., Any]
MAIL = sample_request("mail.send")


@pytest.mark.parametrize("row", responses(), ids=lambda row: row.id)
def test_every_documented_response_can_be_scripted_by_its_id(row: Any, ask: Ask, fake: FakeInsider) -> None:
    fake.script("mail.send", documented(row.id))
    response = ask("mail.send")
    assert response.status_code == (row.status or 202)
    assert response.text == row.body


def test_steps_follow_each_other_and_then_it_answers_as_usual(ask: Ask, fake: FakeInsider) -> None:
    fake.script("mail.send", "service_unavailable", "gateway_timeout", "ok", "server_error_list")
    assert [ask("mail.send").status_code for _ in range(5)] == [503, 504, 202, 500, 202]


def test_a_script_is_for_its_operation_and_a_star_for_any_other(ask: Ask, fake: FakeInsider) -> None:
    fake.script("mail.send", "service_unavailable")
    fake.script("*", "gateway_timeout")
    assert [ask(name).status_code for name in ("mail.send", "sms.send", "mail.send")] == [503, 504, 202]


def test_a_script_can_begin_again(ask: Ask, fake: FakeInsider) -> None:
    fake.script("sms.send", "service_unavailable", "ok", repeat=True)
    assert [ask("sms.send").status_code for _ in range(4)] == [503, 202, 503, 202]
    fake.script("sms.send")
    assert ask("sms.send").status_code == 202


def test_a_reply_of_your_own(ask: Ask, fake: FakeInsider) -> None:
    fake.script("sms.send", reply(429, {"detail": "slow down"}, {"Retry-After": "7"}), reply(502, "<html>"))
    first, second = ask("sms.send"), ask("sms.send")
    assert (first.status_code, first.json(), first.headers["retry-after"]) == (429, {"detail": "slow down"}, "7")
    assert first.headers["content-type"] == "application/json"
    assert (second.text, second.headers["content-type"]) == ("<html>", "text/plain; charset=utf-8")


def test_a_documented_reply_with_another_status_and_more_headers(ask: Ask, fake: FakeInsider) -> None:
    fake.script("sms.send", documented("rate_limit_exceeded", status=403, headers={"Retry-After": "9"}))
    response = ask("sms.send")
    assert (response.status_code, response.headers["retry-after"]) == (403, "9")


def test_a_fault_comes_before_the_work_unless_it_says_otherwise(ask: Ask, fake: FakeInsider) -> None:
    fake.script("mail.send", "gateway_timeout", documented("gateway_timeout", processed=True))
    assert [ask("mail.send").status_code for _ in range(2)] == [504, 504]
    assert [request.accepted for request in fake.requests] == [False, True]
    assert "already been received" in ask("mail.send").text
    assert len(fake.accepted("mail.send")) == 1


def test_a_fault_spends_nothing_of_the_limit(fake: FakeInsider, ask: Ask) -> None:
    fake.script("whatsapp.send", *["service_unavailable"] * 20)
    assert {ask("whatsapp.send").status_code for _ in range(20)} == {503}
    assert ask("whatsapp.send").status_code == 200


# ----------------------------------------------------------------------------------- what the clients make of it


def test_every_client_gets_an_answer_in_its_own_classes(fake: FakeInsider, family: ModuleType, send: Send) -> None:
    response = send(MAIL, transport=fake.transport())
    assert type(response) is family.Response
    assert response.status_code == 202
    assert fake.requests[-1].json["subject"] == "Your order"


def test_a_reset_is_a_read_error(fake: FakeInsider, family: ModuleType, send: Send) -> None:
    fake.script("mail.send", reset(), reset(processed=True))
    for accepted in (False, True):
        with pytest.raises(family.ReadError):
            send(MAIL, transport=fake.transport())
        assert (fake.requests[-1].accepted, fake.requests[-1].status) == (accepted, None)


def test_silence_is_a_read_timeout_after_the_clients_patience(
    fake: FakeInsider, clock: FakeClock, family: ModuleType, send: Send
) -> None:
    fake.script("mail.send", timeout(processed=True))
    with pytest.raises(family.ReadTimeout):
        send(MAIL, transport=fake.transport(), timeout=2.5)
    assert clock.sleeps == [2.5]
    assert "already been received" in send(MAIL, transport=fake.transport()).text


def test_silence_does_not_hang_a_client_without_a_timeout(fake: FakeInsider, family: ModuleType, send: Send) -> None:
    fake.script("mail.send", timeout())
    with pytest.raises(family.ReadTimeout):
        send(MAIL, transport=fake.transport(), timeout=None)


def test_a_delay_passes_on_the_fakes_clock(fake: FakeInsider, clock: FakeClock, send: Send) -> None:
    fake.script("mail.send", delay(4.0), delay(1.0, "service_unavailable"))
    assert send(MAIL, transport=fake.transport(), timeout=5).status_code == 202
    assert send(MAIL, transport=fake.transport(), timeout=5).status_code == 503
    assert clock.sleeps == [4.0, 1.0]


def test_a_delay_beyond_the_clients_patience_is_a_read_timeout_of_work_that_was_done(
    fake: FakeInsider, clock: FakeClock, family: ModuleType, send: Send
) -> None:
    fake.script("mail.send", delay(60))
    with pytest.raises(family.ReadTimeout):
        send(MAIL, transport=fake.transport(), timeout=5)
    assert clock.sleeps == [5]
    assert len(fake.accepted("mail.send")) == 1


@pytest.mark.parametrize("after_bytes", [0, 10, 10_000])
def test_a_truncated_body_is_a_protocol_error(
    after_bytes: int, fake: FakeInsider, family: ModuleType, send: Send
) -> None:
    fake.script("mail.send", truncate(after_bytes), truncate(after_bytes, "service_unavailable"))
    for _ in range(2):
        with pytest.raises(family.RemoteProtocolError, match="without sending complete"):
            send(MAIL, transport=fake.transport())


def test_what_came_before_the_break_can_be_read(fake: FakeInsider) -> None:
    fake.script("mail.send", truncate(12))
    got: list[bytes] = []
    with (
        httpx.Client(transport=fake.transport()) as client,
        client.stream(MAIL.method, MAIL.url, headers=MAIL.headers, content=MAIL.content) as response,
        pytest.raises(httpx.RemoteProtocolError),
    ):
        got.extend(response.iter_raw())
    assert got == [b'{"message_id']


def test_a_streamed_request_body_is_read(fake: FakeInsider) -> None:
    with httpx.Client(transport=fake.transport()) as client:
        response = client.request(MAIL.method, MAIL.url, headers=MAIL.headers, content=iter([MAIL.content]))
    assert response.status_code == 202


def test_a_real_clock_is_really_waited_on(family: ModuleType, send: Send) -> None:
    fake = FakeInsider()
    fake.script("mail.send", delay(0.05))
    started = time.perf_counter()
    send(MAIL, transport=fake.transport())
    assert time.perf_counter() - started >= 0.05


def test_threads_share_a_fake(fake: FakeInsider) -> None:
    def work() -> None:
        with httpx.Client(transport=fake.transport()) as client:
            for _ in range(20):
                client.request(MAIL.method, MAIL.url, headers=MAIL.headers, content=MAIL.content)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(fake.requests) == 160
    assert len(fake.accepted("mail.send")) == 1


# ------------------------------------------------------------------------------------------------------ mistakes


@pytest.mark.parametrize(
    ("operation", "step", "message"),
    [
        ("mail.sent", "ok", "did you mean 'mail.send'"),
        ("mail.send", "service_unavailabel", "did you mean 'service_unavailable'"),
        ("nothing.at_all", "ok", "insider-otel operations"),
    ],
)
def test_a_typing_error_in_a_script_says_what_was_meant(
    operation: str, step: str, message: str, fake: FakeInsider
) -> None:
    with pytest.raises(ValueError, match=message):
        fake.script(operation, step)


def test_a_step_of_another_kind_is_an_error(fake: FakeInsider) -> None:
    with pytest.raises(TypeError, match="503"):
        fake.script("mail.send", 503)  # type: ignore[arg-type]


def test_asking_for_an_operation_that_does_not_exist_is_an_error(fake: FakeInsider) -> None:
    with pytest.raises(ValueError, match=r"did you mean 'sms\.send'"):
        fake.accepted("sms.sendd")


def test_reset_forgets_everything(fake: FakeInsider, ask: Ask) -> None:
    ask("mail.send")
    ask("user.upsert")
    ask("verify.generate")
    for _ in range(10):
        ask("whatsapp.send")
    fake.script("sms.send", "service_unavailable", repeat=True)
    fake.reset()
    assert fake.requests == []
    assert fake.profile(email="jane@example.com") is None
    assert fake.code("+905550000001") is None
    assert ask("sms.send").status_code == 202
    assert ask("whatsapp.send").status_code == 200
    assert ask("mail.send").json()["status_message"] == "accepted"


def test_a_fake_can_be_told_to_remember_the_latest_requests_only(clock: FakeClock) -> None:
    fake = FakeInsider(clock=clock, keep=2)
    ask = asking(fake)
    for name in ("mail.send", "sms.send", "user.upsert"):
        ask(name)
    assert [request.operation for request in fake.requests] == ["sms.send", "user.upsert"]


def test_remembering_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match="keep is 0; it is 1 or more, or None"):
        FakeInsider(keep=0)


def test_two_fakes_give_the_same_ids_and_codes() -> None:
    def said() -> list[str]:
        fake = FakeInsider(clock=FakeClock())
        with httpx.Client(transport=fake.transport()) as client:
            for name in ("mail.send", "verify.generate"):
                sample = sample_request(name)
                client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)
        return [str(fake.code("+905550000001")), str(fake.requests[0])]

    assert said() == said()


def test_ok_is_the_usual_answer_and_not_the_sample_of_that_id(fake: FakeInsider, ask: Ask) -> None:
    fake.script("sms.send", "ok", documented("ok"))
    assert ask("sms.send").json()["message"] == "Accepted"
    assert is_documented(ask("sms.send"), "ok")
