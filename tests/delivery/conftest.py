"""Fixtures of this folder."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.delivery.shop import Shop


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def shop(path: Path) -> Shop:
    return Shop(path)
