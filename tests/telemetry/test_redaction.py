"""URLs and headers leave the process by allow-list."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel.telemetry.captured_headers import HeaderCapture, excluded_urls
from insider_otel.telemetry.redaction import redacted_path, redacted_query


@pytest.mark.parametrize(
    ("path", "template", "shown"),
    [
        ("/api/user/v1/upsert", "/api/user/v1/upsert", "/api/user/v1/upsert"),
        ("/v1/single/4711", "/v1/single/{campaign_id}", "/v1/single/4711"),
        ("/v2/user-based", "/v2/{algorithm}", "/v2/user-based"),
        ("/v1/single/jane@example.com", "/v1/single/{campaign_id}", "/v1/single/REDACTED"),
        ("/v1/single/%2B905550000001", "/v1/single/{campaign_id}", "/v1/single/REDACTED"),
        ("/v1/single/905550000001", "/v1/single/{campaign_id}", "/v1/single/REDACTED"),
        ("/api/user/v9/upsert/", "", "/api/user/v9/upsert/"),
        ("/api/user/v1/jane", "", "/api/user/v1/REDACTED"),
        ("/", "", "/"),
        ("", "", ""),
    ],
)
def test_a_path_keeps_what_is_known_to_be_harmless(path: str, template: str, shown: str) -> None:
    assert redacted_path(path, template) == shown


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("", ""),
        ("limit=100&page=2", "limit=100&page=2"),
        ("locale=tr_TR", "locale=tr_TR"),
        ("userId=jane&partnerName=shop", "userId=REDACTED&partnerName=REDACTED"),
        ("limit=jane@example.com", "limit=REDACTED"),
        ("a=&b=2", "a=REDACTED&b=REDACTED"),
        ("flag", "REDACTED"),
        ("SECRETTOKEN1234567890abcdef", "REDACTED"),
        ("limit=905550000001&page=jane.example.com", "limit=REDACTED&page=REDACTED"),
        ("abc905550000001=1", "REDACTED"),
        ("currency=TRY&interval=day&order=DESC", "currency=TRY&interval=day&order=DESC"),
        ("jane@example.com", "REDACTED"),
        ("%2B905550000001=1", "REDACTED"),
        ("a=1&&b=2", "a=REDACTED&REDACTED&b=REDACTED"),
    ],
)
def test_a_query_keeps_its_names_and_the_values_of_an_allow_list(query: str, shown: str) -> None:
    assert redacted_query(query) == shown


@given(st.text(alphabet="abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", min_size=16, max_size=64))
def test_no_token_survives(token: str) -> None:
    names = ("limit", "page", "locale", "currency", "order", "interval", "userId")
    query = "&".join([*(f"{name}={token}" for name in names), token])
    assert token not in redacted_query(query)


@given(st.text(alphabet=st.characters(codec="ascii", exclude_characters="/{}"), min_size=1), st.text(max_size=40))
def test_no_address_or_number_survives(segment: str, value: str) -> None:
    secret = f"{segment}@9055500{value}"
    assert "@9055500" not in redacted_path(f"/v1/single/{secret}".replace("/@", "@"), "/v1/single/{campaign_id}")
    assert "@9055500" not in redacted_path(f"/api/{secret}", "")
    assert "@9055500" not in redacted_query(f"limit={secret}&{secret}&x={secret}")


CAPTURING = {
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST": "content-type, X-.*",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE": "server,set-cookie",
    "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_SANITIZE_FIELDS": ".*session.*",
}


def test_headers_are_captured_by_the_stock_variables() -> None:
    capture = HeaderCapture.from_env(CAPTURING)
    pairs = [("Content-Type", "application/json"), ("Accept", "*/*"), ("X-A", "1"), ("X-A", "2")]
    assert capture.of_request(pairs) == {
        "http.request.header.content-type": ["application/json"],
        "http.request.header.x-a": ["1", "2"],
    }
    assert capture.of_response([("Server", "cloudflare")]) == {"http.response.header.server": ["cloudflare"]}


def test_headers_are_sanitized_by_the_stock_variable() -> None:
    captured = HeaderCapture.from_env(CAPTURING).of_request([("X-Session-Id", "abc")])
    assert captured == {"http.request.header.x-session-id": ["[REDACTED]"]}


@pytest.mark.parametrize(
    "name", ["X-REQUEST-TOKEN", "X-INS-AUTH-KEY", "x-api-key", "X-INSIDER-API-KEY", "x-auth-token", "X-Session"]
)
def test_credentials_are_never_captured_whatever_the_variables_say(name: str) -> None:
    (value,) = HeaderCapture.from_env(CAPTURING).of_request([(name, "secret")]).values()
    assert value == ["[REDACTED]"]


def test_nothing_is_captured_unasked() -> None:
    assert HeaderCapture.from_env({}).of_request([("Accept", "*/*")]) == {}


def test_the_variable_of_httpx_rules_over_the_general_one() -> None:
    pattern = excluded_urls({"OTEL_PYTHON_HTTPX_EXCLUDED_URLS": "mail, sms", "OTEL_PYTHON_EXCLUDED_URLS": "verify"})
    assert pattern is not None
    assert pattern.search("https://sms.useinsider.com/")
    assert not pattern.search("https://verify.useinsider.com/")
    general = excluded_urls({"OTEL_PYTHON_EXCLUDED_URLS": "verify"})
    assert general is not None
    assert general.search("https://verify.useinsider.com/")
    assert excluded_urls({}) is None


@pytest.mark.parametrize("variable", [*CAPTURING, "OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS"])
def test_a_variable_that_holds_no_regular_expression_is_named_with_what_to_write(variable: str) -> None:
    """A star alone is what one writes for everything elsewhere."""
    environ = {variable: "healthz,*"}
    with pytest.raises(ValueError, match=re.escape(f"{variable} is 'healthz,*'") + ".* such as .* for anything"):
        (HeaderCapture.from_env if variable in CAPTURING else excluded_urls)(environ)
