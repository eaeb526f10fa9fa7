"""What the fake answers to good requests, and to requests that are good in form and wrong in content."""

from __future__ import annotations

import json
from typing import Any

import pytest

from insider_otel import Category, classify
from insider_otel.api.operations import operations
from insider_otel.api.responses import responses
from insider_otel.testing import FakeClock, FakeInsider, sample_request
from insider_otel.testing._answers import ANSWERS
from insider_otel.testing.samples import exchanges

from .conftest import Ask

JANE = {"email": "jane@example.com"}
PHONE = "+905550000001"
DOCUMENTED = {row.id: row for row in responses()}


def is_documented(response: Any, name: str) -> bool:
    """Whether a reply is the documented one, but for white space."""
    row = DOCUMENTED[name]
    return (response.status_code, read(response.text)) == (row.status, read(row.body or ""))


def read(text: str) -> Any:
    """A body as JSON, or as it is."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def prepared(name: str, ask: Ask, fake: FakeInsider) -> Any:
    """The body with which an operation succeeds, after what has to come before it; None for its sample."""
    if name in {"user.identity_update", "user.identity_delete", "user.profile", "user.anonymize"}:
        ask("user.upsert")
    if name == "contact.anonymize":
        ask("user.upsert", {"users": [{"insider_id": "1122334455"}]})
    if name == "verify.check":
        ask("verify.generate")
        return {"to": PHONE, "code": fake.code(PHONE)}
    if name.startswith("live_activity.") and name != "live_activity.register":
        activity = ask("live_activity.register").json()["activity_id"]
        body = sample_request(name).json | {"activity_id": activity}
        if name in {"live_activity.update", "live_activity.end"}:
            ask("live_activity.start", sample_request("live_activity.start").json | {"activity_id": activity})
        return body
    return None


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.name)
def test_every_operation_has_a_good_request_that_is_answered_with_success(
    operation: Any, ask: Ask, fake: FakeInsider
) -> None:
    response = ask(operation.name, prepared(operation.name, ask, fake))
    verdict = classify(response.status_code, response.content, headers=response.headers, url=str(response.url))
    assert verdict.category in {Category.SUCCESS, Category.ACCEPTED}, response.text
    assert fake.requests[-1].operation == operation.name
    assert fake.requests[-1].accepted


def test_every_operation_has_one_source_of_its_reply() -> None:
    fixed = {name for name, exchange in exchanges().items() if exchange.reply is not None}
    assert set(exchanges()) == {operation.name for operation in operations()}
    assert fixed & set(ANSWERS) == set()
    assert fixed | set(ANSWERS) == set(exchanges())


def test_a_reply_comes_as_from_cloudflare(ask: Ask) -> None:
    first, second = ask("user.upsert"), ask("user.upsert")
    assert first.headers["server"] == "cloudflare"
    assert first.headers["content-type"] == "application/json"
    assert first.headers["cf-ray"] != second.headers["cf-ray"]


# ----------------------------------------------------------------------------------------------------------- users


def test_what_was_upserted_can_be_read(ask: Ask, fake: FakeInsider) -> None:
    ask("user.upsert")
    read = ask("user.profile").json()
    assert read["attributes"]["email"] == "jane@example.com"
    assert read["attributes"]["custom"] == {"loyalty": "gold"}
    assert read["events"] == {"purchase": [{"product_id": "SKU1", "created_date": "2026-01-01T09:00:00Z"}]}
    profile = fake.profile(phone_number=PHONE)
    assert profile is not None
    assert profile.attributes["age"] == 30


def test_a_profile_shows_only_the_attributes_asked_for(ask: Ask) -> None:
    ask("user.upsert")
    assert ask("user.profile", {"identifiers": JANE, "attributes": ["age"]}).json()["attributes"] == {"age": 30}


def test_an_event_is_found_by_its_name_and_its_moment_may_be_a_number(ask: Ask) -> None:
    events = [{"event_name": "login", "timestamp": 1_767_225_600}, {"event_name": "logout"}]
    ask("user.upsert", {"users": [{"identifiers": JANE, "events": events}]})
    read = ask("user.profile", {"identifiers": JANE, "events": {"wanted": ["login"]}}).json()
    assert read["events"] == {"login": [{"created_date": "2026-01-01T00:00:00Z"}]}


def test_a_second_upsert_updates_the_same_user(ask: Ask, fake: FakeInsider) -> None:
    ask("user.upsert", {"users": [{"identifiers": JANE, "attributes": {"age": 30, "lists": [1]}}]})
    more = {"identifiers": {**JANE, "custom": {"card": "C1"}}, "attributes": {"age": 31, "lists": [1, 2]}}
    ask("user.upsert", {"users": [more]})
    ask("user.upsert", {"users": [{"identifiers": {"custom": {"card": "C1"}}, "attributes": {"lists": [3]}}]})
    profile = fake.profile(email="jane@example.com")
    assert profile is not None
    assert profile.attributes == {"age": 31, "lists": [1, 2, 3]}
    ask("user.upsert", {"users": [{"identifiers": JANE, "not_append": True, "attributes": {"lists": [9]}}]})
    assert profile.attributes["lists"] == [9]


@pytest.mark.parametrize(
    ("user", "path"),
    [
        ({"attributes": {"age": 30}}, "identifiers.required"),
        ({"identifiers": {"email": "jane"}}, "identifiers.*.regexp(^.+@.+\\..+$)"),
        ({"identifiers": {"phone_number": "0555"}}, "identifiers.*.regexp(^\\+[1-9]\\d{6,14}$)"),
        ({"identifiers": {"uuid": 12345}}, "identifiers.*.type(string)"),
        ({"identifiers": JANE, "attributes": {"email": "jane"}}, "attributes.*.regexp(^.+@.+\\..+$)"),
        ({"identifiers": JANE, "events": [{}]}, "events.0.event_name.required"),
        ({"identifiers": JANE, "events": [{"event_name": "purchase"}]}, "events.0.event_params.*.required"),
    ],
)
def test_a_bad_user_is_counted_next_to_a_good_one_with_status_200(user: Any, path: str, ask: Ask) -> None:
    response = ask("user.upsert", {"users": [{"identifiers": {"uuid": "u1"}}, user]})
    data = response.json()["data"]
    assert response.status_code == 200
    assert data["successful"] == {"count": 1}
    assert data["fail"]["count"] == 1
    assert f"users.1.{path}" in data["fail"]["errors"]


def test_an_upsert_of_bad_users_only_is_still_200(ask: Ask) -> None:
    response = ask("user.upsert", {"users": [{}]})
    assert response.status_code == 200
    assert response.json()["data"]["successful"] == {}


def test_a_purchase_names_all_it_misses(ask: Ask) -> None:
    event = {"event_name": "purchase", "event_params": {"currency": "USD"}}
    response = ask("user.upsert", {"users": [{"identifiers": JANE, "events": [event]}]})
    assert response.json()["data"]["fail"]["errors"]["users.0.events.0.event_params.*.required"] == [
        "event_group_id parameter is required on purchase event",
        "unit_sale_price parameter is required on purchase event",
    ]


@pytest.mark.parametrize("body", [{"users": []}, {"users": "jane"}, {}, []])
def test_an_upsert_without_users_is_refused(body: Any, ask: Ask) -> None:
    assert is_documented(ask("user.upsert", body), "users_not_defined")


def test_attributes_are_deleted_whole_and_in_part(ask: Ask, fake: FakeInsider) -> None:
    ask(
        "user.upsert",
        {"users": [{"identifiers": JANE, "attributes": {"age": 30, "lists": [1, 2], "custom": {"a": 1}}}]},
    )
    gone = {"identifiers": JANE, "whole": ["age"], "partial": {"lists": [1]}, "custom": {"whole": ["a"]}}
    response = ask("user.attribute_delete", {"users": [gone, {"identifiers": {"email": "nobody@example.com"}}]})
    assert response.json()["data"]["successful"] == {"count": 2}
    profile = fake.profile(email="jane@example.com")
    assert profile is not None
    assert profile.attributes == {"lists": [2], "custom": {}}


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({"old_identifier": JANE, "new_identifier": JANE}, "identifiers_same"),
        ({"old_identifier": JANE}, "identifiers_not_exactly_one"),
        ({"old_identifier": JANE, "new_identifier": {"uuid": "taken"}}, "new_identifier_taken"),
        ({"old_identifier": {"uuid": "nobody"}, "new_identifier": {"uuid": "new"}}, "user_not_found"),
    ],
)
def test_an_identifier_that_cannot_be_changed(body: Any, name: str, ask: Ask) -> None:
    ask("user.upsert", {"users": [{"identifiers": JANE}, {"identifiers": {"uuid": "taken"}}]})
    assert is_documented(ask("user.identity_update", body), name)


def test_an_identifier_is_changed(ask: Ask, fake: FakeInsider) -> None:
    ask("user.upsert")
    assert ask("user.identity_update").text == "{}\n"
    assert fake.profile(email="jane.doe@example.com") is not None
    assert fake.profile(email="jane@example.com") is None


def test_the_sole_identifier_stays(ask: Ask) -> None:
    ask("user.upsert", {"users": [{"identifiers": JANE}]})
    assert is_documented(ask("user.identity_delete"), "sole_identifier")
    assert is_documented(ask("user.identity_delete", {"identifiers": {}}), "no_valid_identifier")
    assert is_documented(ask("user.identity_delete", {"identifiers": {"uuid": "nobody"}}), "user_not_found")


def test_a_deleted_user_is_gone(ask: Ask) -> None:
    ask("user.upsert")
    assert ask("user.delete").text == "{}\n"
    assert is_documented(ask("user.profile"), "user_not_found")
    assert ask("user.delete").status_code == 200
    assert is_documented(ask("user.delete", {}), "no_valid_identifier")


def test_an_anonymized_user_is_not_found_again(ask: Ask) -> None:
    ask("user.upsert")
    assert ask("user.anonymize").status_code == 200
    assert is_documented(ask("user.anonymize"), "user_not_found")


def test_a_profile_tells_its_quota(ask: Ask) -> None:
    ask("user.upsert")
    assert ask("user.profile").json()["quota"] == {"cost": 1.5, "used": 1.5, "total": 1000}
    assert ask("user.profile").json()["quota"] == {"cost": 1.5, "used": 3.0, "total": 1000}


# ----------------------------------------------------------------------------------------------------------- codes


def test_a_code_is_accepted_once(ask: Ask, fake: FakeInsider) -> None:
    generated = ask("verify.generate")
    assert generated.status_code == 202
    assert generated.json()["maxAttempts"] == 3
    code = fake.code(PHONE)
    assert code is not None
    assert len(code) == 4
    assert ask("verify.check", {"to": PHONE, "code": code}).json() == {"status": "success"}
    assert is_documented(ask("verify.check", {"to": PHONE, "code": code}), "otp_code_not_found")


def test_too_many_typos_lock_a_code(ask: Ask, fake: FakeInsider) -> None:
    ask("verify.generate", {"channel": "whatsapp", "to": PHONE, "max-attempts": 2, "code-length": 6})
    code = str(fake.code(PHONE))
    assert len(code) == 6
    typo = {"to": PHONE, "code": "x"}
    assert is_documented(ask("verify.check", typo), "otp_code_invalid")
    assert is_documented(ask("verify.check", typo), "otp_code_invalid")
    assert is_documented(ask("verify.check", {"to": PHONE, "code": code}), "otp_attempts_exceeded")


def test_a_code_runs_out(ask: Ask, fake: FakeInsider, clock: FakeClock) -> None:
    ask("verify.generate", {"channel": "sms", "to": PHONE, "ttl": 60})
    code = fake.code(PHONE)
    clock.advance(60)
    assert is_documented(ask("verify.check", {"to": PHONE, "code": code}), "otp_code_not_found")


@pytest.mark.parametrize(
    ("operation", "body", "name"),
    [
        ("verify.generate", {"channel": "pigeon", "to": PHONE}, "channel_not_sms"),
        ("verify.generate", {"channel": "sms", "to": "0555"}, "invalid_phone_for_sms"),
        ("verify.check", {"to": PHONE, "code": "1"}, "otp_code_not_found"),
        ("verify.channel_create", {"channel": "pigeon"}, "channel_not_sms"),
        ("verify.channel_update", {"channel": "pigeon"}, "channel_not_sms"),
        ("verify.template_create", {"channel": "pigeon"}, "channel_not_whatsapp"),
    ],
)
def test_what_verify_refuses(operation: str, body: Any, name: str, ask: Ask) -> None:
    assert is_documented(ask(operation, body), name)


@pytest.mark.parametrize(
    ("operation", "body", "field"),
    [
        ("verify.generate", {"channel": "sms"}, "to"),
        ("verify.check", {"to": PHONE}, "code"),
        ("verify.check", {"code": "1234"}, "to"),
        ("verify.template_create", {"channel": "sms"}, "locale"),
        ("sms.send", {"to": PHONE}, "content"),
        ("sms.send", {"content": "Hello"}, "to"),
        ("sms.send_bulk", {"messages": []}, "messages"),
        ("whatsapp.send", {"messages": []}, "messages"),
        ("whatsapp.send", {"messages": [{"phoneNumber": "0555"}]}, "messages[0].phoneNumber"),
        ("sms.send", {"to": "0555", "content": "Hello"}, "to"),
        ("sms.send", {"to": PHONE, "content": "x" * 671}, "content"),
    ],
)
def test_a_field_that_is_missing_or_wrong_is_named(operation: str, body: Any, field: str, ask: Ask) -> None:
    response = ask(operation, body)
    assert response.status_code == 400
    assert response.json()["errors"][0]["field"] == field


def test_a_channel_is_created_once(ask: Ask) -> None:
    assert ask("verify.channel_create").status_code == 201
    assert is_documented(ask("verify.channel_create"), "channel_already_exists")


def test_a_template_that_does_not_change_is_a_conflict(ask: Ask) -> None:
    assert ask("verify.template_create").status_code == 202
    assert is_documented(ask("verify.template_update"), "no_changes_detected")
    assert ask("verify.template_list").json() == {"templates": {"whatsapp": [{"locale": "en", "templateName": "otp"}]}}


# -------------------------------------------------------------------------------------------------------- messages


@pytest.mark.parametrize(
    ("change", "name"),
    [
        ({"subject": ""}, "missing_subject"),
        ({"tos": []}, "missing_to"),
        ({"from": None}, "missing_from"),
        ({"content": []}, "missing_content"),
        ({"tos": [{"name": "Jane"}]}, "missing_email_in_tos"),
        ({"callback": {"url": "nowhere"}}, "invalid_callback_url"),
        ({"callback": {"url": 5}}, "invalid_callback_url"),
    ],
)
def test_a_mail_that_is_refused(change: dict[str, Any], name: str, ask: Ask, fake: FakeInsider) -> None:
    assert is_documented(ask("mail.send", sample_request("mail.send").json | change), name)
    assert fake.accepted("mail.send") == []


def test_a_template_replaces_the_content_of_a_mail(ask: Ask) -> None:
    body = sample_request("mail.send").json | {
        "content": [],
        "template_id": 7,
        "callback": {"url": "https://a.example"},
    }
    assert ask("mail.send", body).status_code == 202


def test_bulk_sms_takes_the_good_and_names_the_bad(ask: Ask) -> None:
    messages = [
        {"phoneNumber": PHONE, "content": "Hello"},
        {"phoneNumber": "0555", "content": "Hello"},
        {"phoneNumber": PHONE},
    ]
    said = ask("sms.send_bulk", {"messages": messages}).json()
    assert [each["phoneNumber"] for each in said["messageIds"]] == [PHONE]
    assert [each["field"] for each in said["errors"]] == ["messages[1].phoneNumber", "messages[2].content"]


def test_whatsapp_gives_a_key_for_each_message(ask: Ask) -> None:
    message = sample_request("whatsapp.send").json["messages"][0]
    assert len(ask("whatsapp.send", {"messages": [message, message]}).json()["keys"]) == 2


def test_the_gateway_refuses_with_a_code(ask: Ask) -> None:
    response = ask("whatsapp.gateway_send", {"from": PHONE, "messages": []})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "2002")


def test_the_gateway_gives_a_token_for_a_known_grant(ask: Ask) -> None:
    assert ask("gateway.token").json()["expires_in"] == 5400
    wrong = {"grant_type": "password", "client_id": "any", "client_secret": "any"}
    assert ask("gateway.token", wrong).status_code == 400


@pytest.mark.parametrize("operation", ["contact.email_subscribe", "contact.sms_unsubscribe_batch"])
def test_a_subscription_without_an_address_is_refused(operation: str, ask: Ask) -> None:
    assert is_documented(ask(operation, {"name": "Jane"}), "bad_request")


def test_a_segment_has_a_name_of_its_own_and_a_csv_file(ask: Ask) -> None:
    assert ask("segment.upload").json() == {"statusMessage": "OK"}
    assert is_documented(ask("segment.upload"), "segment_name_in_use")
    assert is_documented(ask("segment.upload", {"segmentName": "x" * 41}), "invalid_payload_405")
    assert ask("segment.upload", {"segmentName": "New", "fileUrl": "https://a.example/file"}).status_code == 400


def test_a_journey_starts_once_for_each_key(ask: Ask) -> None:
    assert ask("architect.send").status_code == 202
    assert ask("architect.send").status_code == 409
    assert ask("architect.send", {"targets": [], "users": []}).json() == {"error": "idempotency_key is required."}


# ------------------------------------------------------------------------------------------------------------ push


@pytest.mark.parametrize(
    ("notification", "name"),
    [
        ({"identifiers": {}}, "empty_insider_identifiers"),
        ({"identifiers": JANE, "camp_id": -1}, "negative_integer"),
        ({"identifiers": JANE, "advanced_push_type": "Wheel"}, "invalid_advanced_push_type"),
        ({"identifiers": JANE, "ios": {"deep_link": {"aps": "x"}}}, "blacklisted_deeplink"),
    ],
)
def test_a_push_that_is_refused(notification: Any, name: str, ask: Ask) -> None:
    assert is_documented(ask("push.notify", {"api_key": "any", "notifications": [notification]}), name)


def test_a_push_to_nobody_is_refused(ask: Ask) -> None:
    assert is_documented(ask("push.notify", {"api_key": "any", "notifications": []}), "notifications_empty")


def test_a_push_reports_what_it_is_asked_for(ask: Ask) -> None:
    body = sample_request("push.notify").json
    said = ask("push.notify", body | {"report_attributes": ["INSIDER.email"]}).json()
    assert said["successes"][0]["INSIDER.email"] == "jane@example.com"
    assert said["errors"] == {}
    assert ask("push.notify", body | {"async": True}).status_code == 202


def test_a_web_push_needs_its_fields_and_its_campaign(ask: Ask) -> None:
    missing = ask("web_push.create", {"partner_id": "1", "language": "en_US"})
    assert (missing.status_code, missing.json()["errors"]) == (422, {"title": ["The title field is required."]})
    assert ask("web_push.launch", {"partner_id": "1"}).status_code == 422
    assert ask("web_push.delete").json() == {"success": True, "campaign_id": 25696}
    assert is_documented(ask("web_push.launch"), "campaign_not_found_424")
    assert is_documented(ask("web_push.delete"), "campaign_not_found_424")


@pytest.mark.parametrize(
    ("body", "name"),
    [
        ({}, "inapp_id_or_created_between_missing"),
        ({"inapp_id": 1, "created_between": {}}, "inapp_id_and_created_between"),
        ({"inapp_id": 1}, "inapp_not_found"),
        ({"created_between": {"from": "01.01.2026", "to": "2026-01-02"}}, "invalid_from_date"),
        ({"created_between": {"from": "2026-01-01", "to": "2026-02-30"}}, "invalid_to_date"),
        ({"created_between": {"from": "2026-01-02", "to": "2026-01-01"}}, "to_before_from"),
        ({"created_between": {"from": "2026-01-01", "to": "2026-06-01"}}, "range_over_90_days"),
    ],
)
def test_what_inapp_details_refuses(body: Any, name: str, ask: Ask) -> None:
    assert is_documented(ask("inapp.details", body), name)


def test_the_message_center_checks_its_limit_and_its_dates(ask: Ask) -> None:
    assert is_documented(ask("push.message_center", {"limit": 101}), "limit_out_of_range")
    assert ask("push.message_center", {"start_date": 2, "end_date": 1}).text == "bad payload"


def test_consent_needs_a_device(ask: Ask) -> None:
    assert ask("push.consent_set", {"partner_name": "fakeshop"}).text == "Bad Payload."


def test_a_live_activity_is_started_once_and_ended_once(ask: Ask) -> None:
    def codes(*names: str) -> list[tuple[int, str | None]]:
        said = [ask(f"live_activity.{name}", sample_request(f"live_activity.{name}").json | activity) for name in names]
        return [(each.status_code, each.json().get("code")) for each in said]

    activity = {"activity_id": ask("live_activity.register").json()["activity_id"]}
    assert codes("update", "start", "start") == [(404, "NOT_FOUND"), (200, None), (409, "ALREADY_STARTED")]
    assert codes("add_users", "remove_users") == [(409, "ALREADY_STARTED"), (200, None)]
    assert codes("update", "end", "end") == [(200, None), (200, None), (404, "NOT_FOUND")]
    assert codes("start", "add_users") == [(404, "NOT_FOUND"), (404, "NOT_FOUND")]
    assert ask("live_activity.register", {"insider_ids": []}).json()["code"] == "REQUEST_INVALID"


# --------------------------------------------------------------------------------------------------------- catalog


def test_the_catalog_counts_invalid_records_with_status_200(ask: Ask) -> None:
    records = [
        {"item_id": "A"},
        {"name": "no id"},
        {"item_id": "B", "url": "shop"},
        {"item_id": "C", "url": "shop"},
        {"item_id": "D", "text": "x" * 512_000},
    ]
    said = ask("catalog.ingest", records).json()["message"]
    assert (said["valid"]["count"], said["invalid"]["count"], said["invalidRatio"]) == (1, 4, 0.8)
    assert {each["field"]: each["document_ids"] for each in said["invalid"]["details"]} == {
        "item_id": [],
        "url": ["B", "C"],
        "record": ["D"],
    }


def test_the_catalog_takes_arrays_only(ask: Ask) -> None:
    assert is_documented(ask("catalog.update", {"item_id": "A"}), "body_not_json")
    assert ask("catalog.locales_batch", []).status_code == 400
