"""Dead letters are deleted when they were kept for long enough, and not before."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import OutboxError
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from tests.delivery.shop import EMPTY, Shop, wait_until
from tests.outbox.jobs import NOW, put, take


def give_up(store: SQLiteOutbox, stopped_at: float, **fields: Any) -> Job:
    """A dead letter."""
    one = put(store, **{"content": b"p jane@example.com", **fields})
    lease = next(lease for lease in take(store, 100) if lease.job.id == one.id)
    dead = replace(one, stopped="failed", stopped_at=stopped_at)
    store.put_back(lease, dead)
    return dead


def test_dead_letters_whose_time_is_over_are_deleted_at_the_start_and_the_log_says_how_many(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(path, outbox_retention=7200.0)
    for operation in ("mail.send", "sms.send", "mail.send"):
        give_up(shop.store, NOW - 7201.0, operation=operation)
    young = give_up(shop.store, NOW - 3600.0)
    shop.worker().run(drain=True)
    assert shop.store.jobs() == [young]
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (
            "WARNING",
            "dead letters whose outbox_retention is over were deleted, 3 in all: mail.send 2, sms.send 1",
        )
    ]


def test_nothing_of_what_is_deleted_is_left_beside_the_file_or_in_it(path: Path) -> None:
    shop = Shop(path, outbox_retention=60.0)
    give_up(shop.store, NOW - 61.0)
    assert any(b"jane@example.com" in file.read_bytes() for file in path.parent.iterdir())
    with shop.working():
        wait_until(lambda: not any(b"jane@example.com" in file.read_bytes() for file in path.parent.iterdir()))


def test_a_worker_looks_again_about_once_an_hour(path: Path) -> None:
    now = NOW
    shop = Shop(path, outbox_retention=86_400.0)
    assert shop.engine.desk is not None
    shop.engine.desk.wall_clock = lambda: now
    give_up(shop.store, NOW - 86_400.0)
    young = give_up(shop.store, NOW - 84_600.0)
    with shop.working():
        wait_until(lambda: shop.store.jobs() == [young])
        now += 3600.0
        shop.wait_until_empty()


def test_all_is_deleted_before_a_worker_ends_that_is_to_drain(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    shop = Shop(path, outbox_retention=60.0)
    for _ in range(250):
        give_up(shop.store, NOW - 61.0)
    shop.worker().run(drain=True)
    assert shop.store.stats() == EMPTY
    assert len(caplog.records) == 3, "no transaction is a long one"


def test_dead_letters_are_kept_for_ever_if_the_setting_says_so(path: Path) -> None:
    shop = Shop(path, outbox_retention=None)
    dead = give_up(shop.store, 1.0)
    shop.worker().run(drain=True)
    assert shop.store.jobs() == [dead]


def test_calls_are_sent_also_if_nothing_can_be_deleted(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def refuse(*_: object, **__: object) -> Any:
        raise OutboxError("no room on the disk")

    monkeypatch.setattr(SQLiteOutbox, "purge", refuse)
    with shop.working():
        wait_until(lambda: "no room on the disk" in caplog.text)
        shop.defer("first")
        shop.wait_until_empty()
    assert shop.insider.requests == ['{"users":["first"]}']
