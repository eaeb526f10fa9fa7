"""How it goes, at a glance and without asking anybody."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from insider_otel import InsiderTransport, Settings, health
from insider_otel.http.health import forget
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


def test_before_the_first_call_all_is_well() -> None:
    found = health()
    # Other tests of this process may have opened stores.
    assert {"kind": "memory", "available": True} in found.pop("stores")
    assert found == {"status": "ok", "products": {}, "pools": {}}


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


def test_it_says_how_long_ago() -> None:
    call("user.upsert")
    assert 0 <= product("unification")["age_s"] < 60


def test_it_says_how_full_each_limit_is() -> None:
    limited = Settings(limits={"user.upsert": "4/60s"})
    call("user.upsert", settings=limited)
    assert health()["pools"] == {"user.upsert": 0.25}
    call("user.upsert", settings=limited)
    assert health()["pools"] == {"user.upsert": 0.5}


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
