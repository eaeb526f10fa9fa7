"""What a web app sets, and what it is told when it cannot be used."""

from __future__ import annotations

from typing import Any

import pytest

from insider_otel import Mode, Settings, SettingsError
from insider_otel.web import OptionsError, WebOptions


def test_an_app_that_sets_nothing_has_five_seconds_for_a_request_and_covers_every_client() -> None:
    options = WebOptions.from_config({}, {})
    assert (options.request_deadline, options.error_responses, options.instrument) == (5.0, False, True)
    assert options.settings == Settings()


def test_options_and_settings_stand_side_by_side() -> None:
    options = WebOptions.from_config({"request_deadline": 3, "error_responses": True, "quick_retries": 0}, {})
    assert (options.request_deadline, options.error_responses, options.settings.quick_retries) == (3, True, 0)


def test_an_app_enforces_unless_it_says_otherwise() -> None:
    assert WebOptions.from_config({}, {}).settings.mode is Mode.ENFORCE
    assert WebOptions.from_config({"mode": "observe"}, {}).settings.mode is Mode.OBSERVE


@pytest.mark.parametrize(
    ("variable", "text", "name", "value"),
    [
        ("INSIDER_OTEL_REQUEST_DEADLINE", "2.5", "request_deadline", 2.5),
        ("INSIDER_OTEL_REQUEST_DEADLINE", "0", "request_deadline", 0.0),
        ("INSIDER_OTEL_REQUEST_DEADLINE", "None", "request_deadline", None),
        ("INSIDER_OTEL_ERROR_RESPONSES", "TRUE", "error_responses", True),
        ("INSIDER_OTEL_ERROR_RESPONSES", "1", "error_responses", True),
        ("INSIDER_OTEL_INSTRUMENT", "off", "instrument", False),
        ("INSIDER_OTEL_INSTRUMENT", " no ", "instrument", False),
    ],
)
def test_a_variable_wins_over_the_apps_configuration(variable: str, text: str, name: str, value: object) -> None:
    config = {"request_deadline": 4.0, "error_responses": False, "instrument": True}
    assert getattr(WebOptions.from_config(config, {variable: text}), name) == value


def test_variables_of_settings_win_too() -> None:
    assert WebOptions.from_config({"quick_retries": 1}, {"INSIDER_OTEL_QUICK_RETRIES": "0"}).settings.quick_retries == 0


def test_an_empty_variable_says_nothing() -> None:
    assert (
        WebOptions.from_config({"request_deadline": 4.0}, {"INSIDER_OTEL_REQUEST_DEADLINE": " "}).request_deadline
        == 4.0
    )


@pytest.mark.parametrize("deadline", [-1, float("inf"), 10**400, float("nan"), "3", True, []])
def test_a_deadline_that_is_none_is_refused_by_name(deadline: Any) -> None:
    with pytest.raises(OptionsError, match=r"request_deadline \(INSIDER_OTEL_REQUEST_DEADLINE\) is .*; it accepts"):
        WebOptions.from_config({"request_deadline": deadline}, {})


@pytest.mark.parametrize("name", ["error_responses", "instrument"])
def test_a_switch_is_on_or_off(name: str) -> None:
    with pytest.raises(OptionsError, match=rf"{name} \(INSIDER_OTEL_{name.upper()}\) is 'yes'; it accepts True"):
        WebOptions.from_config({name: "yes"}, {})
    with pytest.raises(OptionsError, match=rf"{name} .* is 'perhaps'; it accepts true or false"):
        WebOptions.from_config({}, {f"INSIDER_OTEL_{name.upper()}": "perhaps"})


@pytest.mark.parametrize("text", ["soon", "nan", "-1", "inf"])
def test_a_variable_that_is_no_deadline_is_refused_by_name(text: str) -> None:
    with pytest.raises(OptionsError, match=r"request_deadline \(INSIDER_OTEL_REQUEST_DEADLINE\) is"):
        WebOptions.from_config({}, {"INSIDER_OTEL_REQUEST_DEADLINE": text})


@pytest.mark.parametrize("name", ["request_dedline", "REQUEST_DEADLINE", "settings"])
def test_an_option_that_does_not_exist_is_named_beside_those_that_do(name: str) -> None:
    with pytest.raises(OptionsError, match=rf"^{name} is no option .* error_responses, .* request_deadline, .* state$"):
        WebOptions.from_config({name: 1}, {})


def test_a_configuration_may_be_in_upper_case_and_have_a_prefix() -> None:
    options = WebOptions.from_upper_case({"SHOP_REQUEST_DEADLINE": 3, "SHOP_MODE": "observe"}, prefix="SHOP_", where="")
    assert (options.request_deadline, options.settings.mode) == (3, Mode.OBSERVE)


@pytest.mark.parametrize("config", [{"request_deadline": 3}, {"REQUEST_DEDLINE": 3}, {3: 3}])
def test_what_is_no_option_in_upper_case_is_named_with_the_place_where_it_stands(config: dict[Any, Any]) -> None:
    with pytest.raises(
        OptionsError, match=rf"^config\.py has {next(iter(config))}, .*: .*\bDEADLINE, .* REQUEST_DEADLINE, "
    ):
        WebOptions.from_upper_case(config, where="config.py")


def test_a_wrong_setting_is_refused_as_everywhere() -> None:
    with pytest.raises(SettingsError, match=r"quick_retries \(INSIDER_OTEL_QUICK_RETRIES\) is -1"):
        WebOptions.from_config({"quick_retries": -1}, {})


def test_the_names_are_those_that_a_configuration_may_have() -> None:
    names = WebOptions.names()
    assert {"request_deadline", "error_responses", "instrument", "state", "limits"} <= names
    assert "settings" not in names
