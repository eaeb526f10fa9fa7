"""Every store that workers take jobs from: what is promised of one is promised of all."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from insider_otel.outbox.protocol import JobStore
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox

PATIENT = 20.0


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "outbox.db"


@pytest.fixture
def open_store(path: Path) -> Iterator[Callable[[], JobStore]]:
    """Opens the same outbox, each time as another process would."""
    opened: list[SQLiteOutbox] = []

    def open_one() -> JobStore:
        opened.append(SQLiteOutbox(path, timeout=PATIENT))
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], JobStore]) -> JobStore:
    return open_store()
