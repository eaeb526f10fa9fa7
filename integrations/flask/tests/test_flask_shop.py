"""The example shop: it starts with one command, and its pages do what they say."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from typing import Any

import pytest
from flask.testing import FlaskClient
from insider_otel_flask import override
from insider_testkit.otlp import otlp_receiver

from insider_otel.testing import FakeInsider, set_testing

SHOP = Path(__file__).parents[3] / "examples" / "flask_shop"
JANE = {"email": "jane@example.com", "phone": "+905550000001"}


@pytest.fixture
def browser(insider_fake: FakeInsider) -> Iterator[FlaskClient]:
    """A customer of the shop."""
    spec = spec_from_file_location("flask_shop", SHOP / "shop.py")
    assert spec is not None
    assert spec.loader is not None
    shop: Any = module_from_spec(spec)
    spec.loader.exec_module(shop)
    app = shop.create_app()
    with override(app, insider_fake), set_testing():
        yield app.test_client()


def test_a_customer_goes_through_the_shop(browser: FlaskClient, insider_fake: FakeInsider) -> None:
    assert browser.post("/signup", data=JANE).json == {"welcome": JANE["email"], "insider": "succeeded"}
    answer = browser.post("/orders", data={"email": JANE["email"], "sku": "SKU1", "number": "1"})
    assert answer.json == {"order": "ORDER-1", "mail": "succeeded", "event": "succeeded"}
    assert browser.post("/catalog").json == {"outcome": "succeeded", "accepted": 2, "failed": 0}
    for operation, count in {"user.upsert": 2, "mail.send": 1, "catalog.ingest": 1}.items():
        assert len(insider_fake.accepted(operation)) == count


def test_a_code_is_checked(browser: FlaskClient, insider_fake: FakeInsider) -> None:
    phone = JANE["phone"]
    assert browser.post("/code", data={"phone": phone}).status_code == 204
    assert browser.post("/code/check", data={"phone": phone, "code": "typo"}).status_code == 422
    assert browser.post("/code/check", data={"phone": phone, "code": insider_fake.code(phone)}).status_code == 204


def test_an_outage_costs_no_customer_and_is_no_error_of_the_shop(
    browser: FlaskClient, insider_fake: FakeInsider
) -> None:
    insider_fake.script("*", "503", repeat=True)
    assert browser.post("/signup", data=JANE).json == {"welcome": JANE["email"], "insider": "failed"}
    assert browser.post("/code", data={"phone": JANE["phone"]}).status_code == 503
    assert browser.post("/code/check", data={"phone": JANE["phone"], "code": "1234"}).status_code == 503


@pytest.mark.once
def test_one_command_starts_it_and_sends_its_traces() -> None:
    """The traces are those of the README."""
    with otlp_receiver() as receiver:
        done = subprocess.run(
            [sys.executable, SHOP / "run.py", "--visit"],
            env={**os.environ, **receiver.environ},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        trees = receiver.wait_for_trees(7)
    assert [line for tree in trees for line in tree.lines()] == [
        "server POST /signup",
        "  call user.upsert succeeded",
        "    POST /api/user/v1/upsert 503",
        "    wait retry",
        "    POST /api/user/v1/upsert 200",
        "server POST /orders",
        "  call mail.send succeeded",
        "    POST /mail/v1/send 202",
        "  call user.upsert succeeded",
        "    POST /api/user/v1/upsert 200",
        "server POST /catalog",
        "  call catalog.ingest succeeded",
        "    POST /v2/ingest 200",
        "server POST /code",
        "  call verify.generate succeeded",
        "    POST /v1/generate 202",
        "server POST /code/check",
        "  call verify.check failed",
        "    POST /v1/check 401",
        "server POST /code/check",
        "  call verify.check succeeded",
        "    POST /v1/check 202",
        "server GET /health/insider",
    ]
    assert trees[0].span.summary["retries"] == 1


@pytest.mark.once
def test_its_traces_are_drawn_where_nobody_receives_them() -> None:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
    done = subprocess.run(
        [sys.executable, SHOP / "run.py", "--visit"],
        env=environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "└─ insider user.upsert" in done.stdout
    assert "insider.request.*: {'calls': 2}" in done.stdout
    assert done.stderr == ""
