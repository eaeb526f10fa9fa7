"""classify: what is known of Insider's replies beyond the documented samples, and what nobody knows."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel import Category, Fault, Retry, classify
from insider_otel.api.responses import answer_is_ambiguous


def body_of(said: Any) -> str:
    return said if isinstance(said, str) else json.dumps(said)


def error(message: str, **more: Any) -> dict[str, Any]:
    return {"errors": [{"message": message, **more}]}


UNSEEN: list[tuple[int, Any, str]] = [
    # Too much at once: the title may speak of throttling, but waiting does not help.
    (400, {"error": "request body is larger than maximum allowed size 10,000,000 bytes"}, "payload_limit"),
    (400, {"message": "Maximum allowed size is 250."}, "payload_limit"),
    (413, {"message": "The request is denied. More than 500 users were sent."}, "payload_limit"),
    (429, {"message": "Throttling Exception: More than 20000 records were sent."}, "payload_limit"),
    (
        400,
        {"error": "invalid_notifications", "message": "'notifications' can't have more than 50 objects"},
        "payload_limit",
    ),
    (400, {"error": "'users' cannot contain more than 1000 items"}, "payload_limit"),
    (400, {"message": "Maximum 50 messages are allowed"}, "payload_limit"),
    (400, {"message": "Record size exceeds 512 KB"}, "payload_limit"),
    (500, {"message": "Maximum allowed record count is exceeded"}, "payload_limit"),
    (400, {"message": "More than 20000 records were sent. Try again with fewer records."}, "payload_limit"),
    (400, {"message": "You can send at most 1,000 users in one request"}, "payload_limit"),
    (429, {"message": "Too many messages"}, "payload_limit"),
    (413, "Request Entity Too Large", "payload_limit"),
    # A shopper and a one-time code: never a wrong key, never a limit of ours.
    (401, error("Invalid Code"), "verification"),
    (422, error("invalid verification code", field="code"), "verification"),
    (401, {"error": "The code is invalid"}, "verification"),
    (400, error("code expired"), "verification"),
    (429, error("max attempts reached"), "verification"),
    (429, error("Maximum number of attempts exceeded."), "verification"),
    (429, error("too many attempts", field="code"), "verification"),
    (429, "You have reached the maximum number of attempts", "verification"),
    (400, {"error": {"code": "MAX_ATTEMPTS"}}, "verification"),
    (429, "no attempts left", "verification"),
    (429, error("Maximum attempts exceeded. Please request a new code."), "verification"),
    (429, error("Maximum attempts were exceeded"), "verification"),
    # The attempts of somebody else, and a field of the request.
    (500, {"message": "Maximum retry attempts exceeded"}, "server_error"),
    (502, {"message": "upstream connection attempts exceeded"}, "unavailable"),
    (500, "no more attempts left", "server_error"),
    (429, "Maximum attempts exceeded. 30 Requests/minute is allowed.", "rate_limit"),
    (400, error("this field must be a number", field="max-attempts"), "validation"),
    (400, error("max-attempts must be between 1 and 10", field="max-attempts"), "validation"),
    (400, {"errors": {"max-attempts": ["this field is required"]}}, "validation"),
    (400, error("must be at most 5 messages per day", field="frequency_cap"), "validation"),
    # Slow down, whatever the status.
    (403, {"error": "You have exceeded your request limit"}, "rate_limit"),
    (403, "Only 60 requests per minute are allowed", "rate_limit"),
    (403, {"error": {"message": "Too many attempts, please slow down. 100 Requests/hour is allowed."}}, "rate_limit"),
    (503, {"error": "rejected: too many requests"}, "rate_limit"),
    (400, {"message": "API rate limit exceeded"}, "rate_limit"),
    (429, {"success": False, "message": "Rate exceeded.", "data": []}, "rate_limit"),
    (403, "Request limit exceeded", "rate_limit"),
    (403, {"message": "Quota exceeded for requests per minute"}, "rate_limit"),
    (403, {"error": {"code": "RATE_LIMIT_EXCEEDED"}}, "rate_limit"),
    (403, "You have exceeded your daily quota", "rate_limit"),
    (403, "You have exceeded your daily quota of 1000 records", "rate_limit"),
    (403, {"message": "quota exceeded"}, "rate_limit"),
    (403, {"message": "Monthly quota limit exceeded"}, "rate_limit"),
    (403, {"message": "Your monthly quota has been used up"}, "rate_limit"),
    (429, "Rate limited", "rate_limit"),
    (429, "error code: 1015", "rate_limit"),
    (429, "", "rate_limit"),
    # A limit of rate, whatever it counts.
    (429, "No more than 5 messages per second allowed", "rate_limit"),
    (400, "No more than 5 messages per second allowed", "rate_limit"),
    (429, "Too many messages, retry after 1 second", "rate_limit"),
    (403, "Too many users, try again later", "rate_limit"),
    (429, "You may send at most 30 API calls per minute", "rate_limit"),
    (429, "Up to 25000 users per minute", "rate_limit"),
    (400, "Maximum 5 messages/second", "rate_limit"),
    (400, "more than the maximum 100 requests per minute", "rate_limit"),
    (429, "Message count exceeded, slow down", "rate_limit"),
    (400, "Too many concurrent messages", "rate_limit"),
    (503, "Too many messages in queue, try again later", "unavailable"),
    (503, "Up to 25000 users per minute", "unavailable"),
    # Who are you?
    (400, {"response": "No Customer Found With Api Key."}, "authentication"),
    (403, {"error": "The API key you provided is not valid"}, "authentication"),
    (400, {"error": "Api key expired"}, "authentication"),
    (404, {"message": "Partner not found"}, "authentication"),
    (401, {"error": "Unauthorised"}, "authentication"),
    (403, {"errors": ["Unauthorized"]}, "authentication"),
    (400, {"error": "invalid_api_key"}, "authentication"),
    (401, {"message": "The provided token is invalid or expired"}, "authentication"),
    (401, {"status": False, "message": "Partner token authentication is unsuccessful."}, "authentication"),
    (400, {"message": "X-Api-Key header missing"}, "authentication"),
    (401, {"error": "Missing X-REQUEST-TOKEN header"}, "authentication"),
    (400, "Api key can not be empty.", "authentication"),
    (400, {"message": "Token mismatch"}, "authentication"),
    (403, {"message": "Partner name and token do not match"}, "authentication"),
    (403, "Token does not match the partner", "authentication"),
    (400, {"message": "Push token mismatch"}, "validation"),
    (401, {"error": "X-PARTNER-NAME is required"}, "authentication"),
    # You may not.
    (400, {"message": "You don't have permission to perform this action"}, "permission"),
    (403, {"success": False, "message": "IP is not allowed."}, "permission"),
    (400, {"message": "Your IP address is not whitelisted"}, "permission"),
    (403, {"message": "Origin validation failed"}, "permission"),
    (403, {"message": "Forbidden"}, "permission"),
    (400, {"errorCode": "20031"}, "permission"),
    # Somebody has to set something up.
    (400, {"message": "No CDP Unifier found in InOne."}, "configuration"),
    (400, {"message": "No CRM Unifier found in Panel."}, "configuration"),
    (400, {"message": "Configuration is invalid"}, "configuration"),
    (401, {"message": "Sender domain is not verified"}, "configuration"),
    (422, {"response": "No push certificate is provided."}, "configuration"),
    (403, {"error": "LIVE_ACTIVITY_DISABLED"}, "configuration"),
    (400, {"error": {"code": "2020", "message": "webhook URL is invalid"}}, "configuration"),
    (407, "<html><title>407 Proxy Authentication Required</title></html>", "configuration"),
    (400, "<html><title>400 The plain HTTP request was sent to HTTPS port</title></html>", "configuration"),
    # It conflicts with what is there.
    (500, error("Channel name is already in use"), "conflict"),
    (400, {"error": "new identifier already has a contact assigned to it: bad request"}, "conflict"),
    (400, {"error": "you cannot delete the last identifier specified for a contact"}, "conflict"),
    (500, error("template already exists"), "conflict"),
    (400, error("Channel already exists"), "conflict"),
    (500, {"error": "segment name already in use"}, "conflict"),
    (409, {"error": {"code": "ALREADY_STARTED"}}, "conflict"),
    (412, {"error": {"code": "PUSH_TOKEN_NOT_SYNCED", "message": "token not synced"}}, "conflict"),
    (400, {"status": "BusinessException", "error": {"code": "NOT_FOUND", "message": "Product not found"}}, "conflict"),
    # There is no such thing.
    (404, {"error": "campaign not found"}, "not_found"),
    (400, {"error": "no such contact for these identifiers: no data"}, "not_found"),
    (424, {"message": "SERVICE:-Segment not found"}, "not_found"),
    (422, {"code": "NO_ELIGIBLE_DEVICE"}, "not_found"),
    # The request itself is wrong.
    (400, {"errors": ["Missing 'phone' on 'recipients' parameter"]}, "validation"),
    (422, {"status_code": 422, "errors": {"code": ["The code field is required."]}}, "validation"),
    (400, {"error": "date range must not exceed 30 days"}, "validation"),
    (400, {"error": "date range exceeds 90 calendar days"}, "validation"),
    (400, {"error": "only events within 90 days are accepted"}, "validation"),
    (400, {"message": "Callback URL value is not valid"}, "validation"),
    (422, {"message": "missing dynamic filter parameter"}, "validation"),
    (400, {"error": "sms content exceeds 670 characters"}, "validation"),
    (400, {"message": "Invalid device token"}, "validation"),
    (400, {"status": "Invalid", "validations": [{"type": "REQUIRED", "message": "query is required"}]}, "validation"),
    (400, {"error": {"code": "2001"}}, "validation"),
    (400, "Bad Payload.", "validation"),
    # Something behind Insider's API.
    (400, {"message": "Connection error"}, "dependency"),
    (424, {"message": "SERVICE:-unknown"}, "dependency"),
    (424, {"message": "SERVICE:-"}, "dependency"),
    (500, {"message": "service:-"}, "dependency"),
    (424, {"message": "SERVICE:-Timeout"}, "dependency"),
    (400, {"message": "Could not get CRM Events List."}, "dependency"),
    (502, {"error": {"code": "UPSTREAM_UNAVAILABLE"}}, "dependency"),
    (400, {"error": {"code": "2003"}}, "dependency"),
    # Insider itself.
    (400, {"errorCode": "2020", "message": "maintenance mode is active"}, "unavailable"),
    (503, "no healthy upstream", "unavailable"),
    (502, "<html><head><title>502 Bad Gateway</title></head><h1>502 Bad Gateway</h1></html>", "unavailable"),
    (504, "upstream request timeout", "timeout"),
    (500, {"status": "Error", "error": {"code": "500 INTERNAL_SERVER_ERROR", "message": "Boom"}}, "server_error"),
    (400, {"message": "Processing has failed because of an unknown error."}, "server_error"),
    (522, "error code: 522", "network"),
]


@pytest.mark.parametrize(("status", "said", "category"), UNSEEN, ids=lambda value: str(value)[:60])
def test_a_reply_that_is_not_documented_is_matched_by_meaning(status: int, said: Any, category: str) -> None:
    """Other numbers, other nouns, other envelopes, other statuses."""
    assert classify(status, body_of(said)).category == category


@pytest.mark.parametrize(
    "said",
    [
        "failed: upstream service not found",
        "failed: upstream timeout",
        "error: unauthorized call to internal service",
        "invalid token in response of upstream",
        "could not parse JSON of upstream",
        "duplicate key value violates unique constraint",
        "recommendation engine: field 'score' is required",
        "access denied for user 'app' at the database",
        "bind: address already in use",
        "upstream certificate expired",
    ],
)
@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_word_in_a_servers_excuse_does_not_blame_the_caller(status: int, said: str) -> None:
    """The server failed and may do better next time, whatever its excuse reminds of."""
    verdict = classify(status, json.dumps({"message": said}))
    assert verdict.fault is Fault.INSIDER
    assert verdict.retry is Retry.BACKOFF


def test_the_code_2020_means_two_things() -> None:
    """At the settings of WhatsApp it is the webhook URL; elsewhere it is maintenance."""
    body = json.dumps({"error": {"code": "2020"}})
    settings = classify(400, body, url="https://gw.useinsider.com/api/wa/v2/transactional/settings")
    sending = classify(400, body, url="https://gw.useinsider.com/api/wa/v2/transactional/messages/send")
    assert (settings.category, settings.retry) == (Category.CONFIGURATION, Retry.NEVER)
    assert (sending.category, sending.retry) == (Category.UNAVAILABLE, Retry.BACKOFF)
    assert sending.code == "2020"


def test_cloudflares_block_is_told_from_insiders_own_refusal() -> None:
    """An empty 403 is Insider's word on the key; a web page is Cloudflare's on the machine."""
    page = "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head><body></body></html>"
    assert classify(403, page).rule == "meaning.cloudflare_block"
    assert classify(403, "error code: 1020").rule == "meaning.cloudflare_block"
    assert classify(403).rule == "authentication_failed_no_body"


PAGES = [
    "<!DOCTYPE html><html><head><title>Attention Required! | Cloudflare</title></head></html>",
    "<html><style>h2 { color: red }</style><body><h2>Attention Required! | Cloudflare</h2></body></html>",
    "<html><title>Access denied | shop.example.com used Cloudflare to restrict access</title></html>",
    "<html><head><title>x</title></head><h1 data-translate='block_headline'>Sorry, you have been blocked</h1></html>",
]


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_cloudflares_that_blocks_is_known_wherever_it_says_so(page: str) -> None:
    """In its title, in a heading or in plain text between tags."""
    assert classify(403, page).rule == "meaning.cloudflare_block"


@pytest.mark.parametrize("page", ["<html></html>", "<!DOCTYPE html><html><body>qxzq</body></html>", "<img src=x>"])
@pytest.mark.parametrize("status", [401, 403, 503, 504, 520])
def test_a_page_is_not_the_silence_that_insider_documents(status: int, page: str) -> None:
    """Only an empty reply is; whoever wrote the page, the status is all that is known."""
    assert classify(status, page).rule == f"status.{status}"


DUPLICATES: list[tuple[int, str]] = [
    (400, "Duplicate request: same email was sent within 15 minutes"),
    (400, "The same email was sent to this user in the last 15 minutes"),
    (409, "Same content has already been sent to this user in the last 15 minutes"),
    (500, "duplicate content for user"),
    (200, "Duplicate content detected in last 20 minutes"),
    (202, "Duplicate content detected in last 20 minutes"),
    (400, "Request rejected. Duplicate e-mail to this user within 15 minutes."),
    (429, "Identical content was sent in the past 15 minutes"),
    (503, "Duplicate request"),
    (409, "Request already processed"),
    (400, "Your request has already been submitted"),
    (409, "The same message content was already accepted"),
    (409, "idempotency_key was already used"),
    (409, "Idempotency key already used. Use a different one."),
    (409, "idempotency_key already exists, should be unique"),
    (409, "ALREADY_PROCESSED"),
    (409, "Your request has been already received and is being processed"),
    (409, "We have already received this request"),
    (409, "You have already submitted this request"),
    (400, "Request #123 has already been processed"),
    (400, "This e-mail request has already been accepted"),
    (429, "These messages have already been received"),
]


@pytest.mark.parametrize(("status", "message"), DUPLICATES)
def test_a_duplicate_is_one_in_other_words_and_under_any_status(status: int, message: str) -> None:
    """Insider has the first one: sending it again would only be held back again."""
    verdict = classify(status, json.dumps({"message": message}))
    assert (verdict.category, verdict.retry) == (Category.DUPLICATE, Retry.NEVER)


NO_DUPLICATES: list[tuple[int, str, str]] = [
    (409, "duplicate key", "conflict"),
    (409, "duplicate entry for user", "conflict"),
    (409, "duplicate attribute", "conflict"),
    (409, "duplicate name", "conflict"),
    (409, "duplicate identifier", "conflict"),
    (409, "duplicate request id in the last 15 minutes", "conflict"),
    (400, "Duplicate e-mail", "validation"),
    (400, "duplicate emails in tos", "validation"),
    (500, "duplicate key value violates unique constraint", "server_error"),
    (500, "no duplicate content detected in the last 15 minutes", "server_error"),
    (429, "Too many concurrent requests are already being processed", "rate_limit"),
    (429, "1000 requests already received in this minute", "rate_limit"),
    (503, "Another batch is already being processed, try again later", "unavailable"),
    (503, "Another request is already being processed", "unavailable"),
    (400, "This template has not already been accepted", "validation"),
    (409, "idempotency_key was already used with different content", "conflict"),
    (400, "Another request with this idempotency_key exists", "conflict"),
    (422, "idempotency_key must be used", "validation"),
    (200, "duplicate", "success"),
    (200, "Duplicate detection is enabled", "success"),
    (200, "No duplicate content in the last 15 minutes", "success"),
    (200, "Duplicate requests are counted once", "success"),
]


@pytest.mark.parametrize(("status", "message", "category"), NO_DUPLICATES)
def test_not_everything_that_is_called_duplicate_has_arrived(status: int, message: str, category: str) -> None:
    """A duplicate of a key or a name is refused, and a word in good news changes nothing."""
    assert classify(status, json.dumps({"message": message})).category == category


STATUSES = [
    (101, "unexpected", "never", "network", "status.1xx"),
    (301, "unexpected", "never", "caller", "status.3xx"),
    (303, "unexpected", "never", "caller", "status.3xx"),
    (304, "success", "never", "none", "status.304"),
    (308, "unexpected", "never", "caller", "status.3xx"),
    (400, "validation", "never", "caller", "status.400"),
    (402, "permission", "never", "caller", "status.402"),
    (404, "not_found", "never", "caller", "status.404"),
    (405, "validation", "never", "caller", "status.405"),
    (408, "timeout", "backoff", "network", "status.408"),
    (409, "conflict", "never", "caller", "status.409"),
    (413, "payload_limit", "never", "caller", "status.413"),
    (415, "validation", "never", "caller", "status.415"),
    (418, "validation", "never", "caller", "status.4xx"),
    (424, "dependency", "backoff", "insider", "status.424"),
    (425, "rate_limit", "after_window", "caller", "status.425"),
    (429, "rate_limit", "after_window", "caller", "status.429"),
    (500, "server_error", "backoff", "insider", "status.500"),
    (501, "server_error", "never", "insider", "status.501"),
    (502, "unavailable", "backoff", "insider", "status.502"),
    (505, "server_error", "never", "insider", "status.505"),
    (521, "network", "backoff", "network", "status.521"),
    (524, "timeout", "backoff", "insider", "status.524"),
    (530, "network", "backoff", "network", "status.530"),
    (555, "server_error", "backoff", "insider", "status.5xx"),
    (0, "unexpected", "never", "network", "status.other"),
    (999, "unexpected", "never", "network", "status.other"),
    (-1, "unexpected", "never", "network", "status.other"),
    (None, "unexpected", "never", "network", "status.other"),
]


@pytest.mark.parametrize(("status", "category", "retry", "fault", "rule"), STATUSES)
def test_a_status_speaks_where_nothing_else_does(
    status: int | None, category: str, retry: str, fault: str, rule: str
) -> None:
    """Its own row first, then its class."""
    verdict = classify(status)
    assert (verdict.category, verdict.retry, verdict.fault, verdict.rule) == (category, retry, fault, rule)
    assert verdict.advice


TOO_LARGE = "<html><head><title>413 Request Entity Too Large</title></head><body>nginx</body></html>"
REFUSED_FOR_A_WHILE = [
    (403, "", "rate_limit", "after_window", "caller", "retry_after.403"),
    (403, "{}", "rate_limit", "after_window", "caller", "retry_after.403"),
    (413, "", "payload_limit", "backoff", "insider", "retry_after.413"),
    (413, "Payload Too Large", "payload_limit", "backoff", "insider", "retry_after.413"),
    (413, TOO_LARGE, "payload_limit", "backoff", "insider", "retry_after.413"),
    (403, "Too many messages", "rate_limit", "after_window", "caller", "retry_after.403"),
    (429, "Too many messages", "rate_limit", "after_window", "caller", "retry_after.429"),
]


@pytest.mark.parametrize(("status", "body", "category", "retry", "fault", "rule"), REFUSED_FOR_A_WHILE)
def test_a_server_that_says_when_to_come_back_does_not_say_never(
    status: int, body: str, category: str, retry: str, fault: str, rule: str
) -> None:
    """RFC 9110, 15.5.14: a 413 with Retry-After is temporary."""
    verdict = classify(status, body, headers={"Retry-After": "30"})
    assert (verdict.category, verdict.retry, verdict.fault, verdict.rule) == (category, retry, fault, rule)
    assert verdict.retry_after == 30
    assert verdict.advice


def test_what_already_says_when_to_come_back_keeps_its_rule() -> None:
    """The header adds the moment and takes no meaning away."""
    body = '{"error": {"message": "Too many attempts, please slow down the request. 30 Requests/minute is allowed."}}'
    verdict = classify(403, body, headers={"Retry-After": "7"})
    assert (verdict.rule, verdict.retry_after) == ("request_limit_exceeded_30_per_minute", 7)


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        pytest.param(403, {"error": "Invalid api key"}, {"Retry-After": "30"}, id="a wrong key stays wrong"),
        pytest.param(403, {"message": "Forbidden"}, {"Retry-After": "30"}, id="a missing permission stays missing"),
        pytest.param(413, {"error": "Invalid api key"}, {"Retry-After": "30"}, id="under any status"),
        pytest.param(400, {"message": "qx"}, {"Retry-After": "30"}, id="an invalid request stays invalid"),
        pytest.param(429, {"message": "maximum attempts exceeded"}, {"Retry-After": "30"}, id="a code stays dead"),
        pytest.param(413, "", {"Retry-After": "soon"}, id="no moment is named"),
        pytest.param(413, "", {"Retry-After": "Mon, 03 Jun 2019 11:00:00 GMT"}, id="the moment is past"),
        pytest.param(403, "", {"RateLimit": '"default";r=0;t=30'}, id="a wrong key can be the last allowed request"),
        pytest.param(413, "", {"RateLimit": '"default";r=0;t=30'}, id="and so can a body that is too large"),
    ],
)
def test_what_waiting_cannot_heal_is_not_tried_again(status: int, body: object, headers: dict[str, str]) -> None:
    """Whatever a gateway adds to it."""
    assert classify(status, json.dumps(body) if body else "", headers=headers).retry == "never"


@given(status=st.integers(400, 599), said=st.text(alphabet="qxz ", min_size=1))
def test_what_no_row_knows_falls_back_to_the_status(status: int, said: str) -> None:
    """A message without meaning changes nothing, except that an empty reply may be documented."""
    verdict = classify(status, json.dumps({"message": f"qx {said}"}))
    assert verdict.rule in (f"status.{status}", f"status.{status // 100}xx")


def test_only_a_gateway_that_speaks_for_another_is_ambiguous() -> None:
    """Insider documents 500, 503, 504 and 520 as not processed; 598 and 599 are a proxy's, 555 is anybody's."""
    known = {*range(500, 512), *range(520, 528), 529, 530}
    assert [status for status in sorted(known) if answer_is_ambiguous(status)] == [502, 524]
    assert all(answer_is_ambiguous(status) for status in range(500, 600) if status not in known)
    assert not any(map(answer_is_ambiguous, [-1, 0, *range(100, 500), 600, 999]))
