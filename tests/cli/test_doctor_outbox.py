"""The doctor looks at the outbox as the app would, and at the credentials that deferred calls are sent with."""

from __future__ import annotations

import os
import shlex
import sqlite3
import sys
import time
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from insider_otel import InsiderTransport, SettingsError
from insider_otel.cli.checks.environment import Environment, Finding, Level
from insider_otel.cli.checks.outbox import credentials, outbox
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.policy.settings import Settings

from ..outbox.jobs import put

PREFIX = "INSIDER_OTEL_CREDENTIALS_"
MAIL = '{"x-ins-auth-key": "s3cret"}'


def seen(url: str, versions: dict[str, str] | None = None, **variables: str) -> list[Finding]:
    """What the doctor says of an outbox."""
    return list(outbox(Environment({"INSIDER_OTEL_OUTBOX": url, **variables}, versions or {})))


def only(found: list[Finding]) -> Finding:
    """The one finding."""
    (finding,) = found
    return finding


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def store(path: Path) -> SQLiteOutbox:
    """An outbox that has been used."""
    store = SQLiteOutbox(path)
    store.stats()
    store.close()
    return store


def test_no_outbox_is_nothing_to_talk_about() -> None:
    assert seen("") == []


def test_an_address_that_is_none_is_told_by_the_check_of_the_settings_alone() -> None:
    assert seen("mysql://shop:s3cret@localhost") == []


# --------------------------------------------------------------------------------------------------------- sqlite


def test_a_file_that_is_not_there_yet_is_fine_and_not_made(path: Path) -> None:
    finding = only(seen(f"sqlite:///{path}"))
    assert (finding.level, finding.what) == (
        Level.OK,
        f"the outbox sqlite:///{path} is not there yet; the first deferred call makes it",
    )
    assert list(path.parent.iterdir()) == []


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    finding = only(seen(f"sqlite:///{tmp_path}/missing/outbox.db"))
    assert finding.level is Level.ERROR
    assert f"the directory {tmp_path}/missing of the outbox outbox.db does not exist" in finding.what
    assert finding.why == "insider-otel refuses to start with it."


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_is_not_writable_is_an_error(path: Path) -> None:
    path.parent.chmod(0o500)
    finding = only(seen(f"sqlite:///{path}"))
    assert (finding.level, "is not writable" in finding.what) == (Level.ERROR, True)


def test_a_file_is_opened_for_writing_and_left_as_it_was(path: Path, store: SQLiteOutbox) -> None:
    before = path.read_bytes()
    finding = only(seen(f"sqlite:///{path}"))
    assert (finding.level, finding.what) == (
        Level.OK,
        f"the outbox sqlite:///{path} can be read and written: 0 waiting, 0 dead",
    )
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_can_be_read_but_not_written_is_an_error(path: Path, store: SQLiteOutbox) -> None:
    with closing(sqlite3.connect(path)) as other:
        other.execute("BEGIN IMMEDIATE")
        finding = only(seen(f"sqlite:///{path}?timeout=0.05"))
    assert (finding.level, "database is locked" in finding.what) == (Level.ERROR, True)
    assert finding.why.startswith("A call that does not fit its deadline then fails")


@pytest.mark.parametrize("which", ["file", "directory"])
@pytest.mark.skipif(sys.platform == "win32", reason="its rights are others")
def test_a_file_that_is_not_writable_is_an_error_and_gets_nothing_beside_it(
    which: str, path: Path, store: SQLiteOutbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    unwritable = path if which == "file" else path.parent
    # For root everything is writable, whatever its rights.
    access = os.access

    def as_the_user(name: Path, mode: int) -> bool:
        return access(name, mode) and not (mode & os.W_OK and name == unwritable)

    monkeypatch.setattr(os, "access", as_the_user)
    finding = only(seen(f"sqlite:///{path}"))
    assert (finding.level, finding.what) == (
        Level.ERROR,
        f"the outbox sqlite:///{path} cannot be used: it is not writable",
    )
    assert list(path.parent.iterdir()) == [path]


def test_a_file_that_is_something_else_is_an_error(tmp_path: Path) -> None:
    letter = tmp_path / "letter.txt"
    letter.write_text("Dear Jane, " * 100)
    letter.chmod(0o600)
    assert "file is not a database" in only(seen(f"sqlite:///{letter}")).what


@pytest.mark.skipif(sys.platform == "win32", reason="its rights are others")
def test_a_file_that_others_may_read_is_a_warning(path: Path, store: SQLiteOutbox) -> None:
    path.chmod(0o640)
    warning, fine = seen(f"sqlite:///{path}")
    assert (warning.level, fine.level) == (Level.WARNING, Level.OK)
    assert warning.what.endswith("(-rw-r-----)")
    assert shlex.split(warning.remedy) == ["chmod", "600", str(path)]


@pytest.mark.skipif(sys.platform == "win32", reason="its rights are others")
def test_the_remedy_for_rights_can_be_pasted_into_a_shell_and_names_the_outboxs_own_files_alone(tmp_path: Path) -> None:
    path = tmp_path / "the shop's $HOME" / "outbox.db"
    path.parent.mkdir()
    (path.parent / "outbox.db.backup").write_text("somebody else's")
    store = SQLiteOutbox(path)
    put(store)
    path.chmod(0o644)
    warning = seen(f"sqlite:///{path}".replace(" ", "%20"))[0]
    assert warning.level is Level.WARNING
    own = sorted(str(each) for each in path.parent.iterdir() if each.name != "outbox.db.backup")
    assert len(own) == 3, "with its log and its index, for it is open"
    assert shlex.split(warning.remedy) == ["chmod", "600", *own]
    store.close()


@pytest.mark.skipif(sys.platform == "win32", reason="its rights are others")
def test_a_directory_in_place_of_the_file_is_an_error_and_nobody_is_told_to_change_its_rights(tmp_path: Path) -> None:
    tmp_path.chmod(0o755)
    finding = only(seen(f"sqlite:///{tmp_path}"))
    assert (finding.level, finding.why) == (Level.ERROR, "insider-otel refuses to start with it.")
    assert f"{tmp_path} is a directory: name a file in it" in finding.what
    assert "chmod" not in finding.remedy


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="there are no pipes with names here")
def test_nobody_is_told_to_change_the_rights_of_what_is_no_file(path: Path) -> None:
    os.mkfifo(path)
    path.chmod(0o666)
    finding = only(seen(f"sqlite:///{path}"))
    assert (finding.level, "chmod" in finding.remedy) == (Level.ERROR, False)


def test_what_waits_and_what_was_given_up_is_counted(path: Path, store: SQLiteOutbox) -> None:
    put(store)
    put(store, created=time.time() - 60)
    (lease,) = store.take(1, time.time(), lease=30, pace=lambda pool: 0.0).leases
    store.put_back(lease, replace(lease.job, stopped="expired", stopped_at=time.time()))
    store.close()
    fine, dead = seen(f"sqlite:///{path}")
    assert "1 waiting, the oldest for " in fine.what
    assert fine.what.endswith(", 1 dead")
    assert (dead.level, dead.what) == (Level.NOTE, "1 deferred call was given up, and kept")
    assert "insider-otel outbox list --dead" in dead.remedy


def test_a_call_that_has_waited_for_long_is_noted_where_nobody_sends(path: Path, store: SQLiteOutbox) -> None:
    put(store, created=time.time() - 9000)
    store.close()
    _, note = seen(f"sqlite:///{path}")
    assert (note.level, note.what) == (
        Level.NOTE,
        "a call has been in the outbox for 2.5 h, and none is being sent",
    )
    assert "insider-otel outbox run" in note.remedy
    store.take(1, time.time(), lease=600, pace=lambda pool: 0.0)
    store.close()
    assert only(seen(f"sqlite:///{path}")).level is Level.OK


# ------------------------------------------------------------------------------------------------ celery and django


@pytest.mark.parametrize(
    ("url", "missing", "extra"), [("celery", "celery", "celery"), ("django", "insider-otel-django", "django")]
)
def test_a_package_that_the_outbox_needs_and_that_is_missing_is_an_error(url: str, missing: str, extra: str) -> None:
    finding = only(seen(url))
    assert (finding.level, finding.what) == (
        Level.ERROR,
        f"INSIDER_OTEL_OUTBOX is {url}, and {missing} is not installed",
    )
    assert finding.remedy == f"pip install 'insider-otel[{extra}]'"


def test_what_cannot_be_seen_of_celery_is_said() -> None:
    finding = only(seen("celery?queue=calls", {"celery": "5.4.0"}))
    assert finding.level is Level.NOTE
    assert "the queue calls of the app's Celery, which cannot be seen from here" in finding.what
    assert "celery -A APP worker -Q calls" in finding.remedy


def test_what_cannot_be_seen_of_django_is_said() -> None:
    finding = only(seen("django", {"insider-otel-django": "0.1.0"}))
    assert (finding.level, finding.remedy) == (Level.NOTE, "manage.py insider_outbox stats tells.")


def test_a_key_without_cryptography_is_an_error(path: Path) -> None:
    error, _ = seen(f"sqlite:///{path}", INSIDER_OTEL_OUTBOX_KEY="s3cret")
    assert (error.level, error.remedy) == (Level.ERROR, "pip install 'insider-otel[encryption]'")
    assert "s3cret" not in error.what
    assert len(seen(f"sqlite:///{path}", {"cryptography": "45"}, INSIDER_OTEL_OUTBOX_KEY="s3cret")) == 1


# ----------------------------------------------------------------------------------------------------- credentials


def provided(outbox: str = "sqlite:///outbox.db", **variables: str) -> Finding:
    """The one thing the doctor says of the credentials, by product."""
    named = {PREFIX + name: value for name, value in variables.items()}
    (finding,) = credentials(Environment({"INSIDER_OTEL_OUTBOX": outbox, **named}))
    for text in (finding.what, finding.why, finding.remedy):
        assert "s3cret" not in text
    return finding


def test_without_an_outbox_no_credentials_are_missed() -> None:
    assert list(credentials(Environment({}))) == []


@pytest.mark.parametrize("variables", [{}, {"MAIL": ""}])
def test_an_outbox_without_credentials_is_a_warning_for_the_code_may_provide_them(variables: dict[str, str]) -> None:
    finding = provided(**variables)
    assert (finding.level, finding.what) == (
        Level.WARNING,
        "INSIDER_OTEL_OUTBOX is set, and no INSIDER_OTEL_CREDENTIALS_<PRODUCT>",
    )
    assert "refuses to start, unless the code sets Settings(credentials=…)" in finding.why


@pytest.mark.parametrize(
    "value", ["{s3cret", '["s3cret"]', '"s3cret"', "s3cret", "{}", '{"s3cret": ""}', '{"s3cret": 7}']
)
def test_credentials_that_cannot_be_read_are_an_error_with_an_example(value: str) -> None:
    finding = provided(UNIFICATION=value)
    assert (finding.level, finding.why) == (Level.ERROR, "insider-otel refuses to start with it.")
    assert finding.what.startswith("INSIDER_OTEL_CREDENTIALS_UNIFICATION is not a JSON object of headers")
    assert finding.remedy == (
        'INSIDER_OTEL_CREDENTIALS_UNIFICATION=\'{"X-PARTNER-NAME": "…", "X-REQUEST-TOKEN": "…"}\''
    )
    assert provided(outbox="", UNIFICATION=value).level is Level.WARNING


def test_a_misspelt_product_is_an_error_with_its_right_name() -> None:
    finding = provided(UNIFCATION__SHOP_2=MAIL)
    assert (finding.level, finding.remedy) == (
        Level.ERROR,
        "Did you mean INSIDER_OTEL_CREDENTIALS_UNIFICATION__SHOP_2?",
    )
    assert provided(outbox="", UNIFCATION=MAIL).level is Level.WARNING


def test_a_product_that_looks_like_none_gets_the_list() -> None:
    assert "The products are: ANALYTICS, " in provided(XYZZY=MAIL).remedy


@pytest.mark.parametrize("variable", ["MAIL", "MAIL__SHOP_2"])
def test_credentials_that_are_complete_are_fine(variable: str) -> None:
    assert provided(**{variable: MAIL}).level is Level.OK


def test_credentials_with_which_nothing_can_be_deferred_are_a_warning() -> None:
    finding = provided(MAIL='{"X-s3cret": "a", "X-INS-AUTH-KEY": ""}')
    assert (finding.level, finding.what) == (
        Level.WARNING,
        "INSIDER_OTEL_CREDENTIALS_MAIL does not have X-INS-AUTH-KEY",
    )


def test_credentials_that_lack_what_some_operations_need_are_noted() -> None:
    finding = provided(UNIFICATION='{"X-PARTNER-NAME": "shop", "X-REQUEST-TOKEN": "s3cret"}')
    assert (finding.level, finding.what) == (
        Level.NOTE,
        "INSIDER_OTEL_CREDENTIALS_UNIFICATION does not have X-API-KEY",
    )
    assert "event.delete, event.update" in finding.why


@pytest.mark.parametrize(
    "variables", [{}, {"MAIL": " "}, {"MAIL": "{}"}, {"UNIFICATION": "{bad"}, {"UNIFCATION": MAIL}]
)
def test_what_the_doctor_says_is_refused_is_refused(
    variables: dict[str, str], path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(PREFIX + name, value)
    assert "refuses to start" in provided(**variables).why
    with pytest.raises(SettingsError):
        InsiderTransport(httpx.HTTPTransport(), settings=Settings(outbox=f"sqlite:///{path}"))
