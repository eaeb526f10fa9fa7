"""What a visitor gets when a call to Insider failed and the view did not handle it."""

from __future__ import annotations

import logging
from collections.abc import Generator
from typing import Any

import pytest
from django.test import AsyncClient, Client, override_settings
from django_project.insider import credentials

from insider_otel.testing import FakeInsider, set_testing

SECRETS = ("fake-key", "jane", "905550000001", "useinsider", "Partner")


@pytest.fixture(autouse=True)
def error_responses() -> Generator[None]:
    """They are on, and no call is tried twice."""
    with override_settings(INSIDER_OTEL={"INSTRUMENT": False, "ERROR_RESPONSES": True}), set_testing(attempts=1):
        yield


def get(path: str = "/failing", **headers: str) -> Any:
    """By a client that takes what a server would send."""
    return Client(raise_request_exception=False).get(path, headers=headers)


@pytest.mark.parametrize(
    ("step", "status"), [("timeout", 504), ("504", 504), ("503", 503), ("reset", 502), ("500", 502), ("401", 502)]
)
def test_a_failed_call_is_a_failure_behind_the_shop(fake: FakeInsider, step: str, status: int) -> None:
    fake.script("user.upsert", step)
    response = get(Accept="application/json")
    assert response.status_code == status
    assert not any(secret in response.text for secret in SECRETS)


def test_the_visitor_is_told_when_to_come_back(fake: FakeInsider) -> None:
    from insider_otel.testing import reply

    fake.script("user.upsert", reply(429, {"message": "too many"}, headers={"Retry-After": "7"}))
    response = get()
    assert response.status_code == 503
    assert response["Retry-After"] == "7"


def test_a_browser_gets_a_page_from_the_sites_own_template(fake: FakeInsider) -> None:
    fake.script("user.upsert", "503")
    response = get(Accept="text/html,application/xhtml+xml,*/*;q=0.8")
    assert response.text.startswith("<h1>Busy</h1>")
    assert response["Vary"] == "Accept"


def test_a_browser_gets_a_plain_page_where_there_is_no_template(fake: FakeInsider) -> None:
    fake.script("user.upsert", "reset")
    response = get(Accept="text/html")
    assert "<h1>Bad Gateway</h1>" in response.text
    assert response["Content-Type"].startswith("text/html")


def test_a_program_gets_json(fake: FakeInsider) -> None:
    fake.script("user.upsert", "503")
    response = get(Accept="application/json")
    assert set(response.json()) == {"detail"}


@pytest.mark.anyio
async def test_async_views_fail_the_same(fake: FakeInsider) -> None:
    fake.script("user.upsert", "503")
    response = await AsyncClient(raise_request_exception=False).get("/failing/async")
    assert response.status_code == 503


def test_other_exceptions_are_left_to_the_site(fake: FakeInsider) -> None:
    response = get("/broken")
    assert response.status_code == 500
    assert response.text == "<h1>Sorry</h1>\n"
    with pytest.raises(ValueError, match="the shop's own"):
        Client().get("/broken")


def test_middleware_of_the_app_comes_first(fake: FakeInsider) -> None:
    fake.script("user.upsert", "503")
    with override_settings(
        MIDDLEWARE=["insider_otel_django.InsiderMiddleware", "django_project.middleware.AnswersEverything"]
    ):
        assert get().status_code == 418


def test_they_are_off_unless_turned_on(fake: FakeInsider) -> None:
    fake.script("user.upsert", "503", repeat=True)
    with override_settings(INSIDER_OTEL={"INSTRUMENT": False}):
        assert get().status_code == 500


def test_it_is_logged_as_django_logs_it(fake: FakeInsider, caplog: pytest.LogCaptureFixture) -> None:
    fake.script("user.upsert", "503")
    with caplog.at_level(logging.ERROR, "django.request"):
        get()
    assert [record.getMessage() for record in caplog.records] == ["Service Unavailable: /failing"]


def test_tables_that_are_missing_are_named_in_the_log(fake: FakeInsider, caplog: pytest.LogCaptureFixture) -> None:
    """Without ``manage.py migrate``: neither the visitor's page nor Django's own line says what to do."""
    options = {
        "INSTRUMENT": False,
        "ERROR_RESPONSES": True,
        "OUTBOX": "django",
        "OUTBOX_WORKER": False,
        "CREDENTIALS": credentials,
    }
    with override_settings(INSIDER_OTEL=options), set_testing(hold=True), caplog.at_level(logging.ERROR):
        response = get("/failing/deferred")
    assert response.status_code == 502
    assert "migrate" not in response.text
    [ours] = [record.getMessage() for record in caplog.records if record.name == "insider_otel.web"]
    assert "its tables are missing" in ours
    assert "run manage.py migrate" in ours
