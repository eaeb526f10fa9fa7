"""The example starts with one command, does what its README says, and makes the traces that stand there."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from insider_testkit.otlp import Receiver
from insider_testkit.servers import UVICORN_READY, Server, server

pytestmark = pytest.mark.once

SHOP = Path(__file__).parents[3] / "examples" / "fastapi_shop"
PHONE = "+905550000001"


@pytest.fixture
def shop(receiver: Receiver) -> Iterator[Server]:
    command = [sys.executable, "run.py", "--port", "0"]
    with server(command, ready=UVICORN_READY, directory=SHOP, environ=receiver.environ) as running:
        yield running


def test_the_shop_signs_up_sells_syncs_its_catalog_and_checks_codes(shop: Server, receiver: Receiver) -> None:
    with httpx.Client(base_url=shop.url, timeout=60) as visitor:
        jane = {"email": "jane@example.com", "name": "Jane"}
        assert visitor.post("/signup", json=jane).status_code == 201
        order = {"number": "A1", "email": "jane@example.com", "product": "SKU1", "price": 49.9}
        assert visitor.post("/orders", json=order).status_code == 201
        products = [{"id": "SKU1", "name": "Blue shirt", "price": 49.9}]
        assert visitor.post("/catalog", json=products).json() == {"sent": 1, "refused": 0}
        assert visitor.post("/codes", params={"phone": PHONE}).status_code == 202
        code = visitor.get("/fake/code", params={"phone": PHONE}).json()
        mistyped = visitor.post("/codes/check", json={"phone": PHONE, "code": f"{code}0"})
        assert (mistyped.status_code, mistyped.json()["detail"]) == (422, "That code is not right, or too old.")
        assert visitor.post("/codes/check", json={"phone": PHONE, "code": code}).json() == {"verified": True}
        assert visitor.get("/health/insider").json()["status"] == "ok"
        receiver.wait_until(lambda: "BackgroundTask send_mail" in receiver.describe())
        trees = receiver.wait_for_trees(8)

    signup, sold = (tree.lines() for tree in trees[:2])
    assert signup == [
        "server POST /signup",
        "  call user.upsert succeeded",
        "    POST /api/user/v1/upsert 503",
        "    wait retry",
        "    POST /api/user/v1/upsert 200",
    ]
    assert sold == [
        "server POST /orders",
        "  call user.upsert succeeded",
        "    POST /api/user/v1/upsert 200",
        "  internal BackgroundTask send_mail",
        "    call mail.send succeeded",
        "      POST /mail/v1/send 202",
    ]
    assert [tree.span.summary.get("calls") for tree in trees] == [1, 1, 1, 1, None, 1, 1, None]
    assert "\n".join(signup) in shop.output()
    assert "\n".join(signup) in (SHOP / "README.md").read_text()
    everything = shop.output() + receiver.describe() + str([span.attributes for span in receiver.spans()])
    for secret in (PHONE, "jane@example.com", "invented", str(code)):
        assert secret not in everything
