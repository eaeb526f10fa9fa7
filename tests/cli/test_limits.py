"""`insider-otel limits` shows what the workers share, creates nothing, and shows no secret."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from insider_otel import InsiderTransport, Settings
from insider_otel.cli import main
from insider_otel.testing import FakeInsider, Step, reply, sample_request

from ..state.redis_server import redis_server, skip_without_program

THIRTY = "Too many attempts, please slow down the request. 2 Requests/minute is allowed."


@pytest.fixture(autouse=True)
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("INSIDER_OTEL_STATE", "INSIDER_OTEL_LIMITS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture(scope="module")
def redis_url() -> Iterator[str]:
    skip_without_program()
    with redis_server("--requirepass", "s3cret") as server:
        yield server.url_as(":s3cret")


@pytest.fixture(params=["sqlite", "redis"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty store that processes share."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/state.db?timeout=5"
    url: str = request.getfixturevalue("redis_url")
    return f"{url}?timeout=5&prefix={tmp_path.name.replace('[', '').replace(']', '')}"


def call(state: str, operation: str, *script: Step | str, key: str | None = None, **settings: Any) -> httpx.Response:
    """Make one call as an app whose workers share the state."""
    fake = FakeInsider()
    fake.script(operation, *script)
    sample = sample_request(operation)
    headers = sample.headers if key is None else {**sample.headers, "X-REQUEST-TOKEN": key}
    once = {"quick_retries": 0, "spread_retries": 0, "deadline": 2.0}
    transport = InsiderTransport(fake.transport(), settings=Settings(state=state, **(once | settings)))
    with httpx.Client(transport=transport) as client:
        return client.request(sample.method, sample.url, headers=headers, content=sample.content)


def pools(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, Any]]:
    """What the command prints as JSON."""
    assert main(["limits", "--json", *arguments]) == 0
    shown: list[dict[str, Any]] = json.loads(capsys.readouterr().out)["pools"]
    return shown


def only(rows: list[dict[str, Any]], pool: str) -> dict[str, Any]:
    """The one row of a pool."""
    (row,) = [row for row in rows if row["pool"] == pool]
    return row


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines that the command prints."""
    assert main(["limits", *arguments]) == 0
    return capsys.readouterr().out.splitlines()


# ------------------------------------------------------------------------------------------- what the workers share


def test_a_pool_says_how_full_it_is_and_who_shares_it(state: str, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        call(state, "web_push.top_metrics")
    row = only(pools(capsys, "--state", state), "web_push.top_metrics")
    assert len(row.pop("key")) == 8
    assert row == {
        "pool": "web_push.top_metrics",
        "limit": "30/60s",
        "source": "documented",
        "used": 3,
        "share": 0.1,
        "closed_for": 0.0,
        "workers": 1,
    }
    header, line = lines(capsys, "--state", state, "--used")
    assert header.split("  ")[0] == "POOL"
    assert line.split()[:3] + line.split()[4:] == ["web_push.top_metrics", "30/60s", "documented", "3", "(10%)", "1"]


def test_each_key_has_a_line_of_its_own(state: str, capsys: pytest.CaptureFixture[str]) -> None:
    for key in ("one", "one", "another"):
        call(state, "user.upsert", key=key)
    rows = pools(capsys, "--state", state, "--used")
    assert {row["pool"] for row in rows} == {"user.upsert"}
    assert sorted(row["used"] for row in rows) == [1, 2]
    assert len({row["key"] for row in rows}) == 2


def test_little_is_not_nothing(state: str, capsys: pytest.CaptureFixture[str]) -> None:
    call(state, "user.upsert")
    assert "1 (<1%)" in lines(capsys, "--state", state, "--used")[1]


def test_a_pool_that_insider_closed_says_for_how_long(state: str, capsys: pytest.CaptureFixture[str]) -> None:
    call(state, "catalog.ingest", reply(429, {"error": "rejected: too many requests"}, headers={"Retry-After": "40"}))
    assert 30 < only(pools(capsys, "--state", state), "catalog.ingest")["closed_for"] <= 40
    closed_for = re.search(r"%\) +(\d+\.\d+) s", lines(capsys, "--state", state, "--used")[1])
    assert closed_for
    assert 30 < float(closed_for[1]) <= 40


def test_a_limit_that_insider_named_is_said_by_insider(state: str, capsys: pytest.CaptureFixture[str]) -> None:
    call(state, "web_push.top_metrics", reply(403, {"error": {"message": THIRTY}}))
    row = only(pools(capsys, "--state", state), "web_push.top_metrics")
    assert (row["limit"], row["source"]) == ("2/60s", "Insider")


def test_where_insider_lowers_a_limit_more_than_all_of_it_can_be_used(
    state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(6):
        call(state, "web_push.top_metrics")
    call(state, "web_push.top_metrics", reply(403, {"error": {"message": THIRTY}}))
    row = only(pools(capsys, "--state", state), "web_push.top_metrics")
    assert (row["limit"], row["used"], row["share"]) == ("2/60s", 7, 3.5)
    assert "7 (350%)" in lines(capsys, "--state", state, "--used")[1]


def test_what_the_app_sets_in_code_is_shown_though_this_environment_knows_nothing_of_it(
    state: str, capsys: pytest.CaptureFixture[str]
) -> None:
    call(state, "user.upsert", limits={"user.upsert": "100/60s"})
    call(state, "web_push.top_metrics", limits={"web_push.top_metrics": "off"})
    rows = pools(capsys, "--state", state, "--used")
    told = {row["pool"]: (row["limit"], row["source"], row["share"]) for row in rows}
    assert told == {"user.upsert": ("100/60s", "settings", 0.01), "web_push.top_metrics": ("off", "settings", None)}


def test_a_path_without_a_documented_limit_is_listed_once_it_is_used(
    state: str, capsys: pytest.CaptureFixture[str]
) -> None:

    transport = InsiderTransport(
        httpx.MockTransport(lambda request: httpx.Response(200)),
        settings=Settings(state=state, limits={"unlisted:mail.useinsider.com": "4/60s"}),
    )
    with httpx.Client(transport=transport) as client:
        client.get("https://mail.useinsider.com/new/path", headers={"X-INS-AUTH-KEY": "any"})
    row = only(pools(capsys, "--state", state), "unlisted:mail.useinsider.com")
    assert (row["limit"], row["source"], row["share"]) == ("4/60s", "settings", 0.25)


def test_what_the_doctor_asked_for_is_no_pool(
    state: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call(state, "user.upsert")
    monkeypatch.setenv("INSIDER_OTEL_STATE", state)
    main(["doctor"])
    capsys.readouterr()
    assert [row["pool"] for row in pools(capsys, "--used")] == ["user.upsert"]


# ------------------------------------------------------------------------------------------------ what it cannot show


def test_without_a_store_the_limits_are_listed_and_it_says_why_no_more(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSIDER_OTEL_LIMITS", '{"mail.send": "off", "user.upsert": "100/60s"}')
    rows = pools(capsys)
    assert only(rows, "web_push.top_metrics")["source"] == "documented"
    assert (only(rows, "mail.send")["limit"], only(rows, "mail.send")["source"]) == ("off", "settings")
    assert (only(rows, "user.upsert")["limit"], only(rows, "user.upsert")["source"]) == ("100/60s", "settings")
    assert {row["used"] for row in rows} == {None}
    assert lines(capsys)[-1].startswith("The state is memory://: what is used is in the memory of your app's processes")


def test_a_file_that_is_not_there_is_not_made_by_looking(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = f"sqlite:///{tmp_path}/state.db"
    assert lines(capsys, "--state", url, "--used") == [f"No such state yet: {url} is made by the first call."]
    assert "user.upsert" in lines(capsys, "--state", url)[1]
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_nobody_has_used_says_so(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = lines(capsys, "--state", f"{redis_url}?prefix=nobody", "--used")
    assert line.startswith("No call has been made with the state unix://")


def refused(capsys: pytest.CaptureFixture[str], url: str) -> str:
    """What the command says of a state that it cannot read."""
    assert main(["limits", "--state", url]) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert "s3cret" not in shown.err
    return shown.err


def test_an_address_that_is_none_is_refused_with_what_is_accepted(capsys: pytest.CaptureFixture[str]) -> None:
    assert "state (INSIDER_OTEL_STATE) is 'mysql://…'; it accepts" in refused(capsys, "mysql://shop:s3cret@localhost/x")


def test_a_directory_that_is_missing_is_named_with_a_remedy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, f"sqlite:///{tmp_path}/missing/state.db")
    assert f"the directory {tmp_path}/missing of the state file state.db does not exist: make it" in said


def test_a_file_of_something_else_is_not_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "letter.txt").write_text("Dear Jane, " * 100)
    assert "file is not a database" in refused(capsys, f"sqlite:///{tmp_path}/letter.txt")
    assert (tmp_path / "letter.txt").read_text() == "Dear Jane, " * 100


def test_a_server_that_is_down_is_named_without_its_password(capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, "redis://shop:s3cret@127.0.0.1:1/0")
    assert said.startswith("insider-otel: the state cannot be read: redis://127.0.0.1:1/0: ")
    assert "--state or INSIDER_OTEL_STATE names it" in said


def test_a_password_that_is_refused_is_not_shown(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = refused(capsys, redis_url.replace(":s3cret", ":s3cret-no-more"))
    assert "AuthenticationError" in said


def test_an_address_with_a_password_is_shown_without_it(redis_url: str, capsys: pytest.CaptureFixture[str]) -> None:
    for arguments in (["limits"], ["limits", "--json"]):
        assert main([*arguments, "--state", redis_url]) == 0
        shown = capsys.readouterr()
        assert "s3cret" not in shown.out + shown.err


def test_without_redis_py_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(sys.modules, "insider_otel.state.redis_store", raising=False)
    monkeypatch.setitem(sys.modules, "redis", None)
    assert 'pip install "insider-otel[redis]"' in refused(capsys, "redis://localhost")
