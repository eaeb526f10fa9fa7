"""Well-formed JSON that makes no sense is answered, never met with an exception."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insider_otel.api.operations import operations, operations_by_name
from insider_otel.testing import FakeInsider, sample_request

from .conftest import Ask
from .test_fake_answers import is_documented

NAMES = tuple(name for name in operations_by_name() if name != "gateway.token")  # its body is a form
OPTIONAL = (
    *("advanced_push_type", "android", "async", "attributes", "callback", "channel_id", "code-length", "custom"),
    *("created_between", "end_date", "events", "identifiers", "inapp_id", "insider_id", "limit", "max-attempts"),
    *("not_append", "partial", "report_attributes", "start_date", "timestamp", "ttl", "whole"),
)
"""Fields that the fake looks at and that few samples have."""
HARD = (10**400, -(10**18), 1_767_225_600_000, 1e308, "http://[x", "\ud800", "\x00", "٣")
ODD = st.one_of(
    st.sampled_from(HARD),
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(max_size=5),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
        max_leaves=4,
    ),
)


def holders(value: Any) -> Iterator[Any]:
    """Every object and every list in a value that holds something."""
    if isinstance(value, dict | list) and value:
        yield value
        for held in value.values() if isinstance(value, dict) else value:
            yield from holders(held)


@st.composite
def odd_bodies(draw: st.DrawFn, operation: str) -> Any:
    """The body of an operation's sample with up to three odd values in it."""
    whole = {"body": json.loads(sample_request(operation).content or b"{}")}
    for _ in range(draw(st.integers(0, 3))):
        holder = draw(st.sampled_from(list(holders(whole))))
        if isinstance(holder, list):
            holder[draw(st.integers(0, len(holder) - 1))] = draw(ODD)
        else:
            holder[draw(st.sampled_from((*holder, *OPTIONAL)))] = draw(ODD)
    return whole["body"]


@pytest.mark.parametrize("operation", NAMES)
@settings(max_examples=20, deadline=None)
@given(data=st.data())
def test_a_body_of_any_shape_is_answered(operation: str, data: st.DataObject) -> None:
    """Also by the operations that read what the odd request may have left."""
    host = operations_by_name()[operation].host
    others = [each.name for each in operations() if each.host == host and each.name in NAMES]
    fake = FakeInsider()
    with httpx.Client(transport=fake.transport()) as client:
        for name in (operation, *data.draw(st.lists(st.sampled_from(others), max_size=3))):
            sample = sample_request(name)
            content = json.dumps(data.draw(odd_bodies(name)))
            response = client.request(sample.method, sample.url, headers=sample.headers, content=content)
            assert fake.requests[-1].status == response.status_code


@pytest.mark.parametrize(
    ("operation", "change", "name"),
    [
        ("verify.check", {"to": ["+905550000001"]}, "invalid_request_payload_list"),
        ("verify.check", {"code": {"is": "1234"}}, "invalid_request_payload_list"),
        ("verify.generate", {"ttl": 10**400}, "invalid_request_payload_list"),
        ("verify.generate", {"code-length": 10**9}, "invalid_request_payload_list"),
        ("verify.generate", {"to": ["+905550000001"]}, "invalid_phone_for_sms"),
        ("mail.send", {"callback": {"url": "http://[x"}}, "invalid_callback_url"),
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_as_documented(
    operation: str, change: dict[str, Any], name: str, ask: Ask, fake: FakeInsider
) -> None:
    assert is_documented(ask(operation, sample_request(operation).json | change), name)
    assert not fake.requests[-1].accepted


@pytest.mark.parametrize("operation", ["start", "update", "end", "add_users", "remove_users"])
def test_the_id_of_a_live_activity_is_text(operation: str, ask: Ask) -> None:
    response = ask(
        f"live_activity.{operation}", sample_request(f"live_activity.{operation}").json | {"activity_id": ["a"]}
    )
    assert (response.status_code, response.json()["code"]) == (400, "BAD_REQUEST")


def test_an_idempotency_key_is_text(ask: Ask) -> None:
    sample = sample_request("architect.send").json
    assert ask("architect.send", sample | {"idempotency_key": ["k"]}).status_code == 400
    assert ask("architect.send", sample | {"idempotency_key": 5}).status_code == 202
    assert ask("architect.send", sample | {"idempotency_key": 5}).status_code == 409


@pytest.mark.parametrize(
    ("event", "error"),
    [
        ({"event_name": ["purchase"]}, "users.0.events.0.event_name.type(string)"),
        ({"event_name": "login", "timestamp": 1_767_225_600_000}, "users.0.events.0.timestamp.type(date)"),
        ({"event_name": "login", "timestamp": {}}, "users.0.events.0.timestamp.type(date)"),
    ],
)
def test_an_event_that_cannot_be_kept_fails_its_user(event: dict[str, Any], error: str, ask: Ask) -> None:
    """Milliseconds, for instance, would be the year 57971."""
    user = {"identifiers": {"email": "jane@example.com"}, "events": [event]}
    fail = ask("user.upsert", {"users": [user]}).json()["data"]["fail"]
    assert (fail["count"], list(fail["errors"])) == (1, [error])


def test_what_is_no_list_is_not_deleted_in_part(ask: Ask, fake: FakeInsider) -> None:
    ask("user.upsert")
    user = {
        "identifiers": {"email": "jane@example.com"},
        "whole": [["age"]],
        "partial": {"custom": ["x"], "none": ["x"]},
    }
    ask("user.attribute_delete", {"users": [user]})
    ask("user.upsert")
    jane = fake.profile(email="jane@example.com")
    assert jane is not None
    assert (jane.attributes["age"], jane.attributes["custom"], "none" in jane.attributes) == (
        30,
        {"loyalty": "gold"},
        False,
    )


def test_the_number_of_a_campaign_may_be_longer_than_any_number(fake: FakeInsider) -> None:
    sample = sample_request("web_push.delete")
    url = f"{sample.url.rpartition('/')[0]}/{'9' * 5_000}"
    with httpx.Client(transport=fake.transport()) as client:
        response = client.request(sample.method, url, headers=sample.headers, content=sample.content)
    assert (response.status_code, response.json()["campaign_id"]) == (200, "9" * 5_000)
