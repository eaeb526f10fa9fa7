"""`insider-otel demo` plays every scenario for real, on any terminal or none."""

from __future__ import annotations

import os
import pty
import re
import signal
import subprocess
import time
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass

import pytest

from insider_otel.cli import main
from insider_otel.cli.demo.scenarios import SCENARIOS

from .demo_process import NAMES, SECRETS, command, demo, environment, scenes

ANSI = re.compile(r"\x1b\[[0-9;]*m")


# ------------------------------------------------------------------------------------------------ what it shows


@dataclass(frozen=True)
class Whole:
    """A run of all scenarios."""

    done: subprocess.CompletedProcess[str]
    seconds: float


@pytest.fixture(scope="module")
def whole() -> Whole:
    """Played again, if the machine stood still so long that the limit of one a second had room again."""
    played = play_all()
    for _ in range(2):
        if "429 Too Many Requests" not in played.done.stdout:
            played = play_all()
    return played


def play_all() -> Whole:
    start = time.monotonic()
    done = demo()
    return Whole(done, time.monotonic() - start)


def test_it_runs_without_a_terminal_and_is_soon_over(whole: Whole) -> None:
    assert (whole.done.returncode, whole.done.stderr) == (0, "")
    assert whole.seconds < 30


def test_every_scenario_has_its_title(whole: Whole) -> None:
    shown = scenes(whole.done.stdout)
    assert list(shown) == NAMES
    assert [each.name for each in SCENARIOS if each.title not in shown[each.name][0]] == []


def test_without_a_terminal_it_is_plain_text_of_80_columns(whole: Whole) -> None:
    assert "\x1b" not in whole.done.stdout
    assert [line for line in whole.done.stdout.splitlines() if len(line) > 80] == []


def test_it_shows_no_secret_and_no_personal_datum(whole: Whole) -> None:
    assert [secret for secret in SECRETS if secret in whole.done.stdout.lower()] == []


@pytest.mark.parametrize(
    ("scenario", "bare", "tree", "outcome"),
    [
        (
            "success",
            "200 OK",
            [
                "POST /signup … 200",
                "└─ insider user.upsert … succeeded",
                "   └─ POST /api/user/v1/upsert … 200 success",
            ],
            "succeeded. Category success.",
        ),
        (
            "quick-retry",
            "503 Service Unavailable",
            [
                "POST /signup … 200",
                "└─ insider user.upsert … succeeded",
                "   ├─ POST /api/user/v1/upsert … 503 unavailable",
                "   ├─ ◆ retry.scheduled … unavailable",
                "   ├─ insider wait … retry (jitter)",
                "   └─ POST /api/user/v1/upsert … 200 success resend 1",
            ],
            "succeeded after 2 attempts and 300 ms of waiting. Category success.",
        ),
        (
            "hidden-rate-limit",
            "403 Forbidden",
            [
                "GET /reports/push … 200",
                "└─ insider web_push.top_metrics … succeeded",
                "   ├─ POST /v1/statistics/top-me… … 403 rate_limit",
                "   ├─ ◆ rate_limit.hit …",
                "   ├─ ◆ retry.scheduled … rate_limit",
                "   ├─ insider wait … rate_limit (retry_after)",
                "   └─ POST /v1/statistics/top-me… … 200 success resend 1",
            ],
            "succeeded after 2 attempts and 1.30 s of waiting. Category success.",
        ),
        (
            "wait-for-slot",
            "429 Too Many Requests",
            [
                "POST /admin/campaigns … 200",
                "└─ insider mail.campaign_create … succeeded",
                "   ├─ ◆ rate_limit.waited …",
                "   ├─ insider wait … rate_limit (limiter)",
                "   └─ POST /content/v1/campaign/… … 201 success",
            ],
            "succeeded after a second of waiting for its turn. Category success.",
        ),
        (
            "otp-typo",
            "401 Unauthorized",
            [
                "POST /login/code … 422",
                "└─ insider verify.check … failed verification",
                "   └─ POST /v1/check … 401 verification",
            ],
            "failed. Category verification: nobody has to act.",
        ),
        (
            "lost-records",
            "200 OK",
            [
                "POST /import … 200",
                "└─ insider user.upsert … partly_failed 2 records lost",
                "   └─ POST /api/user/v1/upsert … 200 partial_failure",
            ],
            "partly failed: 2 of 3 records lost. Category partial_failure: your side has to act.",
        ),
        (
            "duplicate-window",
            "httpx.ReadTimeout",
            [
                "POST /orders … 200",
                "└─ insider mail.send … succeeded",
                "   ├─ POST /mail/v1/send … timeout",
                "   ├─ ◆ retry.scheduled … timeout",
                "   ├─ insider wait … retry (jitter)",
                "   ├─ POST /mail/v1/send … 202 duplicate resend 1",
                "   └─ ◆ dedupe.server_duplicate …",
            ],
            "succeeded after 2 attempts and 300 ms of waiting. Category duplicate.",
        ),
        (
            "held-back",
            "202 Accepted",
            [
                "POST /orders … 200",
                "└─ insider mail.send … held_back",
                "   └─ ◆ dedupe.held_back …",
            ],
            "held back. Category duplicate: nobody has to act.",
        ),
        (
            "permanent-500",
            "500 Internal Server Error",
            [
                "POST /admin/otp-channel … 409",
                "└─ insider verify.channel_create … failed conflict",
                "   └─ POST /v1/channel/create … 500 conflict",
            ],
            "failed. Category conflict: your side has to act.",
        ),
        (
            "wrong-key",
            "400 Bad Request",
            [
                "POST /admin/campaigns … 502",
                "└─ insider push.bulk … failed authentication",
                "   └─ POST /api/v1/push/bulk … 400 authentication",
            ],
            "failed. Category authentication: your side has to act.",
        ),
    ],
)
def test_a_scenario_is_told_by_its_bare_status_its_trace_and_its_outcome(
    whole: Whole, scenario: str, bare: str, tree: list[str], outcome: str
) -> None:
    lines = scenes(whole.done.stdout)[scenario]
    parts = "\n".join(lines[1:]).split("\n\n")
    assert parts[0].startswith(f"without  {bare}. ")
    assert [without_bar_and_duration(line) for line in parts[1].splitlines()] == tree
    told = " ".join(" ".join(parts[2].split()).split("outcome ")[1].split(" note ")[0].split())
    # What is left of the second, when the page is opened.
    assert re.sub(r"([\d.]+ ms|1\.0\d s) of waiting for", "a second of waiting for", told) == outcome


def without_bar_and_duration(line: str) -> str:
    return re.sub(r"\s+[█◆]+\s+\+?[\d.]+ m?s\s?", " … ", line).rstrip()


@pytest.mark.parametrize(
    ("scenario", "meaning"),
    [
        ("quick-retry", "Insider is not available"),
        ("hidden-rate-limit", "Too many requests, though the status says 403: the key is fine."),
        ("duplicate-window", "Insider has this already"),
        ("held-back", "Insider has taken the same content a short while ago"),
        ("lost-records", "Insider did not take every record"),
    ],
)
def test_the_meaning_is_that_of_the_trouble_even_if_it_was_healed(whole: Whole, scenario: str, meaning: str) -> None:
    assert meaning in " ".join(" ".join(scenes(whole.done.stdout)[scenario]).split())


def test_where_the_play_differs_from_life_it_says_so(whole: Whole) -> None:
    """A minute's wait is too long for a demonstration: Insider names a shorter one here."""
    assert "note     Here the reply also has Retry-After: 1." in whole.done.stdout


def test_scenarios_can_be_chosen() -> None:
    done = demo("--scenario", "wrong-key", "--scenario", "otp-typo")
    assert done.returncode == 0
    assert list(scenes(done.stdout)) == ["wrong-key", "otp-typo"]


def test_the_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == NAMES


# -------------------------------------------------------------------------------------------- on any terminal


def on_terminal(*arguments: str, **variables: str) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**variables)
    ) as process:
        os.close(theirs)
        written = b""
        with closing(os.fdopen(ours, "rb", buffering=0)) as terminal:
            try:
                while piece := terminal.read(65536):
                    written += piece
            except OSError:
                pass  # how Linux says that the other end is closed
        assert process.wait(60) == 0
    return written.decode().replace("\r\n", "\n")


def test_on_a_terminal_categories_have_colours_and_the_colours_are_explained() -> None:
    said = on_terminal("--scenario", "hidden-rate-limit", "--scenario", "otp-typo", COLUMNS="100")
    for coloured in (
        "\x1b[35m403 rate_limit\x1b[0m",
        "\x1b[32m200 success resend 1\x1b[0m",
        "\x1b[36m401 verification\x1b[0m",
        "\x1b[35mtoo fast\x1b[0m",
    ):
        assert coloured in said
    plain = ANSI.sub("", said).splitlines()
    assert max(len(line) for line in plain) == 100
    assert "   ├─ POST /v1/statistics/top-metrics " in "\n".join(plain)


def test_on_a_terminal_a_deferred_call_does_not_have_the_colour_of_what_insider_has() -> None:
    said = on_terminal("--scenario", "handed-over", "--scenario", "success", COLUMNS="100")
    assert "\x1b[32mInsider has it\x1b[0m" in said
    assert "outcome  deferred after 3 attempts" in said
    assert "outcome  \x1b[32msucceeded" in said


@pytest.mark.parametrize(("arguments", "variables"), [(["--no-color"], {}), ([], {"NO_COLOR": "1"})])
def test_nobody_has_to_have_colours(arguments: list[str], variables: Mapping[str, str]) -> None:
    said = on_terminal("--scenario", "success", *arguments, **variables)
    assert "\x1b" not in said
    assert "└─ insider user.upsert" in said


def test_an_encoding_without_box_characters_gets_ascii() -> None:
    done = demo("--scenario", "quick-retry", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "`- insider user.upsert" in done.stdout
    assert done.stdout.isascii()


def test_ctrl_c_ends_it_without_a_stack_trace() -> None:
    with subprocess.Popen(
        command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint) == (130, "")
