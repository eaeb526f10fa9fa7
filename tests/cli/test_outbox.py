"""`insider-otel outbox` shows deferred calls without personal data, deals with dead ones, and sends the rest."""

from __future__ import annotations

import contextlib
import json
import os
import re
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta

import pytest
from cryptography.fernet import Fernet
from opentelemetry.trace import format_trace_id

from insider_otel import defer
from insider_otel.cli import main
from insider_otel.testing import CapturedSpans, deliver_outbox, sample_request

from .outbox_shop import Shop

EMAIL = "jane@example.com"
PATIENCE = 60.0
_OTHER_CREDENTIALS = json.dumps({"X-API-KEY": "not-of-these-calls"})

_AT_TERMINAL = """
import fcntl, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
from insider_otel.cli import main
sys.exit(main())
"""

pytestmark = pytest.mark.usefixtures("nothing_is_set")


# ---------------------------------------------------------------------------------------------------------------- look


def test_the_list_says_what_waits_and_why_others_were_given_up(shop: Shop, outbox: Callable[..., str]) -> None:
    dead, waiting = shop.dead(), shop.defer("mail.send")
    rows = [line.split("  ") for line in outbox("list").splitlines()]
    cells = {row[0]: [cell.strip() for cell in row[1:] if cell] for row in rows}
    *others, deleted_at = cells[dead]
    assert others == ["user.upsert", "dead", "1", "1", "validation/status.400", "failed"]
    assert deleted_at == json.loads(outbox("show", "--json", dead))["deleted_at"]
    assert cells[waiting] == ["mail.send", "waiting", "now", "0", "0"]


def test_the_list_as_json_has_one_state_only_if_asked(shop: Shop, outbox: Callable[..., str]) -> None:
    dead, waiting = shop.dead(), shop.defer()
    for arguments, names in (((), [dead, waiting]), (("--dead",), [dead]), (("--waiting",), [waiting])):
        assert [job["id"] for job in json.loads(outbox("list", "--json", *arguments))["jobs"]] == names
    assert [job["id"] for job in json.loads(outbox("list", "--json", "--most", "1"))["jobs"]] == [dead]


def test_a_dead_letter_tells_since_when_it_is_one_and_until_when_it_is_kept(
    shop: Shop, outbox: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    dead, waiting = shop.dead(), shop.defer()
    monkeypatch.setenv("INSIDER_OTEL_OUTBOX_RETENTION", "604800")
    shown = json.loads(outbox("show", "--json", dead))
    since, until = (datetime.fromisoformat(shown[name]) for name in ("stopped_at", "deleted_at"))
    assert until - since == timedelta(days=7)
    assert re.search(rf"^deleted at +{shown['deleted_at']}$", outbox("show", dead), re.MULTILINE)
    monkeypatch.setenv("INSIDER_OTEL_OUTBOX_RETENTION", "none")
    assert json.loads(outbox("show", "--json", dead))["deleted_at"] is None
    shown = json.loads(outbox("show", "--json", waiting))
    assert (shown["stopped_at"], shown["deleted_at"]) == (None, None)


def test_statistics_count_and_tell_since_when_the_oldest_waits(shop: Shop, outbox: Callable[..., str]) -> None:
    shop.dead()
    assert json.loads(outbox("stats", "--json")) == {"waiting": 0, "sending": 0, "dead": 1, "oldest_age_s": None}
    shop.defer()
    shop.defer()
    stats = json.loads(outbox("stats", "--json"))
    assert (stats["waiting"], stats["dead"]) == (2, 1)
    assert 0 <= stats["oldest_age_s"] < PATIENCE
    assert outbox("stats").splitlines()[1].split()[:3] == ["2", "0", "1"]


@pytest.mark.parametrize("command", ["list", "stats"])
def test_who_looks_at_an_outbox_that_is_not_there_makes_none(
    command: str, shop: Shop, outbox: Callable[..., str]
) -> None:
    assert "No such outbox yet" in outbox(command)
    before = json.loads(outbox(command, "--json"))
    assert not shop.path.exists()
    shop.store.discard(shop.defer())
    assert json.loads(outbox(command, "--json")) == before


def test_an_empty_outbox_says_so(shop: Shop, outbox: Callable[..., str]) -> None:
    shop.dead()
    assert outbox("list", "--waiting") == "No job is waiting.\n"


# ------------------------------------------------------------------------------------------------------- personal data


def test_a_job_is_shown_without_personal_data_or_credentials(
    shop: Shop, outbox: Callable[..., str], insider_spans: CapturedSpans
) -> None:
    shop.tracer_provider = insider_spans.tracer_provider
    name = shop.defer()
    text, shown = outbox("show", name), json.loads(outbox("show", "--json", name))
    for printed in (text, json.dumps(shown), outbox("list"), outbox("list", "--json")):
        assert EMAIL not in printed
        assert not any(secret in printed for secret in sample_request("user.upsert").headers.values() if secret)
    assert shown["request"]["path"] == "/api/user/v1/upsert"
    assert shown["request"]["records"] == 1
    assert shown["request"]["body_bytes"] == len(sample_request("user.upsert").content)
    assert shown["request"]["credentials"] == ["x-partner-name", "x-request-token"]
    (call,) = insider_spans.calls()
    assert shown["trace_id"] == format_trace_id(call.context.trace_id)


def test_what_is_sent_is_shown_on_request(shop: Shop, outbox: Callable[..., str]) -> None:
    name = shop.defer()
    request = json.loads(outbox("show", "--reveal", "--json", name))["request"]
    assert request["url"] == sample_request("user.upsert").url
    assert json.loads(request["body"]) == json.loads(sample_request("user.upsert").content)
    assert EMAIL in outbox("show", "--reveal", name)


def test_what_is_sent_does_not_drive_the_terminal(shop: Shop, outbox: Callable[..., str]) -> None:
    with shop.client() as client:
        sample = sample_request("user.upsert")
        request = client.build_request(
            sample.method, sample.url, headers=sample.headers, content='{"users": ["\x1b[2Jç"]}'
        )
        name = defer(client, request).headers["x-insider-otel"].rpartition("job=")[2]
    assert "\\x1b[2Jç" in outbox("show", "--reveal", name)


def test_what_is_encrypted_is_shown_only_to_who_has_the_key(
    shop: Shop, outbox: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = Fernet.generate_key().decode()
    shop.settings["outbox_key"] = key
    name = shop.defer()
    assert "INSIDER_OTEL_OUTBOX_KEY" in outbox("show", "--reveal", name, status=2)
    assert "encrypted" in outbox("show", name)
    monkeypatch.setenv("INSIDER_OTEL_OUTBOX_KEY", key)
    revealed = outbox("show", "--reveal", name)
    assert EMAIL in revealed
    assert key not in revealed


def test_a_job_is_found_by_the_beginning_of_its_name_if_no_other_begins_so(
    shop: Shop, outbox: Callable[..., str]
) -> None:
    names = [shop.defer() for _ in range(3)]
    assert json.loads(outbox("show", "--json", names[1][:12]))["id"] == names[1]
    assert "no job is called 'zzzz'" in outbox("show", "zzzz", status=2)


@pytest.mark.parametrize("command", ["show", "retry", "discard"])
def test_a_beginning_that_is_too_short_is_refused_for_that(
    command: str, shop: Shop, outbox: Callable[..., str]
) -> None:
    name = shop.defer()
    for short in (name[:3], ""):
        assert "the beginning of a name needs 4 characters" in outbox(command, short, status=2)
    assert outbox(command, name[:4], *(["--yes"] if command == "discard" else []))


# ------------------------------------------------------------------------------------------------------------- dealing


def test_a_dead_job_that_is_retried_is_sent(shop: Shop, outbox: Callable[..., str]) -> None:
    name = shop.dead()
    assert json.loads(outbox("retry", "--json", name)) == {"retried": [name], "refused": []}
    with shop.client() as client:
        assert deliver_outbox(client) == 1
    assert json.loads(outbox("list", "--json"))["jobs"] == []


def test_all_dead_jobs_are_retried_or_discarded_at_once_and_the_others_are_left(
    shop: Shop, outbox: Callable[..., str]
) -> None:
    dead = [shop.dead(), shop.dead()]
    waiting = shop.defer()
    assert json.loads(outbox("retry", "--all-dead", "--json"))["retried"] == dead
    assert outbox("retry", "--all-dead") == "There is no job to be retried.\n"
    assert outbox("discard", "--yes", *dead).splitlines() == [f"{name}  discarded" for name in dead]
    assert [job["id"] for job in json.loads(outbox("list", "--json"))["jobs"]] == [waiting]


def test_what_was_done_is_said_of_an_outbox_that_fails_then(shop: Shop, capsys: pytest.CaptureFixture[str]) -> None:
    first, second, third = (shop.defer() for _ in range(3))
    with contextlib.closing(sqlite3.connect(shop.path)) as connection:
        trouble = f"BEFORE DELETE ON jobs WHEN old.id = '{second}' BEGIN SELECT RAISE(ABORT, 'no more'); END"
        connection.execute(f"CREATE TRIGGER trouble {trouble}")
    assert main(["outbox", "--outbox", f"sqlite:///{shop.path}", "discard", "--yes", first, second, third]) == 2
    said = capsys.readouterr()
    assert (said.out, "2 of 3 jobs are not discarded: " in said.err) == (f"{first}  discarded\n", True)


def test_nothing_is_discarded_unasked(shop: Shop, outbox: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    name = shop.defer()
    monkeypatch.setattr(sys.stdin, "isatty", lambda: False)
    assert "--yes" in outbox("discard", name, status=2)
    monkeypatch.setattr(sys.stdin, "isatty", lambda: True)
    monkeypatch.setattr("builtins.input", lambda question: "")
    assert "Nothing was discarded" in outbox("discard", name, status=1)
    monkeypatch.setattr("builtins.input", lambda question: "y")
    assert f"{name}  discarded" in outbox("discard", name)


def press(typed: bytes, terminal: int, process: subprocess.Popen[bytes]) -> tuple[bytes, bytes]:
    """Press a key until a process ends: Python waits on if Ctrl-C comes in the moment before it begins to read."""
    deadline = time.monotonic() + PATIENCE
    while True:
        os.write(terminal, typed)
        try:
            return process.communicate(timeout=1)
        except subprocess.TimeoutExpired:
            if time.monotonic() > deadline:
                process.kill()
                raise


@pytest.mark.parametrize(
    ("typed", "status", "said"), [(b"\x04", 1, "Nothing was discarded."), (b"\x03", 130, "")], ids=["Ctrl-D", "Ctrl-C"]
)
def test_no_answer_at_a_terminal_discards_nothing(typed: bytes, status: int, said: str, shop: Shop) -> None:
    name = shop.defer()
    command = ["outbox", "--outbox", f"sqlite:///{shop.path}", "discard", name]
    terminal, its_end = os.openpty()
    with subprocess.Popen(
        # A session of its own, in which that terminal is the one whose Ctrl-C counts.
        [sys.executable, "-c", _AT_TERMINAL, *command],
        stdin=its_end,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
    ) as process:
        os.close(its_end)
        assert process.stdout
        assert process.stdout.read(len("Forget 1 job")) == b"Forget 1 job"
        out, err = press(typed, terminal, process)
    os.close(terminal)
    assert (process.returncode, err.strip()) == (status, b"")
    assert said in out.decode()
    assert shop.store.ids() == [name]


def test_a_job_that_is_being_sent_is_let_alone(shop: Shop, outbox: Callable[..., str]) -> None:
    name = shop.defer()
    assert shop.store.take(1, time.time(), lease=600.0, pace=lambda pool: 0.0).leases
    assert json.loads(outbox("discard", "--yes", "--json", name, status=1)) == {"discarded": [], "refused": [name]}
    assert "not retried: it is being sent" in outbox("retry", name, status=1)


@pytest.mark.parametrize("command", ["retry", "discard"])
def test_jobs_are_named_or_all_dead_ones_meant(command: str, shop: Shop, outbox: Callable[..., str]) -> None:
    name = shop.defer()
    assert "--all-dead" in outbox(command, status=2)
    assert "--all-dead" in outbox(command, name, "--all-dead", status=2)


# ------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize("command", ["list", "stats", "show", "retry", "discard"])
def test_options_stand_before_a_command_as_well_as_after_it(
    command: str, shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"sqlite:///{shop.path}"
    for is_before in (True, False):
        options = ["--json", "--outbox", url]
        asked = [command] if command in {"list", "stats"} else [command, shop.defer()]
        if command == "discard":
            asked.append("--yes")
        assert main(["outbox", *(options + asked if is_before else asked + options)]) == 0
        json.loads(capsys.readouterr().out)


def test_the_example_in_the_help_of_run_works(
    shop: Shop, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    with pytest.raises(SystemExit):
        main(["outbox", "run", "--help"])
    (example,) = re.findall(r"Example: opentelemetry-instrument insider-otel (.*)", capsys.readouterr().out)
    monkeypatch.setenv("INSIDER_OTEL_CREDENTIALS_UNIFICATION", _OTHER_CREDENTIALS)
    monkeypatch.chdir(shop.path.parent)
    assert main([*example.split(), "--drain"]) == 0
    assert shop.path.exists()
    assert "0 waiting, 0 dead" in capsys.readouterr().out


# -------------------------------------------------------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("outbox_url", "said"),
    [
        ("celery?queue=insider-mail", "-Q insider-mail"),
        ("django", "manage.py insider_outbox"),
        ("redis://cache", "outbox (INSIDER_OTEL_OUTBOX)"),
        ("sqlite:////no/such/directory/outbox.db", "does not exist"),
    ],
)
@pytest.mark.parametrize("command", ["list", "run"])
def test_an_outbox_that_is_looked_at_elsewhere_says_where(
    command: str, outbox_url: str, said: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSIDER_OTEL_CREDENTIALS_MAIL", _OTHER_CREDENTIALS)
    assert main(["outbox", "--outbox", outbox_url, command]) == 2
    assert said in capsys.readouterr().err


def test_without_an_outbox_it_says_how_to_name_one(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["outbox", "stats"]) == 2
    assert "INSIDER_OTEL_OUTBOX" in capsys.readouterr().err


def test_a_file_that_is_no_outbox_is_named(shop: Shop, outbox: Callable[..., str]) -> None:
    shop.path.write_bytes(b"no database" * 1000)
    assert "outbox.db" in outbox("list", status=2)
