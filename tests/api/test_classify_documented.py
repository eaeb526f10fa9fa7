"""classify: the documented responses, and what a reply that differs from them in everything but its meaning means."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insider_otel import Category, Verdict, classify

from .documented import BY_ID, DOCUMENTED, Documented

# Samples whose message is a placeholder ("...", "$message") mean what their status or the words around them say.
PLACEHOLDERS = {"validation_message", "validation_exception", "business_exception", "server_error_envelope"}
TWIN = {"partner_not_found": "partner_invalid"}


def message_of(row: Documented) -> str:
    return classify(row.status, row.body).message


SPOKEN = [row for row in DOCUMENTED if message_of(row) and row.id not in PLACEHOLDERS]
FAILURES = [row for row in SPOKEN if row.category not in ("success", "accepted")]


def outcome(meant: Verdict | Documented) -> tuple[str, str]:
    return meant.category, meant.retry


@pytest.mark.parametrize("row", DOCUMENTED, ids=lambda row: row.id)
def test_a_documented_response_means_what_the_documentation_says(row: Documented) -> None:
    """All 97, as text and as bytes; the rule is the row's id."""
    for body in (row.body, row.body.encode()):
        verdict = classify(row.status, body)
        assert outcome(verdict) == outcome(row)
        assert verdict.rule == TWIN.get(row.id, row.id)
        assert verdict.advice


@pytest.mark.parametrize("row", SPOKEN, ids=lambda row: row.id)
def test_a_documented_message_comes_out_word_by_word(row: Documented) -> None:
    """Nothing of what Insider documents is redacted."""
    assert message_of(row) in " ".join(row.body.split())


CODES_AND_FIELDS = {
    "empty_insider_identifiers": ("empty_insider_identifiers", "insider_identifiers"),
    "notifications_over_20": ("invalid_notifications", "notifications"),
    "blacklisted_deeplink": ("blacklisted_deeplink", "aps"),
    "invalid_certificate": ("invalid_certificate", None),
    "bad_api_key_code": ("bad_api_key", None),
    "business_exception": ("BusinessException", None),
    "server_error_envelope": ("500 INTERNAL_SERVER_ERROR", None),
    "channel_not_sms": (None, "channel"),
    "otp_code_not_found": (None, "code"),
    "missing_email_in_tos": (None, "email"),
    "invalid_from_date": (None, "from"),
    "title_missing_422": (None, "title"),
    "users_not_defined": (None, "users"),
    "limit_out_of_range": (None, "limit"),
    "unauthorized": (None, None),
}


@pytest.mark.parametrize("row_id", CODES_AND_FIELDS)
def test_code_and_field_are_taken_out_of_envelope_and_message(row_id: str) -> None:
    """Where the reply names them, in whatever place."""
    verdict = classify(BY_ID[row_id].status, BY_ID[row_id].body)
    assert (verdict.code, verdict.field) == CODES_AND_FIELDS[row_id]


ENVELOPES: dict[str, Callable[[str], Any]] = {
    "error": lambda text: {"error": text},
    "error object": lambda text: {"error": {"message": text, "code": "E1"}},
    "message": lambda text: {"message": text, "status": 400},
    "success false": lambda text: {"success": False, "message": text},
    "statusMessage": lambda text: {"statusMessage": text},
    "status_message": lambda text: {"status_message": text},
    "response": lambda text: {"response": text},
    "errors, texts": lambda text: {"errors": [text], "status_message": "failed to validate request"},
    "errors, objects": lambda text: {"errors": [{"message": text}]},
    "errors, with field": lambda text: {"errors": [{"field": "to", "error": text}]},
    "errors by field": lambda text: {"status_code": 400, "errors": {"channel": [text]}},
    "validations": lambda text: {"status": "x", "validations": [{"type": "x", "message": text}], "error": None},
    "content": lambda text: {"status_code": 400, "content": {"message": text}},
    "code and message": lambda text: {"error": "some_code", "message": text},
    "failed records": lambda text: {"data": {"successful": {}, "fail": {"errors": {"users.0.x": [text]}}}},
    "problem details": lambda text: {"type": "about:blank", "title": "Error", "detail": text},
    "one level deeper": lambda text: {"result": {"error": {"message": text}}},
    "string at the root": lambda text: text,
    "array at the root": lambda text: [text],
    "array of objects": lambda text: [{"message": text, "field": None}],
    "keys in capitals": lambda text: {"Error-Message": text, "Trace": [1, 2]},
}


@pytest.mark.parametrize("row", FAILURES, ids=lambda row: row.id)
def test_a_message_means_the_same_in_every_envelope(row: Documented) -> None:
    """Insider's products each have an envelope of their own."""
    message = message_of(row)
    verdicts = {name: classify(row.status, json.dumps(envelope(message))) for name, envelope in ENVELOPES.items()}
    assert {name: outcome(verdict) for name, verdict in verdicts.items()} == dict.fromkeys(ENVELOPES, outcome(row))
    assert {name: verdict.message for name, verdict in verdicts.items()} == dict.fromkeys(ENVELOPES, message)


@pytest.mark.parametrize("row", FAILURES, ids=lambda row: row.id)
def test_a_message_means_the_same_as_plain_text_and_in_curly_quotes(row: Documented) -> None:
    """Two documented samples are plain text, and two are pseudo-JSON with the quotes of a word processor."""
    message = message_of(row)
    for body in (message, f"  {message}\n", f"{{“error”: “{message}”}}"):
        assert outcome(classify(row.status, body)) == outcome(row)


@pytest.mark.parametrize("row", [row for row in FAILURES if row.id != "bad_request"], ids=lambda row: row.id)
def test_a_documented_sentence_means_the_same_under_every_status(row: Documented) -> None:
    """Insider answers a wrong key with 400, 401 or 403, and a permanent conflict with 500."""
    statuses = (400, 401, 403, 404, 409, 422, 429, 500, 503)
    assert {status: outcome(classify(status, row.body)) for status in statuses} == dict.fromkeys(statuses, outcome(row))


SPACES = st.text(" \t\n", min_size=1, max_size=3)
CASES: list[Callable[[str], str]] = [str.upper, str.lower, str.title, str.capitalize, str.swapcase]


@settings(max_examples=300, deadline=None)
@given(data=st.data())
def test_case_white_space_numbers_keys_and_their_order_do_not_matter(data: st.DataObject) -> None:
    """What varies from product to product varies here, all of it at once."""
    row = data.draw(st.sampled_from(FAILURES))
    text = data.draw(st.sampled_from(CASES))(message_of(row))
    text = re.sub(r"\d[\d,]*", lambda _: f"{data.draw(st.integers(2, 99_999_999)):,}", text)
    text = re.sub(" ", lambda _: data.draw(SPACES), text)
    envelope = ENVELOPES[data.draw(st.sampled_from(sorted(ENVELOPES)))](text)
    if isinstance(envelope, dict):
        extra: dict[str, Any] = {
            "requestId": 7,
            "data": None,
            "timestamp": 1_700_000_000,
            "links": [],
            "partnerResources": None,
        }
        envelope = dict(data.draw(st.permutations([*{**extra, **envelope}.items()])))
    body = json.dumps(envelope, indent=data.draw(st.sampled_from([None, 0, 2])))
    assert outcome(classify(row.status, body)) == outcome(row)


@settings(max_examples=60, deadline=None)
@given(
    status=st.integers(200, 599),
    text=st.sampled_from(CASES),
    envelope=st.sampled_from(["message", "status_message", "error"]),
)
def test_a_duplicate_is_good_news_under_any_status(status: int, text: Callable[[str], str], envelope: str) -> None:
    """Its status is not documented, so any will do."""
    sentence = "This request has already been received and is being processed."
    verdict = classify(status, json.dumps({envelope: text(sentence)}))
    assert verdict.category is Category.DUPLICATE
    assert verdict.ok
