"""The example shop: one command, and the traces that its README shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from insider_testkit.otlp import otlp_receiver

pytestmark = pytest.mark.once

SHOP = Path(__file__).parents[3] / "examples" / "django_shop"

VISIT = {
    "POST signup": [
        "  call user.upsert succeeded",
        "    POST /api/user/v1/upsert 503",
        "    wait retry",
        "    POST /api/user/v1/upsert 200",
    ],
    "POST orders": [
        "  call mail.send succeeded",
        "    POST /mail/v1/send 202",
        "  call user.upsert succeeded",
        "    POST /api/user/v1/upsert 200",
    ],
    "POST catalog": ["  call catalog.ingest succeeded", "    POST /v2/ingest 200"],
    "POST code": ["  call verify.generate succeeded", "    POST /v1/generate 202"],
}


def visit(environ: dict[str, str]) -> str:
    """Send a customer through the shop; what is printed."""
    done = subprocess.run(
        [sys.executable, "-W", "error", str(SHOP / "run.py"), "--visit"],
        env={**os.environ, "PYTHONIOENCODING": "utf-8", **environ},
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_visit_is_drawn() -> None:
    printed = visit({})
    assert "insider.request.*: {'calls': 1, 'retries': 1" in printed
    assert "POST /code/check: 422" in printed
    assert "POST /code/check: 204" in printed
    assert "GET /health/insider: ok" in printed


def test_each_page_is_one_trace_without_anything_personal() -> None:
    with otlp_receiver() as received:
        visit(received.environ)
        trees = {tree.span.name: tree for tree in received.trees() if tree.span.name in VISIT}
        exported = repr(received.spans())
    assert {name: tree.lines()[1:] for name, tree in trees.items()} == VISIT
    # The mail is sent after the transaction: it is not the visitor's summary.
    assert trees["POST orders"].span.summary["calls"] == 1
    for secret in ("jane", "905550000001", "your-token", "your-key"):
        assert secret not in exported


def test_manage_py_check_has_nothing_to_say() -> None:
    done = subprocess.run(
        [sys.executable, "manage.py", "check", "--fail-level", "WARNING"],
        cwd=SHOP,
        env={**os.environ, "SHOP_DATABASE": ":memory:", "DJANGO_SETTINGS_MODULE": "myshop.settings"},
        capture_output=True,
        check=False,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
