"""Set-up, settings that change, a fake in the network's place, and the health page."""

from __future__ import annotations

import re
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import httpx
import insider_otel_django
import pytest
from django.test import AsyncClient, Client, override_settings
from django_project.insider import sample
from insider_otel_django import async_client, client, override

from insider_otel import InsiderInstrumentor, Settings, call_of, health
from insider_otel.testing import FakeInsider
from insider_otel.web import WebOptions


def test_every_client_of_the_process_is_covered() -> None:
    fake = FakeInsider()
    with override_settings(INSIDER_OTEL={}), httpx.Client(transport=fake.transport()) as shops_own:
        assert call_of(shops_own.request(**sample())).outcome == "succeeded"
        assert InsiderInstrumentor().is_instrumented_by_opentelemetry
    assert not InsiderInstrumentor().is_instrumented_by_opentelemetry


def test_settings_that_change_hold_for_every_client_of_the_process() -> None:
    fake = FakeInsider()
    fake.script("user.upsert", "503", repeat=True)
    with httpx.Client(transport=fake.transport()) as shops_own:
        for retries in (0, 1):
            with override_settings(INSIDER_OTEL={"QUICK_RETRIES": retries, "QUICK_DELAY": 0.0, "SPREAD_RETRIES": 0}):
                assert call_of(shops_own.request(**sample())).attempts == 1 + retries


@pytest.mark.parametrize(
    "change",
    [
        lambda: override(FakeInsider()),
        lambda: override_settings(INSIDER_OTEL={"QUICK_RETRIES": 0}),
        lambda: override_settings(INSIDER_OTEL={"QUICK_RETRIES": "many"}),
    ],
    ids=["a fake", "other settings", "settings that cannot be used"],
)
def test_code_outside_of_a_request_is_covered_again_when_a_change_is_over(change: Callable[[], Any]) -> None:
    """A command or a task asks nobody for a client: nothing else would turn it on."""
    with override_settings(INSIDER_OTEL={}), httpx.Client(transport=FakeInsider().transport()) as shops_own:
        with change():
            pass
        assert call_of(shops_own.request(**sample())).outcome == "succeeded"


def test_a_fake_leaves_the_clients_of_the_process_covered() -> None:
    shops_own = httpx.Client(transport=FakeInsider().transport())
    with override_settings(INSIDER_OTEL={}), override(FakeInsider()), shops_own:
        assert call_of(shops_own.request(**sample())).outcome == "succeeded"


def test_settings_that_cannot_be_used_are_named_in_the_log_when_they_change(caplog: pytest.LogCaptureFixture) -> None:
    with override_settings(INSIDER_OTEL={"MODE": "enforced"}):
        assert not InsiderInstrumentor().is_instrumented_by_opentelemetry
    [record] = caplog.records
    assert (record.name, record.levelname) == ("insider_otel.django", "ERROR")
    assert "enforced" in record.getMessage()


def test_an_instrumentor_that_is_on_already_is_left_alone() -> None:
    InsiderInstrumentor().instrument(settings=Settings())
    try:
        with override_settings(INSIDER_OTEL={}):
            pass
        assert InsiderInstrumentor().is_instrumented_by_opentelemetry
    finally:
        InsiderInstrumentor().uninstrument()


@pytest.mark.parametrize("first", ["override", "settings"])
def test_a_fake_stays_in_place_whatever_the_settings(first: str) -> None:
    fake = FakeInsider()
    settings = {"INSTRUMENT": False, "REQUEST_DEADLINE": 1.5}
    if first == "override":
        with override(fake), override_settings(INSIDER_OTEL=settings):
            assert Client().get("/signup").json()["remaining"] <= 1.5
    else:
        with override_settings(INSIDER_OTEL=settings), override(fake):
            assert Client().get("/signup").json()["remaining"] <= 1.5
    assert len(fake.accepted("user.upsert")) == 1


def test_a_fake_within_a_fake() -> None:
    outer, inner = FakeInsider(), FakeInsider()
    with override(outer):
        with override(inner.transport()):
            client().request(**sample())
        client().request(**sample())
    assert (len(outer.requests), len(inner.requests)) == (1, 1)


@pytest.mark.parametrize("number", [1, 2])
def test_a_test_does_not_hold_anothers_mail_back(fake: FakeInsider, number: int) -> None:
    client().request(**sample("mail.send"))
    assert len(fake.accepted("mail.send")) == 1


def test_afterwards_the_network_is_back() -> None:
    with override(FakeInsider()):
        replaced = client()
    assert replaced.is_closed
    assert client() is not replaced


@pytest.mark.anyio
async def test_the_loop_has_one_client(fake: FakeInsider) -> None:
    assert await async_client() is await async_client()


@pytest.fixture
def failed_call(fake: FakeInsider) -> Generator[None]:
    """Insider is down."""
    fake.script("user.upsert", "503", repeat=True)
    with override_settings(INSIDER_OTEL={"INSTRUMENT": False, "QUICK_RETRIES": 0, "SPREAD_RETRIES": 0}):
        client().request(**sample())
        yield


def test_the_health_page_tells_how_it_goes(failed_call: None) -> None:
    response = Client().get("/health/insider/")
    assert response.status_code == 200
    assert "no-store" in response["Cache-Control"]
    result = response.json()
    assert result["status"] == "degraded"
    assert result["products"]["unification"]["category"] == "unavailable"
    assert result.keys() == health().keys()


@pytest.mark.anyio
async def test_the_health_page_under_asgi() -> None:
    response: Any = await AsyncClient().get("/health/insider/")
    assert response.status_code == 200


def test_the_health_page_is_only_read() -> None:
    assert Client().post("/health/insider/").status_code == 405


def test_the_readme_names_every_option() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    assert {name for name in WebOptions.names() if f"`{name.upper()}`" not in readme} == set()


def test_the_readme_names_every_check() -> None:
    readme = (Path(__file__).parents[1] / "README.md").read_text("utf-8")
    checks = (Path(insider_otel_django.__file__).parent / "checks.py").read_text("utf-8")
    identities = re.findall(r"insider_otel\.[EW]\d{3}", checks)
    assert len(identities) == 6
    assert {identity for identity in identities if f"`{identity}`" not in readme} == set()
