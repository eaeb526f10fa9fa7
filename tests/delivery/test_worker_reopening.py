"""A worker whose file is closed and opened again under its hands misses nothing that came in between."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from tests.delivery.shop import BOUND, Shop
from tests.outbox.killed import processes as forkserver


def _replace_file(shop: Shop) -> None:
    """Put a file in the place of the one in use that holds a call."""
    saved = Shop(shop.path.with_name("saved.db"))
    saved.defer("kept")
    for each in (saved, shop):
        _close(each)
    saved.path.replace(shop.path)


def _fork(shop: Shop) -> None:
    """Close the file, as a fork does; another process is quicker to use it."""
    _close(shop)
    process = forkserver.Process(target=_defer_one, args=(shop.path,))
    process.start()
    process.join(BOUND)
    process.close()


def _close(shop: Shop) -> None:
    assert shop.engine.desk is not None
    outbox = shop.engine.desk.outbox
    assert isinstance(outbox, SQLiteOutbox)
    outbox.close()


def _defer_one(path: Path) -> None:
    Shop(path).defer("from another process")


@pytest.mark.parametrize("happen", [_replace_file, _fork])
def test_it_wakes_for_what_came_while_it_had_its_file_not_open(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, happen: Callable[[Shop], None]
) -> None:
    looks = itertools.count(1)
    has_come, may_look = threading.Event(), threading.Event()
    change = SQLiteOutbox.change

    def look(store: SQLiteOutbox) -> Any:
        # First it opens the file, then it finds nothing, and then it only watches.
        if next(looks) == 3:
            has_come.set()
            assert may_look.wait(BOUND)
        return change(store)

    monkeypatch.setattr(SQLiteOutbox, "change", look)
    with shop.working():
        assert has_come.wait(BOUND)
        happen(shop)
        may_look.set()
        shop.wait_for_request()
        shop.wait_until_empty()
