"""Settings: checked once, with errors that name the field, its variable and what it accepts."""

from __future__ import annotations

import copy
import dataclasses
import pickle
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest

from insider_otel import Events, Mode, Settings, SettingsError
from insider_otel.api.operations import Limit, operations
from insider_otel.policy.settings import Dedupe


def test_every_setting_has_a_variable() -> None:
    environ = {
        "INSIDER_OTEL_MODE": "Observe",
        "INSIDER_OTEL_HOSTS": '{"127.0.0.1:8080": "Unification.UseInsider.com"}',
        "INSIDER_OTEL_DEADLINE": "2.5",
        "INSIDER_OTEL_QUICK_RETRIES": "4",
        "INSIDER_OTEL_QUICK_DELAY": "0.1",
        "INSIDER_OTEL_SPREAD_RETRIES": "0",
        "INSIDER_OTEL_RETRY_WINDOW": "60",
        "INSIDER_OTEL_LIMITS": '{"user.upsert": "100/10s", "mail.send": "off"}',
        "INSIDER_OTEL_DEDUPE": "All",
        "INSIDER_OTEL_DEDUPE_WINDOW": "600",
        "INSIDER_OTEL_STATE": "sqlite:///state.db",
        "INSIDER_OTEL_OUTBOX": "sqlite:///outbox.db?sync=full",
        "INSIDER_OTEL_OUTBOX_HORIZON": "3600",
        "INSIDER_OTEL_OUTBOX_RETENTION": "604800",
        "INSIDER_OTEL_OUTBOX_KEY": "A" * 43 + "=",
        "INSIDER_OTEL_EVENTS": "both",
    }
    assert Settings.from_env(environ) == Settings(
        mode=Mode.OBSERVE,
        hosts={"127.0.0.1:8080": "unification.useinsider.com"},
        deadline=2.5,
        quick_retries=4,
        quick_delay=0.1,
        spread_retries=0,
        retry_window=60.0,
        limits={"user.upsert": Limit(100, 10), "mail.send": None},
        dedupe=Dedupe.ALL,
        dedupe_window=600.0,
        state="sqlite:///state.db",
        outbox="sqlite:///outbox.db?sync=full",
        outbox_horizon=3600.0,
        outbox_retention=604_800.0,
        outbox_key="A" * 43 + "=",
        events=Events.BOTH,
    )
    # Credentials have a variable for each of Insider's products.
    assert len(environ) == len(dataclasses.fields(Settings)) - 1


def test_an_empty_variable_is_no_setting() -> None:
    assert Settings.from_env({"INSIDER_OTEL_DEADLINE": " "}) == Settings()


@pytest.mark.parametrize("text", ["none", "None"])
def test_dead_letters_are_kept_for_ever_if_the_variable_says_so(text: str) -> None:
    assert Settings().outbox_retention == 30 * 86_400.0
    assert Settings.from_env({"INSIDER_OTEL_OUTBOX_RETENTION": text}).outbox_retention is None


def test_a_default_gives_way_to_the_variable() -> None:
    assert Settings.from_env({}, mode="observe").mode is Mode.OBSERVE
    assert Settings.from_env({"INSIDER_OTEL_MODE": "enforce"}, mode="observe").mode is Mode.ENFORCE


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("mode", "on"),
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
        ("limits", "25000/60s"),
        ("limits", {"user.upsert": "fast"}),
        ("limits", {"user.upsert": 25_000}),
        ("limits", {"user.upsert": "0/60s"}),
        ("limits", {1: "25000/60s"}),
        ("dedupe", "some"),
        ("dedupe_window", "15m"),
        ("events", "none"),
        ("outbox_retention", 0),
        ("outbox_retention", "none"),
        ("outbox_retention", 1e9),
    ],
)
def test_a_bad_value_is_refused_with_field_variable_and_remedy(field: str, value: Any) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings(**{field: value})
    message = str(refused.value)
    assert message.startswith(f"{field} (INSIDER_OTEL_{field.upper()}) is {value!r}; it accepts ")


@pytest.mark.parametrize("digits", [400, 5000])
def test_a_number_beyond_all_floats_is_refused_as_what_has_no_end(digits: int) -> None:
    with pytest.raises(SettingsError, match=r"^deadline \(INSIDER_OTEL_DEADLINE\) is inf; it accepts seconds above 0"):
        Settings(deadline=10**digits)


@pytest.mark.parametrize(
    ("hosts", "shown"),
    [
        ("127.0.0.1", "is a str"),
        ({1: "*"}, "holds '1'"),
        ({"127.0.0.1": None}, "holds '127.0.0.1'"),
        ({"http://127.0.0.1": "*"}, "holds '127.0.0.1'"),
        ({"127.0.0.1": ""}, "holds '127.0.0.1'"),
        ({"127.0.0.1:x": "*"}, "holds '127.0.0.1:x'"),
        ({"127.0.0.1:0": "*"}, "holds '127.0.0.1:0'"),
        ({"::1": "*"}, "holds '::1'"),
        ({"[1::2::3]": "*"}, "holds '[1::2::3]'"),
        ({"": "*"}, "holds ''"),
        ({" 127.0.0.1:80": "*"}, "holds ' 127.0.0.1:80'"),
        ({"127.0.0.1 ": "*"}, "holds '127.0.0.1 '"),
        ({"127.0.0.1\t": "*"}, "holds '127.0.0.1\\t'"),
        ({"a b": "*"}, "holds 'a b'"),
        ({"*": "*"}, '"*" stands for every Insider host as a value only'),
        ({"*:80": "*"}, '"*" stands for every Insider host as a value only'),
        ({"*.useinsider.com": "*"}, '"*" stands for every Insider host as a value only'),
        ({"jane:se*cret@127.0.0.1:80": "*"}, "holds '127.0.0.1:80'"),
        ({"jane:secret@127.0.0.1:80": "*"}, "holds '127.0.0.1:80'"),
        ({"https://jane:se/cret@127.0.0.1/?token=secret": "*"}, "holds '127.0.0.1'"),
        ({"127.0.0.1": "https://jane:secret@mail.useinsider.com/"}, "'mail.useinsider.com' is no documented host"),
        ({"127.0.0.1": "unificaton.useinsider.com"}, "'unificaton.useinsider.com' is no documented host"),
    ],
)
def test_a_bad_address_is_refused_by_its_host_and_no_password_is_repeated(hosts: Any, shown: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings(hosts=hosts)
    message = str(refused.value)
    assert message.startswith("hosts (INSIDER_OTEL_HOSTS) ")
    assert shown in message
    assert 'it accepts a mapping of "address" or "address:port"' in message
    assert "cret" not in message


def test_addresses_that_are_no_json_are_not_repeated() -> None:
    with pytest.raises(SettingsError, match="a JSON object") as refused:
        Settings.from_env({"INSIDER_OTEL_HOSTS": "{jane:secret@127.0.0.1: *}"})
    assert "secret" not in str(refused.value)


@pytest.mark.parametrize(
    ("variable", "text"),
    [
        ("INSIDER_OTEL_DEADLINE", "soon"),
        ("INSIDER_OTEL_QUICK_RETRIES", "1.0"),
        ("INSIDER_OTEL_HOSTS", "{127.0.0.1}"),
        ("INSIDER_OTEL_HOSTS", "[]"),
        ("INSIDER_OTEL_LIMITS", "25000/60s"),
        ("INSIDER_OTEL_LIMITS", "[]"),
        ("INSIDER_OTEL_LIMITS", '{"user.upsert": "fast"}'),
        ("INSIDER_OTEL_DEDUPE", "yes"),
        ("INSIDER_OTEL_STATE", "memory"),
        ("INSIDER_OTEL_OUTBOX_RETENTION", "30d"),
        ("INSIDER_OTEL_OUTBOX_RETENTION", "inf"),
    ],
)
def test_a_bad_variable_is_refused_by_its_name(variable: str, text: str) -> None:
    with pytest.raises(SettingsError, match=variable):
        Settings.from_env({variable: text})


@pytest.mark.parametrize("text", ["none", " None "])
@pytest.mark.parametrize("name", ["deadline", "outbox_retention"])
def test_no_bound_can_be_said_in_the_environment_where_the_code_sets_one(name: str, text: str) -> None:
    settings = Settings.from_env({f"INSIDER_OTEL_{name.upper()}": text}, **{name: 5.0})
    assert getattr(settings, name) is None


def test_settings_do_not_change() -> None:
    settings = Settings(hosts={"127.0.0.1": "*"}, limits={"mail.send": "off"})
    assert hash(settings) == hash(Settings(hosts={"127.0.0.1": "*"}, limits={"mail.send": None}))
    assert dataclasses.replace(settings) == settings
    with pytest.raises(TypeError):
        settings.hosts["127.0.0.2"] = "*"  # type: ignore[index]
    with pytest.raises(TypeError):
        settings.limits["user.upsert"] = "off"  # type: ignore[index]
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.deadline = 1.0  # type: ignore[misc]


@pytest.mark.parametrize(
    "copied",
    [
        pytest.param(lambda settings: pickle.loads(pickle.dumps(settings)), id="pickle"),
        pytest.param(copy.copy, id="copy"),
        pytest.param(copy.deepcopy, id="deepcopy"),
        pytest.param(lambda settings: Settings(**dataclasses.asdict(settings)), id="asdict"),
        pytest.param(dataclasses.replace, id="replace"),
    ],
)
@pytest.mark.parametrize(
    "settings",
    [Settings(), Settings(hosts={"127.0.0.1:80": "*"}, limits={"user.upsert": "5/1s", "mail.send": "off"}, deadline=3)],
    ids=["defaults", "mappings"],
)
def test_settings_go_to_other_processes_and_are_copied(settings: Settings, copied: Callable[[Any], Settings]) -> None:
    other = copied(settings)
    assert other == settings
    assert hash(other) == hash(settings)
    assert repr(other) == repr(settings)
    with pytest.raises(TypeError):
        other.hosts["127.0.0.2"] = "*"  # type: ignore[index]


def test_a_variable_that_names_no_setting_is_found() -> None:
    environ = {"INSIDER_OTEL_QUICK_RETRY": "1", "INSIDER_OTEL_MODE": "observe", "OTHER": "1"}
    assert Settings.unknown_variables(environ) == ("INSIDER_OTEL_QUICK_RETRY",)


# -------------------------------------------------------------------------------------------------------- limits


@pytest.mark.parametrize(
    ("pool", "text", "limit"),
    [
        ("user.upsert", "100/10s", Limit(100, 10)),
        ("mail.send", " OFF ", None),
        ("mail.send", None, None),
        ("mail.send", Limit(5, 1), Limit(5, 1)),
        ("user.upsert", "1000/day", Limit(1_000, 86_400, calendar=True)),
        ("contact.email_unsubscribe", "10/1s", Limit(10, 1)),
        ("unlisted:mail.useinsider.com", "10/1s", Limit(10, 1)),
        ("unlisted:*", "10/1s", Limit(10, 1)),
    ],
)
def test_a_limit_is_given_by_pool(pool: str, text: str | Limit | None, limit: Limit | None) -> None:
    assert Settings(limits={pool: text}).pool_limits == {pool: limit}


def test_a_limit_in_text_counts_what_insider_counts() -> None:
    limits = Settings(limits={"raw.export": "2/day", "user.profile": "500/60s"}).pool_limits
    assert limits["raw.export"] == Limit(2, 86_400, calendar=True, counts_failures=False)
    assert limits["user.profile"] == Limit(500, 60, unit="quota")


@pytest.mark.parametrize(
    ("pool", "remedy"),
    [
        ("user.attribute_delete", "shares the limit of 'user.upsert': set that"),
        ("user.upsertt", "`insider-otel operations` lists them"),
        ("unlisted:example.com", "after 'unlisted:' stands a documented host (`insider-otel operations` lists them)"),
        ("unlisted", "`insider-otel operations` lists them"),
    ],
)
def test_a_limit_of_what_is_no_pool_is_refused_with_the_remedy(pool: str, remedy: str) -> None:
    with pytest.raises(SettingsError) as refused:
        Settings(limits={pool: "5/1s"})
    assert str(refused.value).startswith("limits (INSIDER_OTEL_LIMITS) is {")
    assert repr(pool) in str(refused.value)
    assert remedy in str(refused.value)


# ---------------------------------------------------------------------------------------------------- duplicates


def test_only_documented_duplicates_are_held_back_by_default() -> None:
    windows = {operation.name: Settings().duplicate_window_of(operation) for operation in operations()}
    assert {name: window for name, window in windows.items() if window is not None} == {"mail.send": 900.0}


def test_all_holds_back_what_changes_something_and_nobody_waits_for() -> None:
    settings = Settings(dedupe="all", dedupe_window=600)
    windows = {operation.name: settings.duplicate_window_of(operation) for operation in operations()}
    assert windows["mail.send"] == windows["user.upsert"] == windows["sms.send"] == windows["catalog.ingest"] == 600.0
    for name in ("user.profile", "verify.generate", "verify.check", "gateway.token", "search.query", "lookup.read"):
        assert windows[name] is None, name
    for operation in operations():
        assert windows[operation.name] is None or operation.deferrable, operation.name


def test_off_holds_back_no_duplicates() -> None:
    assert {Settings(dedupe="off").duplicate_window_of(operation) for operation in operations()} == {None}


def test_a_documented_window_is_not_exceeded_and_a_window_of_0_holds_nothing_back() -> None:
    mail = next(operation for operation in operations() if operation.name == "mail.send")
    assert Settings(dedupe_window=60).duplicate_window_of(mail) == 60.0
    assert Settings(dedupe_window=3_600).duplicate_window_of(mail) == 900.0
    assert Settings(dedupe="all", dedupe_window=0).duplicate_window_of(mail) is None


# --------------------------------------------------------------------------------------------------------- state


def test_settings_show_the_store_without_its_password() -> None:
    settings = Settings(state="redis://shop:hunter2@redis.example.com/0?password=hunter3")
    assert settings.state == "redis://shop:hunter2@redis.example.com/0?password=hunter3"
    assert "state='redis://redis.example.com/0'" in repr(settings)
    assert "hunter" not in repr(settings)
    assert "shop" not in repr(settings)


def test_a_bad_store_in_the_environment_is_refused_without_its_password() -> None:
    with pytest.raises(SettingsError, match="INSIDER_OTEL_STATE") as refused:
        Settings.from_env({"INSIDER_OTEL_STATE": "redis://shop:hunter2@:6379"})
    assert "hunter2" not in str(refused.value)


def test_reading_settings_needs_no_driver() -> None:
    code = (
        "import sys; sys.modules.update(redis=None, sqlite3=None)\n"
        "from insider_otel.policy.settings import Settings\n"
        "Settings(state='redis://127.0.0.1'); Settings(state='sqlite:///state.db')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)
