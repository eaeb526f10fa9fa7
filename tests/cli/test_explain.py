"""`insider-otel explain` says what a reply means, and refuses what it cannot read."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from insider_otel.api.operations import Resend, operations
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


@pytest.mark.parametrize("status", ["500", "503", "504", "520"])
def test_a_spread_retry_is_insiders_wish_after_the_answers_it_documents(
    status: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert facts(capsys, status)["retry"].endswith("of the next five minutes, as Insider asks")


@pytest.mark.parametrize("reply", ["502", "521", "ReadTimeout", "ConnectError"])
def test_after_anything_else_it_is_our_advice(reply: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert facts(capsys, reply)["retry"] == "backoff: try again at a random moment of the next five minutes"


SMS = "https://sms.useinsider.com/v1/send"
MAIL = "https://mail.useinsider.com/mail/v1/send"
UPSERT = "https://unification.useinsider.com/api/user/v1/upsert"


@pytest.mark.parametrize(
    ("url", "reply", "operation", "resend"),
    [
        (SMS, "ReadTimeout", "sms.send", "answered: this library does not resend it after silence"),
        (SMS, "502", "sms.send", "answered: this library does not resend it after an answer that may hide success"),
        (SMS, "503", "sms.send", "answered: this library resends it"),
        (SMS, "ConnectError", "sms.send", "answered: this library resends it"),
        (
            MAIL,
            "ReadTimeout",
            "mail.send",
            "window: this library resends it only inside the 15-minute duplicate window",
        ),
        (MAIL, "503", "mail.send", "window: this library resends it"),
        (UPSERT, "ReadTimeout", "user.upsert", "idempotent: this library resends it"),
    ],
)
def test_with_the_url_it_says_whether_the_operation_is_sent_again(
    url: str, reply: str, operation: str, resend: str, capsys: pytest.CaptureFixture[str]
) -> None:
    said = facts(capsys, reply, "--url", url)
    assert (said["operation"], said["resend"]) == (operation, resend)
    verdict = explain(capsys, reply, "--url", url)
    assert (verdict["operation"], verdict["resends"]) == (operation, "not resend" not in resend)


def test_what_is_never_sent_twice_is_said_to_be(capsys: pytest.CaptureFixture[str]) -> None:
    never = next(each for each in operations() if each.resend is Resend.NEVER)
    url = f"https://{never.host}{never.path}"
    said = facts(capsys, "503", "--url", url, "--method", never.methods[0].lower())
    assert said["operation"] == never.name
    assert said["resend"] == "never: this library does not resend it"


def test_the_retry_does_not_contradict_what_the_library_does(capsys: pytest.CaptureFixture[str]) -> None:
    assert facts(capsys, "ReadTimeout", "--url", SMS)["retry"] == (
        "backoff: it may succeed later; whether to send it again is for you to decide"
    )


def test_a_wait_that_is_too_long_for_the_library_is_not_promised(capsys: pytest.CaptureFixture[str]) -> None:
    said = facts(capsys, "429", "--header", "Retry-After: 7200", "--url", SMS)
    assert said["resend"] == "answered: this library does not wait for so long, so it does not resend it"


def test_where_a_retry_cannot_help_the_resend_rule_is_no_matter(capsys: pytest.CaptureFixture[str]) -> None:
    said = facts(capsys, "400", '{"error": "bad"}', "--url", SMS)
    assert said["operation"] == "sms.send"
    assert "resend" not in said


def test_a_host_that_is_not_insiders_has_no_operation(capsys: pytest.CaptureFixture[str]) -> None:
    assert "operation" not in facts(capsys, "503", "--url", "https://example.com/v1/send")


INSIDER = "https://unification.useinsider.com"


@pytest.mark.parametrize(
    ("url", "remark"),
    [
        (f"{INSIDER}/api/user/v1/upsrt", "has this path: did you mean POST /api/user/v1/upsert?"),
        (f"{INSIDER}/API/user/v2/upsert?debug=1", "has this path: did you mean POST /api/user/v1/upsert?"),
        (f"{MAIL}/", "has this very path: did you mean POST /mail/v1/send?"),
        (MAIL.replace("/mail/v1", "//mail/v1"), "has this very path: did you mean POST /mail/v1/send?"),
        (MAIL.replace("send", "Send"), "has this very path: did you mean POST /mail/v1/send?"),
        (f"{INSIDER}/mail/v1/send", f"has this path: did you mean POST {MAIL}?"),
        (
            f"{INSIDER}/api/user/v1/identity",
            "answers POST at this path: did you mean PATCH/DELETE /api/user/v1/identity?",
        ),
        (
            "https://web-push.api.useinsider.com/v1/single/42/",
            "has this very path: did you mean POST /v1/single/{campaign_id}?",
        ),
        (f"{INSIDER}/xyzzy", "has this path"),
    ],
)
def test_a_path_that_is_not_documented_is_told_with_the_nearest_that_is(
    url: str, remark: str, capsys: pytest.CaptureFixture[str]
) -> None:
    not_found = ("404", "404 page not found", "--url", url)
    assert explain(capsys, *not_found)["path"] == f"no documented operation {remark}"
    assert facts(capsys, *not_found)["path"].startswith("no documented operation ")


def test_a_path_that_is_documented_needs_no_remark(capsys: pytest.CaptureFixture[str]) -> None:
    for operation in operations():
        for method in operation.methods:
            url = f"https://{operation.host}{operation.path}"
            assert "path" not in explain(capsys, "404", "--url", url, "--method", method)


def test_the_nearest_path_is_asked_for_with_the_method_that_was_used(capsys: pytest.CaptureFixture[str]) -> None:
    asked = ("404", "--url", f"{INSIDER}/api/user/v1/identiti", "--method", "delete")
    assert explain(capsys, *asked)["path"].endswith("did you mean DELETE /api/user/v1/identity?")


def test_a_path_of_another_host_than_insiders_is_no_matter(capsys: pytest.CaptureFixture[str]) -> None:
    assert "path" not in explain(capsys, "404", "--url", "https://example.com/api/user/v1/upsrt")


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
        (["200", "--method", "GET"], "--method says nothing without --url"),
    ],
)
def test_what_it_cannot_read_is_refused_by_name(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["explain", *arguments]) == 2
    printed = capsys.readouterr()
    assert complaint in printed.err
    assert printed.out == ""
