"""How it goes, at a glance and without asking anybody."""

from __future__ import annotations

import gc
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from insider_otel import InsiderTransport, Outcome, Settings, classify, health
from insider_otel.http.health import forget, note_outcome
from insider_otel.outbox import watch as watch_module
from insider_otel.outbox.job import Job
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.outbox.watch import watch
from insider_otel.policy.state_url import StateURL
from insider_otel.state import opening
from insider_otel.state.shared import SharedState
from insider_otel.testing import FakeClock, FakeInsider, sample_request

ONCE = Settings(quick_retries=0, spread_retries=0)


def call(operation: str, step: str = "ok", settings: Settings = ONCE) -> None:
    fake = FakeInsider(clock=FakeClock())
    fake.script(operation, step)
    sample = sample_request(operation)
    with httpx.Client(transport=InsiderTransport(fake.transport(), settings=settings)) as client:
        try:
            client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)
        except httpx.TransportError:
            assert step in {"timeout", "reset"}


def product(name: str) -> dict[str, Any]:
    found: dict[str, Any] = health()["products"][name]
    return found


@pytest.fixture(autouse=True)
def only_the_stores_of_this_test(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    opened: dict[StateURL, SharedState] = {}
    monkeypatch.setattr(opening, "_states", opened)
    yield
    for state in opened.values():
        if state.store is not None:
            state.store.close()


def test_before_the_first_call_all_is_well() -> None:
    found = health()
    assert found.pop("outboxes") is not None
    stores = [{"kind": "memory", "available": True}]
    assert found == {"status": "ok", "products": {}, "pools": {}, "stores": stores}


def test_a_store_that_calls_name_is_told_of_in_place_of_the_memory(tmp_path: Path) -> None:
    call("user.upsert", settings=replace(ONCE, state=f"sqlite:///{tmp_path}/limits.db"))
    assert health()["stores"] == [{"kind": "sqlite", "available": True}]


def test_a_store_that_cannot_be_used_degrades(tmp_path: Path) -> None:
    limits = tmp_path / "limits.db"
    settings = replace(ONCE, state=f"sqlite:///{limits}", limits={"user.upsert": "4/60s"})
    call("user.upsert", settings=settings)
    for left in tmp_path.iterdir():
        left.write_bytes(b"no database" * 1000)
    call("user.upsert", settings=settings)
    found = health()
    assert found["stores"] == [{"kind": "sqlite", "available": False}]
    assert found["status"] == "degraded"


def test_the_last_call_of_each_product_is_there() -> None:
    call("user.upsert")
    call("mail.send", "service_unavailable")
    assert product("unification")["outcome"] == "succeeded"
    assert (product("mail")["category"], product("mail")["fault"]) == ("unavailable", "insider")
    assert health()["status"] == "degraded"
    call("mail.send")
    assert health()["status"] == "ok"


@pytest.mark.parametrize(
    ("step", "status"),
    [("timeout", "degraded"), ("reset", "degraded"), ("500", "degraded"), ("401", "ok"), ("400", "ok")],
)
def test_only_what_insider_or_the_network_has_to_mend_degrades(step: str, status: str) -> None:
    """A wrong key is for the shop's people to mend: it shows beside its product."""
    call("user.upsert", step)
    assert health()["status"] == status
    assert product("unification")["outcome"] == "failed"


def test_calls_that_end_while_it_is_told_do_not_disturb_it() -> None:
    class Meanwhile:
        """A fault: when it is looked at, a call of another thread ends, the first one of its product."""

        value = "insider"

        def __hash__(self) -> int:
            note_outcome("sms", Outcome.SUCCEEDED, classify(200))
            return 0

    fault: Any = Meanwhile()
    note_outcome("mail", Outcome.FAILED, replace(classify(503), fault=fault))
    assert list(health()["products"]) == ["mail"]
    assert list(health()["products"]) == ["mail", "sms"]


def test_it_says_how_long_ago() -> None:
    call("user.upsert")
    assert 0 <= product("unification")["age_s"] < 60


def test_it_says_how_full_each_limit_is() -> None:
    limited = Settings(limits={"user.upsert": "4/60s"})
    call("user.upsert", settings=limited)
    assert health()["pools"] == {"user.upsert": 0.25}
    call("user.upsert", settings=limited)
    assert health()["pools"] == {"user.upsert": 0.5}


@pytest.fixture
def outbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[SQLiteOutbox]:
    """The only outbox of the process, empty."""
    monkeypatch.setattr(watch_module, "_watches", {})
    opened = SQLiteOutbox(tmp_path / "outbox.db")
    watch(opened)
    yield opened
    opened.close()


def test_an_outbox_that_nobody_uses_any_more_is_not_told_of(tmp_path: Path) -> None:
    before = len(watch_module.all_watches())
    held = watch(SQLiteOutbox(tmp_path / "outbox.db"))
    assert len(watch_module.all_watches()) == before + 1
    del held
    gc.collect()
    assert len(watch_module.all_watches()) <= before


def look() -> dict[str, Any]:
    """How the outbox is, asked anew."""
    (looking,) = watch_module.all_watches()
    looking.forget()
    (found,) = health()["outboxes"]
    assert isinstance(found, dict)
    return found


def job(number: int, created: float) -> Job:
    return Job(
        id=f"{number:032}",
        operation="user.upsert",
        product="unification",
        pool="user.upsert",
        content=b"p{}",
        created=created,
        due=created,
        expires=created + 3600,
    )


def test_it_says_how_full_an_outbox_is_and_who_works_on_it(outbox: SQLiteOutbox) -> None:
    assert look() == {
        "kind": "sqlite",
        "available": True,
        "waiting": 0,
        "dead": 0,
        "oldest_age_s": None,
        "worker": False,
    }
    now = time.time()
    outbox.put(job(1, now - 100))
    outbox.put(job(2, now))
    found = look()
    assert found["waiting"] == 2
    assert 100 <= found["oldest_age_s"] < 160


def test_what_was_given_up_is_told_and_is_no_trouble_of_the_process(outbox: SQLiteOutbox) -> None:
    now = time.time()
    outbox.put(job(1, now))
    (lease,) = outbox.take(1, now, lease=30, pace=lambda pool: 0.0).leases
    outbox.put_back(lease, replace(lease.job, stopped="expired"))
    assert (look()["waiting"], look()["dead"]) == (0, 1)
    assert health()["status"] == "ok"


def test_an_outbox_that_cannot_be_used_degrades(outbox: SQLiteOutbox, tmp_path: Path) -> None:
    (tmp_path / "outbox.db").write_bytes(b"no database" * 1000)
    found = look()
    assert (found["available"], found["waiting"], found["dead"]) == (False, None, None)
    assert health()["status"] == "degraded"


def test_an_outbox_elsewhere_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    class Database:
        name = "django"

        def stats(self) -> Any:
            raise AssertionError("a health page waits for nobody")

    monkeypatch.setattr(watch_module, "_watches", {})
    elsewhere: Any = Database()
    watch(elsewhere)
    assert look()["available"] is None
    assert health()["status"] == "ok"


def test_it_tells_no_secret_and_json_can_hold_it() -> None:
    call("user.upsert", "401")
    call("mail.send")
    text = json.dumps(health())
    for secret in ("fake-key", "jane", "+905550000001", "http"):
        assert secret not in text


def test_it_forgets_when_it_is_told_to() -> None:
    call("user.upsert", "500")
    forget()
    assert health()["products"] == {}
    assert health()["status"] == "ok"
