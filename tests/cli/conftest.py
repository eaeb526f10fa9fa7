"""Fixtures of the tests of ``insider-otel outbox``."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from insider_otel.cli import main
from insider_otel.testing import FakeInsider

from .outbox_shop import Shop


@pytest.fixture
def nothing_is_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("INSIDER_OTEL_")]:
        monkeypatch.delenv(name)


@pytest.fixture
def shop(nothing_is_set: None, tmp_path: Path) -> Shop:
    return Shop(tmp_path / "outbox.db", FakeInsider(), {})


@pytest.fixture
def outbox(shop: Shop, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs the command on the shop's outbox, and returns what it prints; by default it has to succeed."""

    def run(*arguments: str, status: int = 0) -> str:
        assert main(["outbox", "--outbox", f"sqlite:///{shop.path}", *arguments]) == status
        captured = capsys.readouterr()
        return captured.out if status < 2 else captured.err

    return run
