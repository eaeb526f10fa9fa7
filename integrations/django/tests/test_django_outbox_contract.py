"""The outbox in Django's database, held to what is promised of every outbox that workers take jobs from."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Generator
from dataclasses import replace
from pathlib import Path

import pytest
from asgiref.sync import sync_to_async
from django.db import connections
from hypothesis import settings
from insider_otel_django.outbox.models import OutboxJob, OutboxPool
from insider_otel_django.outbox.store import DjangoOutbox

from insider_otel.outbox.protocol import JobStore

sys.path.append(str(Path(__file__).parents[3]))
from tests.outbox import test_store, test_store_lines, test_store_model, test_store_renewals, test_store_retention
from tests.outbox.jobs import NOW, job, put, take

# What others do it finds by looking once a second. And Django knows no event loop but asyncio's.
OTHERWISE = {"test_whoever_watches_notices_new_work", "test_an_event_loop_puts_jobs_too"}
PROMISES = {
    name: test
    for module in (test_store, test_store_lines, test_store_renewals, test_store_retention)
    for name, test in vars(module).items()
    if name.startswith("test_")
}
assert PROMISES.keys() > OTHERWISE
globals().update({name: test for name, test in PROMISES.items() if name not in OTHERWISE})


@pytest.fixture
def open_store(database: Path) -> Generator[Callable[[], JobStore]]:
    """Opens the same outbox, each time as another process would."""
    opened: list[DjangoOutbox] = []

    def open_one() -> JobStore:
        opened.append(DjangoOutbox())
        return opened[-1]

    yield open_one
    for store in opened:
        store.close()


@pytest.fixture
def store(open_store: Callable[[], JobStore]) -> JobStore:
    """The outbox."""
    return open_store()


def test_whoever_watches_notices_new_work_of_the_process_at_once_and_of_others_within_a_second(database: Path) -> None:
    now = 1000.25
    store = DjangoOutbox(lambda: now)
    seen = store.change()

    def is_noticed() -> bool:
        nonlocal seen
        before, seen = seen, store.change()
        assert store.change() == seen, "who looks twice sees the same"
        return seen != before

    first, second = put(store, line="jane"), put(store, line="jane")
    assert is_noticed()
    (lease,) = take(store)
    store.release([lease])
    assert is_noticed()
    (lease,) = take(store)
    store.put_back(lease, replace(first, stopped="failed"))
    assert is_noticed(), "the second of the line may go"
    store.retry(first.id, now=NOW, expires=NOW)
    assert is_noticed()
    (lease,) = take(store)
    store.delivered(lease)
    assert is_noticed(), "the second of the line may go"
    store.discard(second.id)
    assert is_noticed()
    assert not is_noticed()
    now += 1.0
    assert is_noticed()
    store.close()


class AnyDjangoOutbox(test_store_model.AnyOutbox):
    """Random work on the outbox and on the model."""

    def open(self, directory: Path) -> JobStore:
        """The outbox, empty."""
        OutboxJob.objects.all().delete()
        OutboxPool.objects.all().delete()
        return DjangoOutbox()


AnyDjangoOutbox.TestCase.settings = settings(max_examples=25, stateful_step_count=40, deadline=None)
test_any_work_leaves_what_the_list_says = pytest.mark.once(
    pytest.mark.usefixtures("database")(AnyDjangoOutbox.TestCase)
)


def test_jobs_are_kept_by_an_event_loop(store: JobStore) -> None:
    one = job()

    async def put_it() -> None:
        await store.put_async(one)
        # The thread that stands for Django's own ends with the process.
        await sync_to_async(connections.close_all)()

    asyncio.run(put_it())
    assert store.jobs() == [one]
