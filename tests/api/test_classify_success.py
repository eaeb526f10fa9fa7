"""classify: 2xx replies, the honest ones and those that hide a failure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel import Category, Fault, Retry, Verdict, classify


def ok(reply: Any, status: int = 200, **more: Any) -> Verdict:
    return classify(status, json.dumps(reply), **more)


def upsert(taken: int | None, lost: int | None, errors: dict[str, list[str]] | None = None) -> dict[str, Any]:
    fail = {} if lost is None else {"count": lost, "errors": errors or {}}
    return {"data": {"successful": {} if taken is None else {"count": taken}, "fail": fail}}


PUSHED = {"udid": "A-1", "device_token": "token", "email": "jane@example.com"}

COUNTED = [
    (upsert(2, None), 2, 0),
    (upsert(None, None), 0, 0),
    ({"success": True, "message": {"valid": {"count": 3}, "invalid": {"count": 0, "details": []}}}, 3, 0),
    ({"successes": [PUSHED, PUSHED], "errors": {}}, 2, 0),
    ({"successes": [PUSHED], "errors": {"NoUserFound": [], "OptOut": []}}, 1, 0),
    ({"message": "Accepted", "messageIds": [{"phoneNumber": "+905550000001", "messageSid": "s"}], "errors": []}, 1, 0),
    ({"keys": ["whatsapp-1", "whatsapp-2"]}, 2, 0),
    ({"data": {"fail": {}, "successful": {"count": "7"}}}, 7, 0),
]


@pytest.mark.parametrize(("reply", "accepted", "failed"), COUNTED, ids=str)
def test_a_whole_success_tells_how_many_records_were_taken(reply: Any, accepted: int, failed: int) -> None:
    """Where the reply says so."""
    verdict = ok(reply)
    assert (verdict.accepted, verdict.failed) == (accepted, failed)
    assert verdict.ok
    assert verdict.fault is Fault.NONE


INVALID_PHONE = {"users.0.identifiers.*.regexp(^\\+[1-9]\\d{6,14}$)": ["user has an invalid phone number: +90555"]}
CATALOG_DETAILS = [{"field": "price", "message": "price is required", "count": 2, "document_ids": ["SKU-7"]}]

LOST = [
    (upsert(2, 1, INVALID_PHONE), 2, 1, "user has an invalid phone number: […]", "users.0.identifiers.*", None),
    (upsert(None, 4), 0, 4, "", None, None),
    ({"data": {"fail": {"count": 3}}}, None, 3, "", None, None),
    (
        {"data": {"successful": {}, "fail": {"errors": {"users.0.x": ["a"], "users.0.y": ["b"], "users.2.x": ["c"]}}}},
        0,
        2,
        "a; […]",
        "users.0.x",
        None,
    ),
    (
        {"success": True, "message": {"valid": {"count": 0}, "invalid": {"count": 2, "details": CATALOG_DETAILS}}},
        0,
        2,
        "price is required",
        "price",
        None,
    ),
    (
        {"successes": [PUSHED], "errors": {"OptOut": [PUSHED], "NoUserFound": [PUSHED, PUSHED], "Unregistered": []}},
        1,
        3,
        "OptOut (1), NoUserFound (2)",
        None,
        "NoUserFound",
    ),
    (
        {"successes": [], "errors": {"UserGloballyCapped": [PUSHED]}},
        0,
        1,
        "UserGloballyCapped (1)",
        None,
        "UserGloballyCapped",
    ),
    (
        {
            "message": "Accepted",
            "messageIds": [{"phoneNumber": "+905550000001", "messageSid": "s"}],
            "errors": [{"field": "messages[1].phoneNumber", "error": "invalid phone number +90555"}],
        },
        1,
        1,
        "invalid phone number […]",
        "messages[1].phoneNumber",
        None,
    ),
    (
        {"activity_id": "a", "skipped": {"no_token": ["u1", "u2"], "opted_out": 3}},
        None,
        5,
        "no_token (2), opted_out (3)",
        None,
        "opted_out",
    ),
    ({"partial": True, "unprocessed_insider_id_count": 40}, None, 40, "", None, None),
    ({"partial": True}, None, None, "", None, None),
    ({"successes": [PUSHED], "errors": [{"message": "invalid token"}]}, 1, 1, "invalid token", None, None),
    ({"errors": [{"message": "limit"}, {"message": "limit"}]}, None, 2, "limit", None, None),
    ({"skipped": {"no_token": "u1"}}, None, 1, "no_token (1)", None, "no_token"),
    ({"skipped_not_synced": 2}, None, 2, "", None, None),
    # An empty list as other serializers write it: not at all, or as null.
    ({"successes": None, "errors": {"NoUserFound": [PUSHED]}}, 0, 1, "NoUserFound (1)", None, "NoUserFound"),
    ({"errors": {"OptOut": [PUSHED, PUSHED]}}, None, 2, "OptOut (2)", None, "OptOut"),
    # Numbers as other serializers write them, and losses told by a number or a list alone.
    ({"data": {"successful": {"count": 1.0}, "fail": {"count": 3.0}}}, 1, 3, "", None, None),
    ({"data": {"successful": {"count": 1}, "fail": {"count": "3"}}}, 1, 3, "", None, None),
    ({"success": True, "message": {"valid": {"count": 1}, "invalid": {"count": 2.0}}}, 1, 2, "", None, None),
    ({"success": True, "message": {"valid": {"count": 1}, "invalid": 2}}, 1, 2, "", None, None),
    ({"skipped": 2.0}, None, 2, "", None, None),
    ({"data": {"successful": {}, "fail": 2}}, 0, 2, "", None, None),
    ({"data": {"successful": {"count": 1}, "fail": 2.0}}, 1, 2, "", None, None),
    ({"data": {"successful": {"count": 1}, "fail": [{"message": "invalid token"}]}}, 1, 1, "invalid token", None, None),
]


@pytest.mark.parametrize("status", [200, 202])
@pytest.mark.parametrize(
    ("reply", "accepted", "failed", "message", "field", "code"), LOST, ids=lambda value: str(value)[:40]
)
def test_a_2xx_that_lost_records_is_a_partial_failure(
    reply: Any, accepted: int | None, failed: int | None, message: str, field: str | None, code: str | None, status: int
) -> None:
    """With how many, and with Insider's reason."""
    verdict = ok(reply, status)
    assert verdict.category is Category.PARTIAL_FAILURE
    assert (verdict.accepted, verdict.failed) == (accepted, failed)
    assert (verdict.field, verdict.code) == (field, code)
    assert verdict.retry is Retry.NEVER
    assert not verdict.ok
    assert verdict.message == message


REFUSED = [
    ({"success": False, "message": "Partner is invalid."}, "authentication", "never"),
    ({"status": False, "message": "Partner token authentication failed."}, "authentication", "never"),
    ({"success": "false", "message": "rate limited"}, "rate_limit", "after_window"),
    ({"error": "Invalid api key"}, "authentication", "never"),
    ({"error": {"message": "channel already exists"}}, "conflict", "never"),
    ({"errors": [{"message": "invalid code"}]}, "verification", "never"),
    ({"errors": {"title": ["The title field is required."]}}, "validation", "never"),
    ({"success": False, "message": "The phone number is not valid"}, "validation", "never"),
    ({"status": 401, "message": "The provided API key is invalid, expired or revoked"}, "authentication", "never"),
    ({"status_code": 503, "message": "qx"}, "unavailable", "backoff"),
    ({"status_code": 429.0, "message": "qx"}, "rate_limit", "after_window"),
    ({"status": "400", "message": "qx"}, "validation", "never"),
    (
        {"status": "error", "message": "The request processing has failed because of an unknown error."},
        "server_error",
        "backoff",
    ),
    (
        {"status": "RateLimitExceeded", "error": {"code": "RATE_LIMIT_EXCEEDED", "message": "qx"}},
        "rate_limit",
        "after_window",
    ),
    ({"status": "QueryInvalidLength", "data": None, "appliedSearchStrategy": None}, "validation", "never"),
    ({"status": "BusinessException", "data": None, "error": {"code": "qx", "message": "qx"}}, "conflict", "never"),
    (
        {"status": "SuccessFallback", "data": {"products": [1]}, "appliedSearchStrategy": "x"},
        "partial_failure",
        "never",
    ),
    ({"status": "Weird", "data": None, "appliedSearchStrategy": None}, "partial_failure", "never"),
    ({"success": False}, "unexpected", "never"),
    ({"success": False, "message": "qx"}, "unexpected", "never"),
    ({"success": False, "message": "Accepted"}, "unexpected", "never"),
    ([{"success": False, "message": "Partner is invalid."}], "authentication", "never"),
    (json.dumps({"success": False, "message": "Partner is invalid."}), "authentication", "never"),
    (json.dumps(upsert(1, 2)), "partial_failure", "never"),
]


@pytest.mark.parametrize(("reply", "category", "retry"), REFUSED, ids=lambda value: str(value)[:60])
def test_a_2xx_that_says_no_means_what_its_body_says(reply: Any, category: str, retry: str) -> None:
    """The status is not the whole answer."""
    verdict = ok(reply)
    assert (verdict.category, verdict.retry) == (category, retry)
    assert not verdict.ok


def test_a_documented_sentence_of_failure_is_no_success_even_alone_under_200() -> None:
    """Some endpoints answer 200 with an error body."""
    assert ok({"message": "The provided API key is invalid, expired or revoked"}).category is Category.AUTHENTICATION


HONEST: list[Any] = [
    {},
    [],
    None,
    0,
    "OK",
    {"errors": []},
    {"errors": None},
    {"errors": {}},
    {"errors": {"NoUserFound": []}},
    {"error": None},
    {"error": ""},
    {"error": {}},
    {"error": False},
    {"message_id": "6b1e7a1e", "errors": 0},
    {"statusMessage": "OK"},
    {"status": 0},
    {"status": True, "status_code": "200", "statusCode": 201.0},
    {"status": "success"},
    {"status": "OK", "message": "qx"},
    {
        "attributes": {"errors": ["a"], "fail": {"count": 3}, "status": False, "success": False},
        "events": {},
        "quota": {"cost": 1},
    },
    {"attributes": {"message": "Invalid api key", "error": "unauthorized"}, "events": []},
    {"success": True, "total": 2, "types": {}, "data": [{"item_id": "1", "errors": ["x"]}, {"status": False}]},
    {"success": True, "message": "Successful", "data": []},
    {
        "status": "Success",
        "data": {},
        "error": None,
        "validations": None,
        "appliedSearchStrategy": "x",
        "partnerResources": None,
    },
    {"data": [{"campaign_id": 1, "sent": 10, "fail": 3, "errors": {"bounce": 3}}], "errors": {"hard": 3, "soft": "4"}},
    {"data": {"sent": 10, "failed": 2, "errors": 3}},
    {"data": {"fail": 7, "sent": 10}},
    {"status": "failed", "export_id": "x"},
    {"status": "Invalid", "name": "a template that was not approved"},
    {"journeys": [{"status": "error"}], "status": "active"},
    {"errors": [1, 2]},
    {"errors": [{"code": "30003", "count": 4}]},
    {"data": {"successful": {"count": 2}, "fail": 0}},
    {"data": {"successful": {"count": 2}, "fail": "none"}},
    {"data": {"successful": 120, "fail": 3}},
    {"success": True, "message": {"valid": {"count": 2}, "invalid": ""}},
    {"success": True, "message": {"valid": {"count": 2}, "invalid": "none"}},
    {"data": {"successful": {"count": 2}, "fail": []}},
    {"data": {"successful": {"count": 2}, "fail": False}},
    {"skipped": {}, "partial": False, "skipped_not_synced": 0, "unprocessed_insider_id_count": 0},
    {"keys": {"a": 1}},
    {"successes": 3, "errors": 1},
    {"messageIds": 3},
    {"message": {"text": "x"}},
    {"channel": "sms", "dateCreated": "2026-01-01", "locale": "en", "maxAttempts": 3, "ttl": 60},
    [{"error": "unauthorized"}],
    [{"id": 7, "success": False}],
    [{"success": False, "message": "Partner is invalid."}, {"success": True}],
    "{is no JSON",
    {"successes": None, "errors": None},
    {"successes": None},
    {"errors": {"OptOut": 3, "NoUserFound": 4}},
]


@pytest.mark.parametrize("reply", HONEST, ids=lambda value: str(value)[:60])
def test_an_ordinary_2xx_is_a_success_whatever_words_the_shops_data_holds(reply: Any) -> None:
    """Statistics count errors, and users have attributes of any name."""
    assert ok(reply).category is Category.SUCCESS
    assert ok(reply, 202).category is Category.ACCEPTED


def test_an_empty_2xx_is_a_success() -> None:
    """The raw export answers so."""
    assert [classify(status).category for status in (200, 201, 202, 204)] == [
        "success",
        "success",
        "accepted",
        "success",
    ]


def test_accepted_is_accepted_under_200_too() -> None:
    """The status of the SMS reply is not documented; its word is."""
    for reply in ({"message": "Accepted", "messageId": "sms-1"}, {"message": "Async request accepted"}):
        assert ok(reply).category is Category.ACCEPTED
    assert ok({"message_id": "6b1e7a1e", "status_message": "accepted"}, 202).message == "accepted"


def test_a_web_page_is_no_success() -> None:
    """A captive portal answers 200 to everything."""
    verdict = classify(200, "<!DOCTYPE html>\n<html><head><title>Please log in</title></head></html>")
    assert (verdict.category, verdict.fault) == (Category.UNEXPECTED, Fault.NETWORK)
    assert verdict.message == "Please log in"


@pytest.mark.parametrize(
    "page",
    [
        "<HEAD><META http-equiv=refresh content='0; url=/login'></HEAD>",
        "<script>location = '/login'</script>",
        "<?xml version='1.0'?><error/>",
        "<!-- proxy --><p>Please log in</p>",
    ],
)
def test_a_page_without_html_in_it_is_one(page: str) -> None:
    """Insider answers in JSON, and a browser asks for no more than this."""
    assert classify(200, page).rule == "meaning.html_page"


@given(taken=st.integers(0, 10**9), lost=st.integers(1, 10**9))
def test_counts_come_out_as_they_are(taken: int, lost: int) -> None:
    """Both can stand in one reply."""
    verdict = ok(upsert(taken, lost))
    assert (verdict.accepted, verdict.failed) == (taken, lost)


@pytest.mark.parametrize("count", [-1, True, 1.5, None, "x", "²", [], {}, "9" * 5000])
def test_a_count_that_is_none_counts_for_nothing(count: Any) -> None:
    """And breaks nothing."""
    verdict = ok({"data": {"successful": {"count": count}, "fail": {}}})
    assert (verdict.category, verdict.accepted) == (Category.SUCCESS, None)


def test_a_2xx_with_a_limit_used_up_waits_for_nothing_but_tells_of_the_limit() -> None:
    """The call succeeded; the next one may have to wait."""
    verdict = ok({}, headers={"RateLimit": '"default";r=0;t=10', "Retry-After": "10"})
    assert verdict.retry_after is None
    assert verdict.rate_limit is not None
    assert (verdict.rate_limit.remaining, verdict.rate_limit.reset) == (0, 10.0)
