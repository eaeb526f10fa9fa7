"""Sample requests: complete, and for any address."""

from __future__ import annotations

import json

import pytest

from insider_otel.api.operations import find, operations
from insider_otel.testing import sample_request


@pytest.mark.parametrize("operation", operations(), ids=lambda operation: operation.name)
def test_a_sample_calls_its_operation(operation: object) -> None:
    sample = sample_request(getattr(operation, "name", ""))
    scheme, _, host, path = sample.url.partition("?")[0].split("/", 3)
    assert scheme == "https:"
    assert find(sample.method, host, f"/{path}") is operation
    assert "{" not in sample.url


def test_a_sample_carries_its_credentials() -> None:
    assert sample_request("user.upsert").headers == {
        "X-PARTNER-NAME": "fakeshop",
        "X-REQUEST-TOKEN": "fake-key",
        "Content-Type": "application/json",
    }
    assert sample_request("web_push.create").headers["Authorization"] == "Bearer fake-key"
    assert sample_request("push.bulk").json["api_key"] == "fake-key"


def test_a_read_has_no_body() -> None:
    sample = sample_request("architect.goals")
    assert (sample.json, sample.content) == (None, b"")
    assert "Content-Type" not in sample.headers


def test_a_form_is_sent_as_a_form() -> None:
    sample = sample_request("gateway.token")
    assert sample.headers["Content-Type"] == "application/x-www-form-urlencoded"
    assert sample.content.startswith(b"grant_type=client_credentials&")


def test_another_body_and_another_address() -> None:
    sample = sample_request("user.upsert", {"users": []}, base_url="http://127.0.0.1:8080/")
    assert sample.url == "http://127.0.0.1:8080/api/user/v1/upsert"
    assert json.loads(sample.content) == {"users": []}


def test_a_typing_error_says_what_was_meant() -> None:
    with pytest.raises(ValueError, match=r"did you mean 'user\.upsert'\? `insider-otel operations` lists them"):
        sample_request("user.upsrt")


def test_nothing_in_the_samples_is_a_real_address() -> None:
    import re

    text = json.dumps([sample_request(operation.name).json for operation in operations()])
    assert {phone for phone in re.findall(r"\+\d{7,}", text) if not phone.startswith("+9055500000")} == set()
    assert set(re.findall(r"@([\w.]+)", text)) == {"example.com"}
    assert {host for host in re.findall(r"https?://([^/\"]+)", text) if not host.endswith("example.com")} == set()
