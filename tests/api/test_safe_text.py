"""What a verdict carries of a reply's text is safe to export."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insider_otel import classify
from insider_otel.api.responses import responses, table
from insider_otel.api.safe_text import LONGEST, safe_code, safe_field, safe_text, vocabulary


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("user has an invalid phone number: +905550000001", "user has an invalid phone number: […]"),
        ("e-mail jane@example.com is not valid", "e-mail […] is not valid"),
        ("user Jane Doe of Example Ltd not found", "user […] of […] not found"),
        ("code 482913 is invalid", "code […] is invalid"),
        ("code 4829 is invalid", "code […] is invalid"),
        ("code 482913; user not found", "code […] user not found"),
        ("code 482913: users not found", "code […] users not found"),
        ("code 482913 (users) not found", "code […] (users) not found"),
        ("call +90 (555) 000-00-01 now", "call […] now"),
        ("call 555 000 00 01 now", "call […] now"),
        ("call 555 - 000 - 00 - 01 now", "call […] - […] - […] - […] now"),
        ("see https://hooks.example.com/x?key=1 for the format", "see […] for the format"),
        ("key 'ins_9f8e7d6c5b4a' is invalid", "key […] is invalid"),
        ("token eyJhbGciOiJIUzI1NiJ9.e30.x is expired", "token […] is expired"),
        ("user 3f2504e0-4f89-11d3-9a0c-0305e82c3301 not found", "user […] not found"),
        ("müşteri Ayşe Öztürk görülmedi", "[…]"),
        ("more than 10000 records", "more than 10000 records"),
        ("maximum 5,000,000 bytes", "maximum 5,000,000 bytes"),
        ("more than 123456789 records", "more than […] records"),
        ("between 1 and 100.", "between 1 and 100."),
        ("25000 requests/minute, 5MB", "25000 requests/minute, 5MB"),
        ("format is YYYY-MM-DD", "format is YYYY-MM-DD"),
        ("born 1990-01-01", "[…]"),
        ("users[1].phone_number and deepLink", "users[1].phone_number and deepLink"),
        ("users.0.events.0.event_params.*.required", "users.0.events.0.event_params.*.required"),
        ("  blank \n space\t", "blank space"),
        # A word of the vocabulary can be a value.
        ("password: summer", "password: […]"),
        ("password: price not valid", "password: […] not valid"),
        ("password is price", "password is […]"),
        ("the name = Can is taken", "the name = […] is taken"),
        ("city 'Price Will' not found", "city […] not found"),
        ('firstName="Can" surname:Will', "[…]"),
        ("otp: 123 not found", "otp: […] not found"),
        ("userToken is May", "userToken is […]"),
        ("token is invalid", "token is invalid"),
        ("'api_key' is either empty or wrong", "'api_key' is either empty or wrong"),
        ("capacity: exceeded", "capacity: exceeded"),
        # A capitalised word of the vocabulary can be part of a name.
        ("user Can Öztürk not found", "user […] not found"),
        ("user Ayşe May Will not found", "user […] not found"),
        ("user CAN YILMAZ not found", "user […] not found"),
        ("user Ayşe D. Price not found", "user […] not found"),
        ("user Will May not found", "user […] not found"),
        ("user Can Price not found", "user […] not found"),
        ("no such user Ray Price: no data", "no such user […] no data"),
        ("Max Powers is not a valid recipient", "Max […] is not a valid recipient"),
        ("Users May Not Be Empty", "Users May Not Be Empty"),
        ("Requests May Exceed The Limit", "Requests May Exceed The Limit"),
        ("Your Key Will expire", "Your Key Will expire"),
        ("user +905550000001. Please check", "user […] Please check"),
        ("The API https://example.com is down", "The API […] is down"),
        ("No Partner Found", "No Partner Found"),
        ("...", "..."),
        ("", ""),
    ],
)
def test_only_words_of_the_vocabulary_and_small_numbers_pass(text: str, shown: str) -> None:
    """Everything else is one […], however many words it had."""
    assert safe_text(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("phone_number", "phone_number"),
        ("users[1].phoneNumber", "users[1].phoneNumber"),
        ("users.0.identifiers.*", "users.0.identifiers.*"),
        ("users.0.attributes.qxzq", "users.0.attributes.[…]"),
        ("jane@example.com", None),
        ("+905550000001", None),
        ("555.000.000.01", None),
        ("a555.b000.c000", None),
        ("x-905.x-550.x-000", None),
        ("482913", None),
        ("*", None),
        ("", None),
    ],
)
def test_a_field_passes_if_its_words_are_known(text: str, shown: str | None) -> None:
    """A custom attribute's name may be a secret; the path to it is not."""
    assert safe_field(text) == shown


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("RATE_LIMIT_EXCEEDED", "RATE_LIMIT_EXCEEDED"),
        ("NoUserFound", "NoUserFound"),
        ("500 INTERNAL_SERVER_ERROR", "500 INTERNAL_SERVER_ERROR"),
        ("2003", "2003"),
        ("4829", None),
        ("RateLimitExceeded", "RateLimitExceeded"),
        ("invalid_code", "invalid_code"),
        ("FORBIDDEN", "FORBIDDEN"),
        ("Can", None),
        ("Price", None),
        ("found", None),
        ("Can 12", None),
        ("NOT Found", None),
        ("jane_doe", None),
        ("...", None),
        ("E" * 500, None),
    ],
)
def test_a_code_passes_if_its_words_are_known_or_its_number_is_documented(text: str, shown: str | None) -> None:
    """A number of four digits could be what a shopper typed."""
    assert safe_code(text, frozenset({"2003"})) == shown


def test_every_documented_message_passes() -> None:
    """What Insider documents is no secret, and is worth reading whole."""
    for row in responses():
        message = classify(row.status, row.body or "").message
        assert safe_text(message) == message


def test_the_vocabulary_is_lower_case_words() -> None:
    """A word in capitals there would never be found, and a number there would let a code pass."""
    assert all(word == word.lower() and not word.isdigit() and "@" not in word for word in vocabulary())


NAMES = [
    *("Jane", "Doe", "John", "Smith", "Ayşe", "Mehmet", "Öztürk", "Maria", "García", "Müller", "Fatma", "Ali", "Kim"),
    *("Istanbul", "Ankara", "London", "Acme", "Mark", "Rose", "Grace", "Bill", "Hope", "Frank", "Olivia"),
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_people_and_places_are_not_in_the_vocabulary(name: str) -> None:
    """Even those that are ordinary words as well."""
    assert safe_text(f"user {name} not found") == "user […] not found"


def test_a_long_message_is_cut() -> None:
    """An attribute that holds a book helps nobody."""
    assert len(safe_text("invalid value " * 1000)) <= LONGEST
    assert len(classify(400, "invalid value " * 100_000).message) <= LONGEST


LETTERS_AND_DIGITS = "abcdefghijkmnpqrstuvwxyzABCDEFGHJKLMNPQRSTUVWXYZ0123456789"
LOCAL = st.text("abcdefghijklmnopqrstuvwxyz0123456789._+-", min_size=5, max_size=20)
SECRETS: dict[str, st.SearchStrategy[str]] = {
    "e-mail": st.builds("{}q@{}".format, LOCAL, st.sampled_from(["example.com", "mail.example.org", "user"])),
    "phone": st.builds("+90555{:07d}".format, st.integers(0, 9_999_999)),
    "spaced phone": st.integers(100, 999).map("+90 555 {} 00 01".format),
    "bare phone": st.integers(10_000_000, 10**15).map(str),
    "one-time code": st.integers(100_000, 999_999).map(str),
    "short one-time code": st.integers(4000, 9999).map(str),
    "token": st.text(LETTERS_AND_DIGITS, min_size=20, max_size=64).filter(lambda text: any(map(str.isdigit, text))),
    "uuid": st.uuids(version=4).map(str),
    "hex": st.binary(min_size=16, max_size=16).map(bytes.hex),
    "name": st.sampled_from(["Jane Doe", "Mehmet Öztürk", "MARIA GARCIA", "jane.doe", "J. Smith"]),
    "url": st.builds("https://shop.example.com/u/{}?k={}".format, st.uuids(), st.integers(1000, 10**9)),
}
TEMPLATES = [
    "user has an invalid phone number: {}",
    "'{}' is not valid",
    "{}",
    "invalid value ({}) for field email, please check",
    "code {} not found",
    "api key {} is invalid or expired.",
    "[{}]: bad request",
    "value={}",
    "field:{} is required",
    "more than 10 {}",
]
PLACES: list[Callable[[str], Any]] = [
    lambda text: {"error": text},
    lambda text: {"error": {"message": text, "code": text}},
    lambda text: {"message": text, "code": text},
    lambda text: {"error": text, "message": "invalid request payload"},
    lambda text: {"errors": [text, text], "status_message": text},
    lambda text: {"errors": [{"message": text, "field": text, "code": text}]},
    lambda text: {"errors": {text: [text]}},
    lambda text: {"data": {"successful": {}, "fail": {"count": 1, "errors": {f"users.0.{text}": [text]}}}},
    lambda text: {"success": True, "message": {"invalid": {"count": 1, "details": [{"field": text, "message": text}]}}},
    lambda text: {"successes": [], "errors": {text: [{"email": text}]}},
    lambda text: {"message": "Accepted", "messageIds": [], "errors": [{"field": text, "error": text}]},
    lambda text: {"skipped": {text: 1}},
    lambda text: {"status": text, "validations": [{"type": text, "message": text}], "appliedSearchStrategy": None},
    lambda text: {"success": False, "message": text},
    lambda text: {"detail": [{"loc": ["body", text], "msg": text}]},
    lambda text: {"wrapped": {"deeper": {"message": text}}},
    lambda text: text,
    lambda text: [text],
]


@settings(max_examples=600, deadline=None)
@given(
    data=st.data(),
    kind=st.sampled_from(sorted(SECRETS)),
    status=st.sampled_from([200, 202, 400, 401, 403, 404, 422, 429, 500, 503]),
)
def test_no_secret_and_nothing_personal_gets_into_a_verdict(data: st.DataObject, kind: str, status: int) -> None:
    """Wherever Insider repeats it, whatever it looks like: as JSON, as plain text, as a page."""
    secret = data.draw(SECRETS[kind])
    text = data.draw(st.sampled_from(TEMPLATES)).format(secret)
    place = data.draw(st.sampled_from(PLACES))
    body = data.draw(
        st.sampled_from(
            [
                json.dumps(place(text)),
                json.dumps(place(text), ensure_ascii=False),
                text,
                f"<html><title>{text}</title></html>",
            ]
        )
    )
    cut = data.draw(st.sampled_from([None, len(body) - 2, len(body) // 2]))
    verdict = classify(status, body[:cut], truncated=cut is not None)
    told = repr((verdict.message, verdict.code, verdict.field, verdict))
    assert secret not in told
    for part in secret.replace("-", " ").replace(".", " ").split():
        if len(part) > 3 and part.lower() not in vocabulary():
            assert not re.search(rf"\b{re.escape(part)}\b", told)


@given(st.text())
def test_what_is_made_safe_holds_only_the_vocabulary_numbers_and_signs(text: str) -> None:
    """For any text at all, each piece that passed is one that passes by itself."""
    shown = safe_text(text)
    for token in shown.removesuffix("…").split():
        assert token in ("[", "[…]") or any(map(str.isdigit, token)) or safe_text(token) == token
    assert len(shown) <= LONGEST


def test_advice_and_rule_are_our_own_words() -> None:
    """Nothing of the reply flows into them."""
    key = uuid.uuid4().hex
    verdict = classify(401, json.dumps({"error": f"unauthorized {key}", "message": key}))
    advice = {row.meaning.advice for row in table().by_id.values()} | {row.advice for row in table().statuses.values()}
    assert verdict.advice in advice
    assert key not in verdict.rule
