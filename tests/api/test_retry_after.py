"""When to come back: Retry-After, the RateLimit fields in their three forms, and limits in messages."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel import Category, RateLimit, classify

NOW = datetime(2019, 6, 3, 11, 0, 0, tzinfo=UTC).timestamp()
DAY = 86_400.0


def wait(value: str, **more: Any) -> float | None:
    return classify(503, headers={"Retry-After": value}, now=NOW, **more).retry_after


@pytest.fixture(params=["UTC", "Asia/Jerusalem", "America/Los_Angeles"])
def timezone(request: pytest.FixtureRequest) -> Iterator[str]:
    """The process's own time zone, which no result may depend on."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = request.param
    time.tzset()
    yield request.param
    os.environ.pop("TZ") if before is None else os.environ.update(TZ=before)
    time.tzset()


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0.0),
        ("120", 120.0),
        ("1000", 1000.0),
        ("3600", 3600.0),
        ("\t42 ", 42.0),
        ("0042", 42.0),
        ("86401", DAY),
        ("99999999999999999999", DAY),
        ("9" * 5000, DAY),
        ("0" * 5000 + "7", 7.0),
        ("Mon, 3 Jun 2019 12:00:00 UTC", 3600.0),
        ("Mon, 03 Jun 2019 11:30:12 GMT", 1812.0),
        ("Monday, 03-Jun-19 11:30:12 GMT", 1812.0),
        ("Mon Jun  3 11:30:12 2019", 1812.0),
        ("Mon, 03 Jun 2099 11:30:12 GMT", DAY),
    ],
)
@pytest.mark.usefixtures("timezone")
def test_seconds_and_the_three_forms_of_a_date_are_understood(value: str, seconds: float) -> None:
    """RFC 9110, bounded by a day; the cases are urllib3's."""
    assert wait(value) == seconds


@pytest.mark.parametrize(
    "value",
    [
        "",
        " ",
        "-1",
        "+1",
        "+5",
        "1.0",
        "1.5",
        "1e3",
        "²",
        "٣",
        "inf",
        "nan",
        "0x10",
        "1_000",
        "120, 60",
        "120;60",
        "soon",
        "Mon, 03 Jun 2019 11:00:00 GMT",
        "Mon, 3 Jun 2019 11:00:00 UTC",
        "Fri, 31 Dec 1999 23:59:59 GMT",
        "Mon, 31 Feb 2020 11:00:00 GMT",
        "Mon, 03 Jun 2020 25:00:00 GMT",
        "Mon, 03 Jun 2020 11:00:00 +0100",
        "Mon, 03 Jun 2020 11:00:00",
        "2020-06-03T11:00:00Z",
        "Mon, 03 Jun 0000 11:00:00 GMT",
    ],
)
def test_anything_else_and_the_past_is_no_hint(value: str) -> None:
    """Not one of the values that other clients read in four different ways."""
    assert wait(value) is None


@given(seconds=st.integers(1, 86_400))
def test_a_date_is_as_far_away_as_it_says(seconds: int) -> None:
    """Whichever moment it names."""
    assert wait(format_datetime(datetime.fromtimestamp(NOW + seconds, UTC), usegmt=True)) == seconds


@given(value=st.text())
def test_whatever_the_field_holds_the_wait_is_bounded(value: str) -> None:
    """No header makes a client wait for ever."""
    seconds = wait(value)
    assert seconds is None or 0 <= seconds <= DAY


def test_a_date_is_measured_from_the_replys_own_clock() -> None:
    """Two clocks that differ by an hour would make it an hour longer."""
    headers = {"date": "Mon, 03 Jun 2019 11:00:00 GMT", "retry-after": "Mon, 03 Jun 2019 11:00:30 GMT"}
    assert classify(503, headers=headers).retry_after == 30.0


def test_without_a_date_it_is_measured_from_this_machines_clock() -> None:
    """There is no other."""
    value = format_datetime(datetime.fromtimestamp(time.time() + 1000, UTC), usegmt=True)
    seconds = classify(503, headers={"Retry-After": value}).retry_after
    assert seconds is not None
    assert 900 < seconds <= 1000


class Odd(Mapping[Any, Any]):
    """A mapping with keys and values that headers never have."""

    def __getitem__(self, key: Any) -> Any:
        raise KeyError(key)

    def __iter__(self) -> Iterator[Any]:
        return iter((None, 1, b"Retry-After"))

    def __len__(self) -> int:
        return 3

    def items(self) -> Any:
        return [(None, None), (1, 2), (b"Retry-After", b"9"), ("RateLimit", 5)]


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"RETRY-AFTER": "9"}, 9.0),
        ({"retry-after": "9"}, 9.0),
        (httpx.Headers({"Retry-After": "9"}), 9.0),
        (httpx.Headers([("Retry-After", "9"), ("retry-after", "10")]), None),
        (Odd(), 9.0),
        ({}, None),
        (None, None),
        ("retry-after: 9", None),
        ([("retry-after", "9")], None),
    ],
)
def test_headers_come_in_any_case_and_any_mapping(headers: Any, seconds: float | None) -> None:
    """Two values of a field that takes one are no hint."""
    assert classify(503, headers=headers).retry_after == seconds


FIELDS: list[tuple[dict[str, str], RateLimit]] = [
    (
        {"RateLimit-Policy": "default;q=100;w=60", "RateLimit": "default;r=0;t=30"},
        RateLimit(limit=100, window=60.0, remaining=0, reset=30.0, explicit=True),
    ),
    (
        {"RateLimit-Policy": '"default";q=100;w=60', "RateLimit": '"default";r=50;t=30'},
        RateLimit(limit=100, window=60.0, remaining=50, reset=30.0),
    ),
    (
        {
            "RateLimit-Policy": '"burst";q=10;w=1, "daily";q=1000;w=86400',
            "RateLimit": '"burst";r=7;t=1, "daily";r=3;t=50',
        },
        RateLimit(limit=1000, window=DAY, remaining=3, reset=50.0),
    ),
    ({"RateLimit": '"default";r=0'}, RateLimit(remaining=0)),
    ({"RateLimit": 'x;r=1;pk=":abc=:"'}, RateLimit(remaining=1)),
    ({"RateLimit-Policy": "default;q=30;w=60"}, RateLimit(limit=30, window=60.0)),
    (
        {"RateLimit-Limit": "100", "RateLimit-Remaining": "0", "RateLimit-Reset": "20"},
        RateLimit(limit=100, remaining=0, reset=20.0, explicit=True),
    ),
    ({"RateLimit-Limit": "100, 100;w=10", "RateLimit-Remaining": "4"}, RateLimit(limit=100, window=10.0, remaining=4)),
    (
        {"X-RateLimit-Limit": "60", "X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str(int(NOW) + 45)},
        RateLimit(limit=60, remaining=0, reset=45.0, explicit=True),
    ),
    (
        {"X-RateLimit-Remaining": "0", "X-RateLimit-Reset": str((int(NOW) + 45) * 1000)},
        RateLimit(remaining=0, reset=45.0, explicit=True),
    ),
    ({"RateLimit-Remaining": "3", "RateLimit-Reset": "soon", "RateLimit-Limit": "-5"}, RateLimit(remaining=3)),
    ({"RateLimit": "default;r=x;t=30", "RateLimit-Remaining": "8"}, RateLimit(remaining=8)),
    ({"RateLimit": "default;r=0;t=99999999"}, RateLimit(remaining=0, reset=DAY, explicit=True)),
]


@pytest.mark.parametrize(("fields", "limit"), FIELDS, ids=str)
@pytest.mark.parametrize("status", [200, 301, 404])
def test_the_ratelimit_fields_are_read_in_their_three_forms(
    fields: dict[str, str], limit: RateLimit, status: int
) -> None:
    """Names unquoted, names quoted, and three fields; of several policies the one with the least left."""
    assert classify(status, headers=fields, now=NOW).rate_limit == limit


@pytest.mark.parametrize(
    "fields",
    [
        {"RateLimit": ";;;"},
        {"RateLimit": "default;r=-1"},
        {"RateLimit": "default;r=1.5"},
        {"RateLimit": "default;t=5"},
        {"RateLimit": '"default;r=5'},
        {"RateLimit": "a;r=1,,b;r=2"},
        {"RateLimit-Limit": "many"},
        {"RateLimit-Remaining": "٣"},
        {"RateLimit-Policy": "a;q=1;w=1, b;q=2;w=2"},
        {"Date": "Mon, 03 Jun 2019 11:00:00 GMT"},
    ],
    ids=str,
)
def test_a_malformed_field_counts_as_absent(fields: dict[str, str]) -> None:
    """As if the server had not sent it."""
    verdict = classify(404, headers=fields, now=NOW)
    assert verdict.rate_limit is None
    assert verdict.retry_after is None


def test_retry_after_wins_over_the_ratelimit_field() -> None:
    """The draft says so."""
    verdict = classify(429, headers={"Retry-After": "7", "RateLimit": "default;r=0;t=30"})
    assert verdict.retry_after == 7.0
    assert verdict.rate_limit == RateLimit(remaining=0, reset=7.0, explicit=True)


def test_a_reset_without_remaining_counts_in_a_refusal() -> None:
    """That nothing remains is what a 429 says."""
    assert classify(429, headers={"RateLimit-Reset": "12"}).retry_after == 12.0
    assert classify(404, headers={"RateLimit-Reset": "12"}).retry_after is None


def limited(text: str) -> tuple[float | None, RateLimit | None]:
    verdict = classify(429, json.dumps({"message": text}))
    assert verdict.category is Category.RATE_LIMIT
    return verdict.retry_after, verdict.rate_limit


@pytest.mark.parametrize(
    ("text", "count", "window"),
    [
        ("30 Requests/minute is allowed", 30, 60.0),
        ("Too many attempts. 100 requests / hour is allowed.", 100, 3600.0),
        ("limit of 1,000 requests per minute reached", 1000, 60.0),
        ("max 5 requests every second", 5, 1.0),
        ("only 10 calls in 60 seconds", 10, 60.0),
        ("25000/60s", 25_000, 60.0),
        ("60/min", 60, 60.0),
        ("1 request a day", 1, DAY),
        ("2 requests per 30 days", 2, DAY),
        ("30 Requests/minute is allowed. Please contact your customer success manager.", 30, 60.0),
        ("Too many requests received. 30 Requests/minute is allowed.", 30, 60.0),
    ],
)
def test_a_window_is_read_from_the_message_and_waited_for(text: str, count: int, window: float) -> None:
    """No moment is named, so the whole window is the wait."""
    assert limited(text) == (window, RateLimit(limit=count, window=window, in_words=True))


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2.500 requests per minute are allowed", 2500),
        ("25.000 requests/minute", 25_000),
        ("1,250,000 requests per minute", 1_250_000),
        ("25 000 requests per minute", 25_000),
    ],
)
def test_a_thousand_is_read_however_it_is_written(text: str, count: int) -> None:
    """By its last three digits alone, a pool would be held to a fiftieth of what it may."""
    assert limited(text) == (60.0, RateLimit(limit=count, window=60.0, in_words=True))


@pytest.mark.parametrize(
    "text",
    [
        "Rate limit exceeded: 1 request per minute per user",
        "rate limited: 2 requests per minute per recipient",
        "100 requests per minute (per IP)",
        "1 request/minute/widget",
        "User rate limit exceeded: 1 request per minute",
        "each widget may have 1 request per minute",
        "rate limit exceeded, you sent 40000 requests in 60 seconds",
        "rate limit exceeded, 1 request/minute over the limit",
        "rate limit: 5 requests per minute remaining",
        "rate limit: 500 mails per minute",
    ],
)
def test_of_a_limit_that_may_not_be_the_keys_only_the_window_is_read(text: str) -> None:
    """One user's, one recipient's, or no limit at all but what was sent."""
    assert limited(text) == (60.0, RateLimit(window=60.0, in_words=True))


@pytest.mark.parametrize(
    "text", ["1 request per minute per API key is allowed", "30 requests/minute for this endpoint"]
)
def test_a_limit_of_the_key_may_say_so(text: str) -> None:
    verdict = classify(429, json.dumps({"message": text}))
    assert verdict.rate_limit is not None
    assert verdict.rate_limit.limit == int(text.split(maxsplit=1)[0])


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("too many requests, retry after 1 second.", 1.0),
        ("please wait 10 sec", 10.0),
        ("try again in 2 minutes", 120.0),
        ("Retry in 500ms", 0.5),
        ("retry after 99999 days", DAY),
    ],
)
def test_a_moment_is_read_from_the_message(text: str, seconds: float) -> None:
    """It is said outright, so it is explicit."""
    assert limited(text) == (seconds, RateLimit(reset=seconds, explicit=True))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("maintenance, try again in 2 minutes", 120.0),
        ("Please wait for 30 seconds.", 30.0),
        ("come back after 1 hour", 3600.0),
        ("the service will be available in 10 minutes", 600.0),
        ("your quota resets in 90 seconds", 90.0),
        ("your address is blocked for the next 15 minutes", 900.0),
        ("retry within 45 seconds", 45.0),
        ("Error 500, try again in 5 seconds", 5.0),
    ],
)
@pytest.mark.parametrize("status", [429, 500, 504])
def test_a_phrase_that_tells_the_caller_to_come_back_names_a_moment(status: int, text: str, seconds: float) -> None:
    """Under any status after which another try can help; the number of an error is no limit."""
    verdict = classify(status, json.dumps({"message": text}))
    assert verdict.retry_after == seconds
    assert verdict.rate_limit is None or verdict.rate_limit.limit is None


@pytest.mark.parametrize(
    "text",
    [
        "Request timed out after 900 seconds",
        "upstream timed out after 30 seconds",
        "The session expired after 15 minutes",
        "no answer within 60 seconds",
        "the query took 45 seconds",
        "gave up in 30 seconds",
        "content is held back for the next 15 minutes",
        "connection reset after 30 seconds",
        "waited for 30 seconds",
        "Lock wait timeout exceeded after 50 seconds",
        "the lock wait for 50 seconds was in vain",
        "not available for 30 seconds",
        "failed after retry in 30 seconds",
        "the worker was blocked for 30 seconds",
    ],
)
@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_span_of_time_that_was_spent_is_no_moment_to_come_back_at(status: int, text: str) -> None:
    """A wait of 900 seconds that nobody asked for would keep the call from being tried again at all."""
    verdict = classify(status, json.dumps({"message": text}))
    assert verdict.retry_after is None


def test_a_window_and_a_moment_can_stand_in_one_message() -> None:
    """The moment counts."""
    expected = RateLimit(limit=10, window=60.0, reset=5.0, explicit=True, in_words=True)
    assert limited("10 requests in 60 seconds are allowed, try again in 5 seconds") == (5.0, expected)


def test_headers_win_over_the_message() -> None:
    """A header is for machines; the message fills what the headers leave out."""
    said = json.dumps({"message": "30 Requests/minute is allowed, retry after 9 seconds"})
    verdict = classify(429, said, headers={"RateLimit": "default;r=0;t=20"})
    assert verdict.retry_after == 20.0
    assert verdict.rate_limit == RateLimit(limit=30, window=60.0, remaining=0, reset=20.0, explicit=True, in_words=True)


@pytest.mark.parametrize("text", ["rate limited", "too many requests", "404 requests", "in 5 parsecs"])
def test_a_message_without_a_limit_tells_none(text: str) -> None:
    """Then the caller knows the documented window."""
    assert limited(text) == (None, None)


def test_a_server_that_is_down_may_name_a_moment_but_no_limit() -> None:
    """Maintenance is no rate limit."""
    verdict = classify(503, json.dumps({"message": "maintenance mode is active, retry after 5 minutes"}))
    assert (verdict.retry_after, verdict.rate_limit) == (300.0, None)
    assert classify(400, json.dumps({"error": "retry after 5 minutes is no valid value"})).retry_after is None
