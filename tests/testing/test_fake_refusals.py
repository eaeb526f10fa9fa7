"""Credentials, sizes, duplicates and rate limits: what the fake refuses, and how each host says so."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from insider_otel import Category, classify
from insider_otel.api.operations import Limit, operations, operations_by_name
from insider_otel.testing import FakeClock, FakeInsider, sample_request

from .conftest import Ask, asking
from .test_fake_answers import is_documented

WITH_KEYS = [operation for operation in operations() if operation.credentials]
LIMITED = [operation for operation in operations() if operation.limit is not None]


def without_credentials(name: str) -> tuple[dict[str, str], Any]:
    """The headers and body of a sample without its credentials."""
    sample = sample_request(name)
    headers = {key: value for key, value in sample.headers.items() if key not in sample.operation.credentials}
    body = sample.json
    if isinstance(body, dict):
        body = {key: value for key, value in body.items() if f"body:{key}" not in sample.operation.credentials}
    return headers, body


# ----------------------------------------------------------------------------------------------------- credentials


@pytest.mark.parametrize("operation", WITH_KEYS, ids=lambda operation: operation.name)
def test_a_request_without_credentials_is_not_let_in(operation: Any, ask: Ask, fake: FakeInsider) -> None:
    headers, body = without_credentials(operation.name)
    content = b"grant_type=client_credentials" if operation.name == "gateway.token" else None
    options = {} if content is None else {"content": content}
    response = ask(operation.name, body, headers=headers, **options)
    verdict = classify(response.status_code, response.content, headers=response.headers, url=str(response.url))
    assert response.status_code in {400, 401, 403}
    assert verdict.category in {Category.AUTHENTICATION, Category.PERMISSION}
    assert not fake.requests[-1].accepted


@pytest.mark.parametrize("operation", WITH_KEYS, ids=lambda operation: operation.name)
def test_a_wrong_key_is_not_let_in(operation: Any, clock: FakeClock) -> None:
    right = dict.fromkeys(operation.credentials, "another-key")
    fake = FakeInsider(clock=clock, credentials=right)
    assert asking(fake)(operation.name).status_code in {400, 401, 403}
    assert not fake.requests[-1].accepted


def test_the_right_key_is_let_in() -> None:
    fake = FakeInsider(
        credentials={"x-request-token": "fake-key", "Authorization": "fake-key", "body:api_key": "fake-key"}
    )
    ask = asking(fake)
    assert ask("user.upsert").status_code == 200
    assert ask("web_push.create").status_code == 201
    assert ask("push.bulk").status_code == 200


def test_a_partner_name_is_lower_case(ask: Ask) -> None:
    headers = sample_request("user.upsert").headers | {"X-PARTNER-NAME": "FakeShop"}
    assert is_documented(ask("user.upsert", headers=headers), "authentication_failed_no_body")


def test_the_gateway_takes_the_client_from_header_or_body(ask: Ask) -> None:
    form = {"Content-Type": "application/x-www-form-urlencoded"}
    grant = b"grant_type=client_credentials"
    assert ask("gateway.token", headers=form | {"Authorization": "Basic YTpi"}, content=grant).status_code == 200
    assert ask("gateway.token", headers=form, content=grant).status_code == 401


def test_credentials_are_never_remembered(ask: Ask, fake: FakeInsider) -> None:
    for name in ("user.upsert", "push.notify", "gateway.token", "web_push.create", "push.certificate_upload"):
        ask(name)
    assert "fake-key" not in repr(fake.requests)
    assert "not a key" not in repr(fake.requests)
    assert fake.requests[0].headers["x-partner-name"] == "***"


# -------------------------------------------------------------------------------------------------------- the body


@pytest.mark.parametrize(
    ("operation", "name"),
    [
        ("user.upsert", "invalid_request_payload"),
        ("catalog.ingest", "body_not_json"),
        ("verify.generate", "invalid_request_payload_list"),
        ("contact.email_subscribe", "bad_request"),
        ("inapp.details", "invalid_request_payload"),
    ],
)
@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[" * 100_000, b"[" * 500 + b"]" * 500, b"\xff\xfe"],
    ids=["empty", "cut", "deep", "nested", "not-utf-8"],
)
def test_a_body_that_is_no_json_is_refused(operation: str, name: str, body: bytes, ask: Ask) -> None:
    assert is_documented(ask(operation, content=body), name)


def test_mail_wants_its_content_type(ask: Ask) -> None:
    headers = {"X-INS-AUTH-KEY": "any", "Content-Type": "text/plain"}
    assert is_documented(ask("mail.send", headers=headers), "content_type_not_json")
    headers["Content-Type"] = "application/json; charset=utf-8"
    assert ask("mail.send", headers=headers).status_code == 202


def test_live_activities_want_their_content_type(ask: Ask) -> None:
    assert ask("live_activity.register", headers={"X-Api-Key": "any"}).json()["code"] == "BAD_REQUEST"


def test_other_hosts_do_not_look_at_the_content_type(ask: Ask) -> None:
    headers = {"X-PARTNER-NAME": "fakeshop", "X-REQUEST-TOKEN": "any"}
    assert ask("user.upsert", headers=headers).status_code == 200


def test_a_body_over_five_million_bytes_is_refused(ask: Ask) -> None:
    assert is_documented(ask("user.upsert", content=b"[" + b" " * 5_000_000), "body_over_5mb")
    assert is_documented(ask("catalog.ingest", content=b"[" + b" " * 5_000_000), "request_size_exceeded")


@pytest.mark.parametrize(
    "operation", [each for each in operations() if each.max_records is not None], ids=lambda operation: operation.name
)
def test_one_record_more_than_allowed_is_refused(operation: Any, ask: Ask, fake: FakeInsider) -> None:
    sample = sample_request(operation.name).json
    field = next(name for name in operation.records if not name or name in sample)
    held = sample[field] if field else sample
    many = [held[0]] * (operation.max_records + 1)
    response = ask(operation.name, sample | {field: many} if field else many)
    assert 400 <= response.status_code < 500
    assert not fake.requests[-1].accepted


def test_as_many_records_as_allowed_are_taken(ask: Ask) -> None:
    users = [{"identifiers": {"uuid": f"u{number}"}} for number in range(1_000)]
    assert ask("user.upsert", {"users": users}).json()["data"]["successful"] == {"count": 1_000}


@pytest.mark.parametrize(
    ("method", "url", "status"),
    [
        ("POST", "https://mail.useinsider.com/mail/v9/send", 404),
        ("GET", "https://mail.useinsider.com/mail/v1/send", 404),
        ("POST", "https://mail.useinsider.com/MAIL/v1/send", 404),
        ("GET", "https://architect-analytics.api.useinsider.com/v1/JOURNEY/1", 404),
        ("POST", "https://example.com/anything", 404),
    ],
)
def test_only_the_documented_path_is_there(method: str, url: str, status: int, fake: FakeInsider) -> None:
    with httpx.Client(transport=fake.transport()) as client:
        response = client.request(method, url, headers={"X-INS-AUTH-KEY": "any", "Authorization": "Bearer any"})
    assert response.status_code == status
    assert not fake.requests[-1].accepted


# ------------------------------------------------------------------------------------------------------ duplicates


def test_the_same_mail_is_ignored_for_15_minutes(ask: Ask, fake: FakeInsider, clock: FakeClock) -> None:
    assert ask("mail.send").json()["status_message"] == "accepted"
    clock.advance(899.9)
    again = ask("mail.send")
    assert again.status_code == 202
    assert classify(again.status_code, again.content).category is Category.DUPLICATE
    assert len(fake.accepted("mail.send")) == 1
    clock.advance(0.1)
    assert ask("mail.send").json()["status_message"] == "accepted"
    assert len(fake.accepted("mail.send")) == 2


def test_another_mail_another_key_and_another_order_of_keys(ask: Ask) -> None:
    body = sample_request("mail.send").json
    ask("mail.send", body)
    reordered = ask("mail.send", dict(reversed(body.items())))
    assert "already been received" in reordered.text
    assert "accepted" in ask("mail.send", body | {"subject": "Another"}).text
    headers = {"X-INS-AUTH-KEY": "another", "Content-Type": "application/json"}
    assert "accepted" in ask("mail.send", body, headers=headers).text


def test_a_mail_that_was_refused_is_no_duplicate(ask: Ask) -> None:
    body = sample_request("mail.send").json | {"subject": ""}
    assert is_documented(ask("mail.send", body), "missing_subject")
    assert is_documented(ask("mail.send", body), "missing_subject")


def test_only_mail_has_a_duplicate_window(ask: Ask, fake: FakeInsider) -> None:
    for _ in range(2):
        ask("sms.send")
        ask("user.upsert")
    assert len(fake.accepted("sms.send")) == len(fake.accepted("user.upsert")) == 2


def test_the_status_of_a_duplicate_can_be_chosen() -> None:
    ask = asking(FakeInsider(duplicate_status=409))
    assert [ask("mail.send").status_code for _ in range(2)] == [202, 409]


# ----------------------------------------------------------------------------------------------------- rate limits


def test_a_window_rolls(clock: FakeClock) -> None:
    ask = asking(FakeInsider(clock=clock, limits={"user.upsert": "2/60s"}))
    statuses = []
    for pause in (0, 30, 0, 29.9, 0.1, 0):
        clock.advance(pause)
        statuses.append(ask("user.upsert").status_code)
    # Two at 0 s and 30 s; room again at 60 s, when the first is a minute old, and not before.
    assert statuses == [200, 200, 429, 429, 200, 429]


def test_a_pool_is_shared_and_a_key_has_its_own(clock: FakeClock) -> None:
    ask = asking(FakeInsider(clock=clock, limits={"user.upsert": "1/60s"}))
    assert ask("user.upsert").status_code == 200
    assert is_documented(ask("user.attribute_delete"), "rate_limit_exceeded")
    headers = sample_request("user.upsert").headers | {"X-REQUEST-TOKEN": "another"}
    assert ask("user.upsert", headers=headers).status_code == 200


@pytest.mark.parametrize("operation", LIMITED, ids=lambda operation: operation.name)
def test_one_request_too_many_is_a_rate_limit_in_the_words_of_its_host(operation: Any, clock: FakeClock) -> None:
    once = Limit(1, 60, calendar=operation.limit.calendar)
    fake = FakeInsider(clock=clock, limits={operation.pool: once}, retry_after=True)
    ask = asking(fake)
    if operation.name in {"user.identity_update", "user.identity_delete", "user.profile", "user.anonymize"}:
        ask("user.upsert")
    ask(operation.name)
    response = ask(operation.name)
    verdict = classify(response.status_code, response.content, headers=response.headers, url=str(response.url))
    assert verdict.category is Category.RATE_LIMIT, response.text
    assert int(response.headers["retry-after"]) in {60, 86_400}
    assert response.status_code == (403 if operation.pool == "web_push.top_metrics" else 429)


def test_insider_mostly_does_not_say_when_to_come_back(clock: FakeClock) -> None:
    ask = asking(FakeInsider(clock=clock, limits={"mail.send": "1/1s"}))
    ask("mail.send")
    response = ask("mail.send")
    assert response.status_code == 429
    assert "retry-after" not in response.headers


def test_the_documented_limit_holds_by_itself(ask: Ask) -> None:
    assert [ask("whatsapp.conversational_send").status_code for _ in range(11)] == [200] * 10 + [429]


def test_the_export_is_allowed_once_a_day_and_failures_do_not_count(ask: Ask, clock: FakeClock) -> None:
    clock.advance(86_399)
    assert ask("raw.export", content=b"{").status_code == 400
    assert ask("raw.export").status_code == 200
    assert ask("raw.export").status_code == 429
    clock.advance(1)
    assert ask("raw.export").status_code == 200


def test_profiles_use_up_units_and_not_requests(clock: FakeClock) -> None:
    ask = asking(FakeInsider(clock=clock, limits={"user.profile": Limit(3, 60, unit="quota")}))
    ask("user.upsert")
    assert [ask("user.profile").status_code for _ in range(3)] == [200, 200, 429]


def test_a_limit_can_be_lifted() -> None:
    ask = asking(FakeInsider(clock=FakeClock(), limits={"whatsapp.conversational_send": None}))
    assert {ask("whatsapp.conversational_send").status_code for _ in range(20)} == {200}


@pytest.mark.parametrize(
    ("limits", "message"),
    [
        ({"user.upsertt": "1/1s"}, "did you mean 'user.upsert'"),
        ({"user.attribute_delete": "1/1s"}, "shares the limit of 'user.upsert'"),
        ({"user.upsert": "many"}, "25000/60s"),
    ],
)
def test_a_limit_that_makes_no_sense_is_an_error(limits: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        FakeInsider(limits=limits)


def test_every_refusal_of_a_host_is_known_to_the_table() -> None:
    from insider_otel.testing._dialects import _table

    places = {operation.host for operation in operations()} | set(operations_by_name()) | {"default"}
    reasons = {
        "no_key",
        "wrong_key",
        "not_json",
        "not_json_type",
        "too_many_bytes",
        "too_many_records",
        "too_many_requests",
    }
    for section, said in _table().items():
        assert section in places
        assert set(said) <= reasons
