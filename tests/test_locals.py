"""Error reporters send the variables of frames: those of ours hold no key, no password, no token and no body.

Sentry does so by default, structlog's ``dict_tracebacks`` and Django's reports do, loguru and rich can.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import sys
import traceback
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
from insider_testkit.frames import (  # type: ignore[import-not-found]  # pytest finds it by pythonpath
    assert_frames_hold_none_of,
    variables_of_ours,
)

from insider_otel import AsyncInsiderTransport, CannotDefer, InsiderTransport, Settings, SettingsError
from insider_otel.policy.frames import bare
from insider_otel.testing import FakeInsider
from insider_otel.web import WebOptions

UPSERT = "https://unification.useinsider.com/api/user/v1/upsert"
KEY = base64.urlsafe_b64encode(b"k" * 32).decode()
PASSWORD = "hunter2pass"
TOKEN, ROTATED = "tok-4711-live", "tok-4712-rotated"
JANE = "jane@example.com"
SECRETS = (KEY, PASSWORD, TOKEN, ROTATED, JANE)

REDIS = f"redis://:{PASSWORD}@cache.example.com:6379/0"
TLS = f"rediss://:{PASSWORD}@cache.example.com:6379/0?ssl_ca_certs=/gone.pem"


def _environ(tmp_path: Path) -> dict[str, str]:
    """Variables with every secret there is, and nothing wrong."""
    return {
        "INSIDER_OTEL_STATE": REDIS,
        "INSIDER_OTEL_OUTBOX": f"sqlite:///{tmp_path}/outbox.db",
        "INSIDER_OTEL_OUTBOX_KEY": KEY,
        "INSIDER_OTEL_CREDENTIALS_UNIFICATION": json.dumps({"X-REQUEST-TOKEN": TOKEN}),
    }


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"QUICK_DELAY": "-1"}, "quick_delay"),
        ({"OUTBOX_HORIZON": "soon"}, "outbox_horizon"),
        ({"OUTBOX": "mysql://db"}, "outbox"),
        ({"EVENTS": "none"}, "events"),
        ({"HOSTS": json.dumps({f"shop:{PASSWORD}@proxy": "*"})}, "hosts"),
        ({"STATE": f"redis://:{PASSWORD}#@cache.example.com"}, "state"),
        ({"OUTBOX_KEY": f"{KEY} {KEY}"}, "outbox_key"),
        ({"CREDENTIALS_UNIFICATION": f'{{"X-REQUEST-TOKEN": "{TOKEN}"'}, "is not a JSON object"),
    ],
    ids=lambda wrong: ", ".join(wrong) if isinstance(wrong, Mapping) else "",
)
def test_a_variable_that_cannot_be_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wrong: dict[str, str], says: str
) -> None:
    """Without a store: who has no redis-py is told of that first."""
    for name, value in (_environ(tmp_path) | {f"INSIDER_OTEL_{name}": text for name, text in wrong.items()}).items():
        monkeypatch.setenv(name, value)
    if says == "is not a JSON object":
        monkeypatch.delenv("INSIDER_OTEL_STATE")
    with pytest.raises(SettingsError, match=says) as refused:
        InsiderTransport(httpx.HTTPTransport())
    assert_frames_hold_none_of(SECRETS, refused.value)


def test_a_keyword_that_cannot_be_used() -> None:
    with pytest.raises(SettingsError, match="events") as refused:
        Settings(state=REDIS, outbox_key=KEY, events="none")  # type: ignore[arg-type]
    assert_frames_hold_none_of(SECRETS, refused.value)


@pytest.mark.parametrize(
    "read",
    [
        lambda config: WebOptions.from_config(config, {}),
        lambda config: WebOptions.from_upper_case({name.upper(): config[name] for name in config}, where="config.py"),
    ],
    ids=["lower case", "upper case"],
)
@pytest.mark.parametrize("wrong", [{"request_deadline": -1}, {"quick_delay": -1}, {"quick_delai": 1}], ids=str)
def test_an_option_of_a_web_app_that_cannot_be_used(read: Callable[[Any], object], wrong: dict[str, Any]) -> None:
    with pytest.raises(SettingsError) as refused:
        read({"state": REDIS, "outbox_key": KEY, **wrong})
    assert_frames_hold_none_of(SECRETS, refused.value)


def test_a_certificate_that_is_gone() -> None:
    """Why it cannot be used is still told, with the error that said so."""
    pytest.importorskip("redis", reason="who has no redis-py is told of that first")
    with pytest.raises(SettingsError, match=r"ssl_… cannot be used") as refused:
        InsiderTransport(httpx.HTTPTransport(), settings=Settings(state=TLS))
    assert_frames_hold_none_of(SECRETS, refused.value)
    assert refused.value.__cause__ is not None
    assert isinstance(refused.value.__cause__.__cause__, OSError)


@pytest.mark.parametrize(
    ("module", "loaded", "setting"),
    [
        ("redis", "insider_otel.state.redis_store", {"state": REDIS}),
        ("cryptography.fernet", None, {"outbox_key": KEY}),
    ],
    ids=["redis-py", "cryptography"],
)
def test_a_package_that_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: str, loaded: str | None, setting: dict[str, Any]
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    if loaded is not None:
        monkeypatch.delitem(sys.modules, loaded, raising=False)
    settings = Settings(outbox=f"sqlite:///{tmp_path}/outbox.db", credentials=_rotated, **setting)
    with pytest.raises(ImportError, match="pip install") as refused:
        InsiderTransport(httpx.HTTPTransport(), settings=settings)
    assert_frames_hold_none_of(SECRETS, refused.value)
    assert isinstance(refused.value.__cause__, ImportError)


# ------------------------------------------------------------------------------------------------------- a refusal


def _vault_is_down(operation: object, account: str | None) -> Mapping[str, str]:
    raise ConnectionError(TOKEN)


def _rotated(operation: object, account: str | None) -> Mapping[str, str]:
    return {"X-PARTNER-NAME": "yourshop", "X-REQUEST-TOKEN": ROTATED}


class _Sealed(dict[str, str]):
    """Credentials that are asked for when they are read."""

    def items(self) -> Any:
        raise ConnectionError("the vault is down")


def _sealed(operation: object, account: str | None) -> Mapping[str, str]:
    return _Sealed({"X-REQUEST-TOKEN": ROTATED})


def _defer(settings: Settings, *, is_async: bool) -> None:
    """Ask for a call to be deferred."""
    request: dict[str, Any] = {
        "headers": {"X-PARTNER-NAME": "yourshop", "X-REQUEST-TOKEN": TOKEN},
        "json": {"users": [{"identifiers": {"email": JANE}}]},
        "extensions": {"insider": {"defer": True}},
    }
    fake = FakeInsider().transport()

    async def defer() -> None:
        async with httpx.AsyncClient(transport=AsyncInsiderTransport(fake, settings=settings)) as client:
            await client.post(UPSERT, **request)

    if is_async:
        asyncio.run(defer())
    else:
        with httpx.Client(transport=InsiderTransport(fake, settings=settings)) as client:
            client.post(UPSERT, **request)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize(
    ("credentials", "raises"),
    [(_vault_is_down, CannotDefer), (_rotated, CannotDefer), (_sealed, ConnectionError)],
    ids=["the vault is down", "the token was rotated", "what the app returned cannot be read"],
)
def test_a_call_whose_credentials_cannot_be_put_back(
    tmp_path: Path, is_async: bool, credentials: Any, raises: type[Exception]
) -> None:
    settings = Settings(outbox=f"sqlite:///{tmp_path}/outbox.db", outbox_key=KEY, credentials=credentials)
    with pytest.raises(raises) as refused:
        _defer(settings, is_async=is_async)
    assert_frames_hold_none_of(SECRETS, refused.value)


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
def test_a_mistake_of_the_app_shows_its_line_and_none_of_its_variables(tmp_path: Path, is_async: bool) -> None:
    settings = Settings(outbox=f"sqlite:///{tmp_path}/outbox.db", credentials=_sealed)
    with pytest.raises(ConnectionError) as raised:
        _defer(settings, is_async=is_async)
    *_, ours, last = traceback.walk_tb(raised.value.__traceback__)
    assert (ours[0].f_code.co_name, ours[0].f_locals) == ("provide", {})
    assert (last[0].f_code.co_filename, last[0].f_code.co_name, last[0].f_locals) == (__file__, "items", {})


# ------------------------------------------------------------------------------------------------------- the means


def _raise(error: Exception, cause: Exception, secret: str) -> None:
    raise error from cause


def test_an_error_that_went_round_in_a_ring_of_causes_is_bare_too() -> None:
    one, other = ValueError("one"), ValueError("other")
    for error, cause in ((one, other), (other, one)):
        with contextlib.suppress(ValueError):
            _raise(error, cause, PASSWORD)
    assert bare(one) is one
    for error in (one, other):
        assert [(frame.f_code.co_name, frame.f_locals) for frame, _ in traceback.walk_tb(error.__traceback__)] == [
            ("_raise", {})
        ]


def test_an_error_shows_its_lines_however_deep_they_are() -> None:
    def dig(secret: str) -> None:
        dig(secret)

    with pytest.raises(RecursionError) as raised:
        dig(PASSWORD)
    lines = [frame.f_locals for frame, _ in traceback.walk_tb(bare(raised.value).__traceback__)]
    assert len(lines) > 100
    assert not any(lines)


def test_no_variables_are_shown_where_they_cannot_be_taken_away() -> None:
    """Of a generator that waits, which goes on, and of who has called."""

    def keep() -> Generator[BaseException]:
        secret = PASSWORD
        try:
            int(secret)
        except ValueError as error:
            yield error
        yield ValueError("it went on")

    kept = keep()
    with pytest.raises(ValueError, match="invalid literal") as raised:
        raise next(kept)
    assert bare(raised.value).__traceback__ is None
    assert str(next(kept)) == "it went on"


def test_the_variables_of_our_frames_are_found() -> None:
    """Here is one that holds what it was given: the tests above would see it."""
    with pytest.raises(ValueError, match="no operation is called") as refused:
        FakeInsider().script(PASSWORD, "503")
    assert any(PASSWORD in variable for variable in variables_of_ours(refused.value))
