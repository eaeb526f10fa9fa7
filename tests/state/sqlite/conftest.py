"""A sqlite store for each test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from insider_otel.state.sqlite_store import SQLiteStore

from .help import PATIENT


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path, timeout=PATIENT)
    yield store
    store.close()
