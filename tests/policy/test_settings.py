"""Settings: checked once, with errors that name the field, its variable and what it accepts."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from insider_otel import Events, Mode, Settings, SettingsError


def test_every_setting_has_a_variable() -> None:
    environ = {
        "INSIDER_OTEL_MODE": "Observe",
        "INSIDER_OTEL_HOSTS": '{"127.0.0.1:8080": "Unification.UseInsider.com"}',
        "INSIDER_OTEL_DEADLINE": "2.5",
        "INSIDER_OTEL_QUICK_RETRIES": "2",
        "INSIDER_OTEL_QUICK_DELAY": "0.1",
        "INSIDER_OTEL_SPREAD_RETRIES": "0",
        "INSIDER_OTEL_RETRY_WINDOW": "60",
        "INSIDER_OTEL_DEDUPE_WINDOW": "600",
        "INSIDER_OTEL_EVENTS": "both",
    }
    assert Settings.from_env(environ) == Settings(
        mode=Mode.OBSERVE,
        hosts={"127.0.0.1:8080": "unification.useinsider.com"},
        deadline=2.5,
        quick_retries=2,
        quick_delay=0.1,
        spread_retries=0,
        retry_window=60.0,
        dedupe_window=600.0,
        events=Events.BOTH,
    )
    assert len(environ) == len(dataclasses.fields(Settings))


def test_an_empty_variable_is_no_setting() -> None:
    assert Settings.from_env({"INSIDER_OTEL_DEADLINE": " "}) == Settings()


def test_a_default_gives_way_to_the_variable() -> None:
    assert Settings.from_env({}, mode="observe").mode is Mode.OBSERVE
    assert Settings.from_env({"INSIDER_OTEL_MODE": "enforce"}, mode="observe").mode is Mode.ENFORCE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "on"),
        ("hosts", "127.0.0.1"),
        ("hosts", {"http://127.0.0.1": "mail.useinsider.com"}),
        ("hosts", {"127.0.0.1": ""}),
        ("hosts", {"127.0.0.1": "unificaton.useinsider.com"}),
        ("hosts", {"127.0.0.1:x": "mail.useinsider.com"}),
        ("hosts", {"::1": "mail.useinsider.com"}),
        ("hosts", {"jane@127.0.0.1": "mail.useinsider.com"}),
        ("hosts", {"": "mail.useinsider.com"}),
        ("deadline", 0),
        ("deadline", float("nan")),
        ("deadline", "2"),
        ("quick_retries", -1),
        ("quick_retries", 1.5),
        ("quick_retries", True),
        ("quick_delay", -0.1),
        ("quick_delay", float("inf")),
        ("spread_retries", 21),
        ("retry_window", None),
        ("dedupe_window", "15m"),
        ("events", "none"),
    ],
)
def test_a_bad_value_is_refused_with_field_variable_and_remedy(field: str, value: Any) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings(**{field: value})
    message = str(refused.value)
    assert message.startswith(f"{field} (INSIDER_OTEL_{field.upper()}) is {value!r}; it accepts ")


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("INSIDER_OTEL_DEADLINE", "soon"),
        ("INSIDER_OTEL_QUICK_RETRIES", "1.0"),
        ("INSIDER_OTEL_HOSTS", "{127.0.0.1}"),
        ("INSIDER_OTEL_HOSTS", "[]"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(variable: str, text: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        Settings.from_env({variable: text})


def test_settings_do_not_change() -> None:
    settings = Settings(hosts={"127.0.0.1": "*"})
    assert hash(settings) == hash(Settings(hosts={"127.0.0.1": "*"}))
    with pytest.raises(TypeError):
        settings.hosts["127.0.0.2"] = "*"  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.deadline = 1.0  # type: ignore[misc]


def test_a_variable_that_names_no_setting_is_found() -> None:
    environ = {"INSIDER_OTEL_QUICK_RETRY": "1", "INSIDER_OTEL_MODE": "observe", "OTHER": "1"}
    assert Settings.unknown_variables(environ) == ("INSIDER_OTEL_QUICK_RETRY",)
