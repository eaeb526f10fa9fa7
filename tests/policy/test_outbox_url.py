"""The setting outbox: what it accepts, and errors that name the remedy."""

from __future__ import annotations

from pathlib import Path

import pytest

from insider_otel import Settings, SettingsError
from insider_otel.policy.outbox_url import OutboxURL


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("sqlite:///outbox.db", OutboxURL("sqlite", "outbox.db")),
        ("sqlite:////var/lib/shop/outbox.db", OutboxURL("sqlite", "/var/lib/shop/outbox.db")),
        ("sqlite:///my%20outbox.db?sync=full&timeout=0.5", OutboxURL("sqlite", "my outbox.db", 0.5, "full")),
        ("celery", OutboxURL("celery")),
        ("celery?queue=mails", OutboxURL("celery", queue="mails")),
        ("django", OutboxURL("django")),
    ],
)
def test_it_is_an_address_with_options(text: str, expected: OutboxURL) -> None:
    assert OutboxURL.parse(text) == expected
    assert Settings(outbox=text).outbox == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        7,
        "outbox.db",
        "sqlite://outbox.db",
        "sqlite:///",
        "sqlite:///outbox/",
        "sqlite:///:memory:",
        "sqlite:///~/outbox.db",
        "sqlite:///outbox.db?sync=off",
        "sqlite:///outbox.db?timeout=0",
        "sqlite:///outbox.db?timeout=soon",
        "sqlite:///outbox.db?sync=full&sync=normal",
        "sqlite:///outbox.db?queue=mails",
        "sqlite:///outbox.db?sync",
        "celery?queue=",
        "django?queue=x",
        "redis://127.0.0.1",
    ],
)
def test_what_is_none_is_refused_with_what_it_accepts(text: object) -> None:
    with pytest.raises(SettingsError, match=r"^outbox \(INSIDER_OTEL_OUTBOX\) is .*it accepts .*sqlite:///relative"):
        Settings(outbox=text)  # type: ignore[arg-type]


@pytest.mark.parametrize("key", ["", "short", "A" * 43, 7, f"{'A' * 43}=,secret-of-the-shop"])
def test_a_key_that_is_none_is_refused_and_not_repeated(key: object) -> None:
    with pytest.raises(SettingsError, match=r"^outbox_key \(INSIDER_OTEL_OUTBOX_KEY\) is no Fernet key") as caught:
        Settings(outbox_key=key)  # type: ignore[arg-type]
    assert "secret-of-the-shop" not in str(caught.value)


def test_settings_show_no_key() -> None:
    assert "A" * 43 not in repr(Settings(outbox_key=f"{'A' * 43}="))


def test_credentials_are_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match="INSIDER_OTEL_CREDENTIALS_<PRODUCT>") as caught:
        Settings(credentials={"X-INS-AUTH-KEY": "secret-of-the-shop"})  # type: ignore[arg-type]
    assert "secret-of-the-shop" not in str(caught.value)


def test_variables_with_credentials_are_no_typing_errors() -> None:
    environ = {"INSIDER_OTEL_CREDENTIALS_MAIL": "{}", "INSIDER_OTEL_OUTBUX": "celery"}
    assert Settings.unknown_variables(environ) == ("INSIDER_OTEL_OUTBUX",)


# ------------------------------------------------------------------------------------------- one file for two things


@pytest.mark.parametrize(
    ("state", "outbox"),
    [
        ("{here}/insider.db", "{here}/insider.db"),
        ("{here}/insider.db?timeout=1", "{here}/insider.db?sync=full"),
        ("{here}/shop/../insider.db", "{here}/./insider.db"),
        ("{here}/insider.db", "{here}/link.db"),
    ],
)
def test_one_file_for_state_and_outbox_is_refused_with_both_fields_and_the_remedy(
    state: str, outbox: str, tmp_path: Path
) -> None:
    """Whichever came second could never use it."""
    (tmp_path / "shop").mkdir()
    (tmp_path / "link.db").symlink_to(tmp_path / "insider.db")
    with pytest.raises(SettingsError) as refused:
        Settings(state="sqlite:///" + state.format(here=tmp_path), outbox="sqlite:///" + outbox.format(here=tmp_path))
    message = str(refused.value)
    assert message.startswith("state (INSIDER_OTEL_STATE) and outbox (INSIDER_OTEL_OUTBOX) name one file, ")
    assert message.endswith("/insider.db: give each its own")


def test_a_file_for_each_is_fine(tmp_path: Path) -> None:
    state, outbox = f"sqlite:///{tmp_path}/state.db", f"sqlite:///{tmp_path}/outbox.db"
    for one, other in ((state, outbox), ("redis://127.0.0.1", outbox), (state, "celery"), (state, None)):
        settings = Settings(state=one, outbox=other)
        assert (settings.state, settings.outbox) == (one, other)
