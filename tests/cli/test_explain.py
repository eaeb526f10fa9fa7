"""`insider-otel explain` says what a reply means, and refuses what it cannot read."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from insider_otel.cli import main

TOO_FAST = '{"error": {"message": "Too many attempts, please slow down the request. 30 Requests/minute is allowed."}}'


def explain(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The verdict that the command prints as JSON."""
    assert main(["explain", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def facts(capsys: pytest.CaptureFixture[str], *arguments: str) -> dict[str, str]:
    """The lines that the command prints, by their labels."""
    assert main(["explain", *arguments]) == 0
    lines = capsys.readouterr().out.splitlines()
    return {line[:12].strip(): line[12:] for line in lines if line[:12].strip()}


def test_a_403_that_is_a_rate_limit_is_said_to_be_one(capsys: pytest.CaptureFixture[str]) -> None:
    said = facts(capsys, "403", TOO_FAST)
    assert said["category"] == "rate_limit"
    assert said["fault"] == "caller: your side has to act"
    assert said["retry"] == "after_window: try again when the window of the rate limit is over"
    assert said["limit"] == "30 allowed, in 60 s"
    assert said["advice"]


def test_lost_records_are_counted(capsys: pytest.CaptureFixture[str]) -> None:
    body = '{"data": {"successful": {"count": 2}, "fail": {"count": 1, "errors": {}}}}'
    assert facts(capsys, "200", body)["records"] == "2 accepted, 1 failed"


def test_good_news_needs_no_retry(capsys: pytest.CaptureFixture[str]) -> None:
    said = facts(capsys, "202", '{"message_id": "1", "status_message": "accepted"}')
    assert said["retry"] == "never: no need to, Insider has it"
    assert "field" not in said


def test_json_is_the_whole_verdict(capsys: pytest.CaptureFixture[str]) -> None:
    verdict = explain(capsys, "403", TOO_FAST)
    assert (verdict["category"], verdict["retry"]) == ("rate_limit", "after_window")
    assert verdict["rate_limit"]["limit"] == 30
    assert set(verdict) >= {"rule", "fault", "message", "code", "field", "accepted", "failed", "retry_after", "advice"}


def test_headers_count(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, "429", "--header", "Retry-After: 17")["retry_after"] == 17
    assert facts(capsys, "429", "--header", "retry-after:17")["wait"] == "17 s"


def test_headers_of_one_name_are_one_list(capsys: pytest.CaptureFixture[str]) -> None:
    policies = explain(capsys, "429", "--header", 'RateLimit: "a";r=9;t=5', "--header", 'ratelimit: "b";r=0;t=7')
    assert policies["rate_limit"]["remaining"] == 0


def test_the_body_may_come_from_standard_input(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(TOO_FAST.encode())))
    assert explain(capsys, "403", "-")["category"] == "rate_limit"


@pytest.mark.parametrize(
    ("status", "category"), [("ReadTimeout", "timeout"), ("httpx.ConnectError", "network"), ("PoolTimeout", "timeout")]
)
def test_an_exception_is_explained_by_its_name(status: str, category: str, capsys: pytest.CaptureFixture[str]) -> None:
    verdict = explain(capsys, status)
    assert (verdict["category"], verdict["rule"]) == (category, f"exception.{status.rpartition('.')[2]}")


def test_no_reply_at_all_is_a_matter_of_the_network(capsys: pytest.CaptureFixture[str]) -> None:
    assert explain(capsys, "none")["fault"] == "network"


def test_a_body_whose_status_is_not_known_speaks_for_itself(capsys: pytest.CaptureFixture[str]) -> None:
    body = '{"status_message": "This request has already been received in the last 15 minutes."}'
    assert explain(capsys, "none", body)["category"] == "duplicate"


def test_the_url_decides_where_one_code_means_two_things(capsys: pytest.CaptureFixture[str]) -> None:
    reply = ("400", '{"errorCode": "2020"}')
    settings = "https://gw.useinsider.com/api/wa/v2/transactional/settings"
    assert explain(capsys, *reply, "--url", settings)["category"] == "configuration"
    assert explain(capsys, *reply)["category"] != "configuration"


def test_what_insider_said_cannot_drive_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "400", '{"error": "\\u001b[2Jbad\\u0007 request"}']) == 0
    assert not {"\x1b", "\x07"} & set(capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["99"], "STATUS is 99; an HTTP status is a number from 100 to 599"),
        (["600"], "from 100 to 599"),
        (["teapot"], "STATUS is 'teapot'; it accepts an HTTP status (403), none"),
        (["Client"], "STATUS is 'Client'"),
        (["²"], "STATUS is '²'"),
        (["200", "--header", "no colon"], "--header is 'no colon'; it accepts 'Name: value'"),
        (["200", "--header", ": value"], "'Name: value'"),
        (["200", "--url", "mail.useinsider.com"], "--url accepts a whole URL"),
        (["200", "--url", "https://[::1"], "--url"),
    ],
)
def test_what_it_cannot_read_is_refused_by_name(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *arguments]) == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert printed.out == ""
