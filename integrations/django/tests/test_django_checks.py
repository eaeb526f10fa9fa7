"""What ``manage.py check`` says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from django.conf import settings
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, override_settings
from insider_testkit.frames import assert_frames_hold_none_of

from insider_otel.outbox import opening
from insider_otel.testing import FakeInsider

OURS = "insider_otel_django.InsiderMiddleware"
SECURITY = "django.middleware.security.SecurityMiddleware"
COMMON = "django.middleware.common.CommonMiddleware"


def found(**changed: Any) -> list[tuple[str | None, str]]:
    """Ids and messages under some settings."""
    options = {"INSTRUMENT": False, **changed.pop("INSIDER_OTEL", {})}
    with override_settings(INSIDER_OTEL=options, **changed):
        return [(message.id, message.msg) for message in run_checks(tags=["insider_otel"])]


def ids(**changed: Any) -> list[str | None]:
    """Ids under some settings."""
    return [identity for identity, _ in found(**changed)]


def test_a_right_set_up_has_nothing_to_say() -> None:
    options = {"REQUEST_DEADLINE": 3.0, "STATE": "memory://", "LIMITS": {"user.upsert": "100/60s"}}
    assert ids(INSIDER_OTEL=options, MIDDLEWARE=[SECURITY, OURS, COMMON]) == []


def test_an_app_that_is_used_but_not_installed() -> None:
    assert ids(INSTALLED_APPS=[]) == ["insider_otel.E001"]


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (
            {"REQEST_DEADLINE": 3.0},
            "settings.INSIDER_OTEL has REQEST_DEADLINE, which is no option of insider-otel; ",
        ),
        ({"request_deadline": 3.0}, "no option of insider-otel; there are: CREDENTIALS, DEADLINE, "),
        ({3: 3.0}, "settings.INSIDER_OTEL has 3, which is no option"),
        ({"REQUEST_DEADLINE": "soon"}, "request_deadline (INSIDER_OTEL_REQUEST_DEADLINE) is 'soon'; it accepts"),
        ({"ERROR_RESPONSES": "yes"}, "error_responses (INSIDER_OTEL_ERROR_RESPONSES) is 'yes'; it accepts"),
        ({"MODE": "enforced"}, "INSIDER_OTEL_MODE"),
        ({"STATE": "mysql://cache"}, "INSIDER_OTEL_STATE"),
    ],
)
def test_options_that_cannot_be_used(options: dict[Any, Any], says: str) -> None:
    [(identity, message)] = found(INSIDER_OTEL=options)
    assert identity == "insider_otel.E002"
    assert says in message


def test_options_that_are_no_dictionary() -> None:
    with override_settings(INSIDER_OTEL=[("REQUEST_DEADLINE", 3.0)]):
        [message] = run_checks(tags=["insider_otel"])
    assert message.id == "insider_otel.E002"
    assert "settings.INSIDER_OTEL is a list; it accepts a dictionary" in message.msg


def test_a_variable_wins_and_is_checked_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIDER_OTEL_REQUEST_DEADLINE", "never")
    [(identity, message)] = found(INSIDER_OTEL={"REQUEST_DEADLINE": 2.0})
    assert identity == "insider_otel.E002"
    assert "'never'" in message


def test_a_store_that_can_never_be_opened(tmp_path: Path) -> None:
    [(identity, message)] = found(INSIDER_OTEL={"STATE": f"sqlite:///{tmp_path}/missing/limits.db"})
    assert identity == "insider_otel.E003"
    assert "missing" in message


def test_a_password_in_the_stores_address_is_not_shown() -> None:
    [(_, message)] = found(INSIDER_OTEL={"STATE": "redis://user:s3cret@cache:port/0"})
    assert "s3cret" not in message


def test_an_outbox_in_the_database_without_its_app() -> None:
    installed = [app for app in settings.INSTALLED_APPS if app != "insider_otel_django.outbox"]
    options = {"OUTBOX": "django", "CREDENTIALS": lambda operation, account: None}
    [(identity, message)] = found(INSIDER_OTEL=options, INSTALLED_APPS=installed)
    assert identity == "insider_otel.E005"
    assert "not installed" in message
    assert ids(INSIDER_OTEL=options) == []


def test_missing_middleware() -> None:
    assert ids(MIDDLEWARE=[COMMON]) == ["insider_otel.E004"]


def test_middleware_below_what_may_call() -> None:
    [(identity, message)] = found(MIDDLEWARE=[SECURITY, COMMON, OURS])
    assert identity == "insider_otel.W001"
    assert message.endswith(f": {COMMON}.")


def test_a_subclass_is_our_middleware_too() -> None:
    assert ids(MIDDLEWARE=["django_project.middleware.ShopInsiderMiddleware"]) == []


def test_any_order_works(fake: FakeInsider) -> None:
    with override_settings(MIDDLEWARE=[COMMON, OURS]):
        assert Client().get("/signup").json()["calls"] == 1


def test_a_server_does_not_start_with_options_that_cannot_be_used() -> None:
    with (
        override_settings(INSIDER_OTEL={"INSTRUMENT": False, "MODE": "enforced"}),
        pytest.raises(ImproperlyConfigured, match="INSIDER_OTEL_MODE"),
    ):
        Client().get("/signup")


@pytest.mark.parametrize("wrong", [{"REQUEST_DEADLINE": -1}, {"QUICK_DELAY": -1}, {"QUICK_RETRY": 1}], ids=str)
def test_an_error_reporter_that_sends_variables_gets_none_of_the_other_values(wrong: dict[str, int]) -> None:
    key = "a2tr" * 10 + "a2s="
    secret = {"OUTBOX_KEY": key, "STATE": "redis://:hunter2pass@cache.example.com/0"}
    with (
        override_settings(INSIDER_OTEL={"INSTRUMENT": False, **secret, **wrong}),
        pytest.raises(ImproperlyConfigured) as refused,
    ):
        Client().get("/signup")
    assert_frames_hold_none_of((key, "hunter2pass"), refused.value)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"STATE": "sqlite:////nowhere/at/all/limits.db"}, "INSIDER_OTEL_STATE"),
        (
            {"OUTBOX": "django", "CREDENTIALS": lambda operation, account: None},
            "INSIDER_OTEL_OUTBOX.* tables are missing",
        ),
    ],
    ids=["E003", "E005"],
)
def test_a_server_does_not_start_with_a_store_or_an_outbox_that_can_never_be_opened(
    options: dict[str, Any], says: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As in a process that begins: other tests have opened some.
    monkeypatch.setattr(opening, "_outboxes", {})
    installed = [app for app in settings.INSTALLED_APPS if app != "insider_otel_django.outbox"]
    with (
        override_settings(INSIDER_OTEL={"INSTRUMENT": False, **options}, INSTALLED_APPS=installed),
        pytest.raises(ImproperlyConfigured, match=says),
    ):
        Client().get("/signup")


def test_a_server_does_not_start_without_the_app() -> None:
    with override_settings(INSTALLED_APPS=[]), pytest.raises(ImproperlyConfigured, match="INSTALLED_APPS"):
        Client().get("/signup")


def test_manage_py_check_reports_what_is_wrong() -> None:
    """``ready`` leaves it to the check: a traceback would hide it."""
    variables = {"DJANGO_INSIDER_OTEL": '{"MODE": "enforced"}', "DJANGO_SETTINGS_MODULE": "django_project.settings"}
    done = subprocess.run(
        [sys.executable, "-m", "django", "check"],
        cwd=Path(__file__).parent,
        env={**os.environ, **variables, "PYTHONPATH": str(Path(__file__).parent)},
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert done.returncode == 1
    assert "(insider_otel.E002)" in done.stderr
    assert "Traceback" not in done.stderr
