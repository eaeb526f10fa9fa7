"""Deferred calls in the app's own database: kept with the transaction, sent once, in the same trace."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
import unittest
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.management import call_command
from django.db import OperationalError, connection, connections, transaction
from django.db.backends.sqlite3.base import DatabaseWrapper
from django.test import AsyncClient, Client, TestCase, override_settings
from django_project.insider import sample
from insider_otel_django import client, on_commit, override
from insider_otel_django.outbox import database_thread, open_outbox
from insider_otel_django.outbox.models import OutboxJob
from insider_otel_django.outbox.store import DjangoOutbox
from outbox_shop import BOUND, OPTIONS, Shop, until

from insider_otel import OutboxError, defer
from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import Taken
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.telemetry.suppression import is_suppressed
from insider_otel.testing import FakeInsider, deliver_outbox, set_testing

DEFER = {"insider": {"defer": True}}


# ------------------------------------------------------------------------------------------------------- transactions


def test_a_rolled_back_order_sends_no_mail_and_a_committed_one_sends_one(shop: Shop, insider: FakeInsider) -> None:
    with shop.working():
        with transaction.atomic():
            lost = shop.defer()
            transaction.set_rollback(True)
        with transaction.atomic():
            kept = shop.defer("user.upsert")
            assert insider.requests == [], "it is not committed yet"
        until(lambda: bool(insider.requests))
        until(lambda: shop.outbox.stats().waiting == 0)
    assert [request.operation for request in insider.requests] == ["user.upsert"]
    assert shop.outbox.job(lost) is None
    assert shop.outbox.job(kept) is None


def test_a_savepoint_that_is_rolled_back_takes_its_calls_with_it(shop: Shop) -> None:
    with transaction.atomic():
        kept = shop.defer()
        with transaction.atomic():
            shop.defer()
            transaction.set_rollback(True)
    assert [job.id for job in shop.outbox.jobs()] == [kept]


def test_a_worker_of_the_same_process_wakes_at_the_commit_and_not_before(database: Path) -> None:
    outbox = DjangoOutbox(lambda: 0.0)
    before = outbox.change()
    with transaction.atomic():
        outbox.put(_job())
        assert outbox.change() == before
    assert outbox.change() != before


def test_a_job_that_cannot_be_kept_leaves_the_apps_transaction_as_it_was(shop: Shop) -> None:
    with transaction.atomic():
        [job] = [shop.outbox.job(shop.defer())]
        assert job is not None
        with pytest.raises(OutboxError, match="IntegrityError"):
            shop.outbox.put(job)
        other = shop.defer()
    assert [each.id for each in shop.outbox.jobs()] == [job.id, other]


def test_a_transaction_that_is_broken_already_is_named_as_the_reason(shop: Shop) -> None:
    with transaction.atomic():
        transaction.set_rollback(True)
        with pytest.raises(OutboxError, match="can only be rolled back"):
            shop.defer()


def test_the_hand_over_to_another_outbox_waits_for_the_commit(database: Path, tmp_path: Path) -> None:
    """``on_commit`` and ``defer`` do it together, whatever the outbox."""
    path = tmp_path / "outbox.db"
    outbox = SQLiteOutbox(path)
    with override_settings(INSIDER_OTEL={**OPTIONS, "OUTBOX": f"sqlite:///{path}"}):
        for rolls_back in (True, False):
            with transaction.atomic():
                request = client().build_request(**sample("mail.send"))
                on_commit(lambda request=request: defer(client(), request))
                transaction.set_rollback(rolls_back)
                assert outbox.stats().waiting == 0
            assert outbox.stats().waiting == int(not rolls_back)
    outbox.close()


# ----------------------------------------------------------------------------------------------------------- delivery


def test_the_delivery_is_in_the_trace_of_the_view(shop: Shop) -> None:
    tracer = shop.spans.tracer_provider.get_tracer("shop")
    with shop.working():
        with tracer.start_as_current_span("checkout") as span:
            shop.defer()
        until(lambda: shop.outbox.stats().waiting == 0)
    [delivery] = shop.spans.deliveries()
    [call, *_] = shop.spans.calls()
    assert delivery.context.trace_id == span.get_span_context().trace_id
    assert delivery.parent is not None
    assert delivery.parent.span_id == call.context.span_id


def test_a_worker_makes_no_spans_of_its_own_statements(shop: Shop) -> None:
    seen: list[object] = []

    def pace(pool: str) -> float:
        seen.append((is_suppressed(), threading.current_thread().name))
        return 0.0

    shop.defer()
    shop.outbox.take(1, time.time(), lease=1.0, pace=pace)
    shop.outbox.close()
    assert seen == [(True, "insider-otel outbox database")]


def test_a_worker_has_one_connection_which_ends_with_it(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    connect = DatabaseWrapper.get_new_connection

    def counted(wrapper: DatabaseWrapper, parameters: Any) -> Any:
        opened.append(threading.current_thread().name)
        return connect(wrapper, parameters)

    for _ in range(20):
        shop.defer("user.upsert")
    monkeypatch.setattr(DatabaseWrapper, "get_new_connection", counted)
    with shop.working():
        until(lambda: shop.outbox.stats().waiting == 0)
    assert opened == ["insider-otel outbox database"]
    shop.engine.desk.outbox.close()
    assert "insider-otel outbox database" not in [thread.name for thread in threading.enumerate()]


def test_after_an_error_a_worker_opens_another_connection(shop: Shop) -> None:
    shop.defer()
    shop.outbox.take(0, time.time(), lease=1.0, pace=lambda pool: 0.0)

    def lose_connection() -> None:
        connection.connection.close()

    shop.outbox._thread.run(lose_connection)
    with pytest.raises(OutboxError):
        shop.outbox.take(1, time.time(), lease=1.0, pace=lambda pool: 0.0)
    assert len(shop.outbox.take(1, time.time(), lease=1.0, pace=lambda pool: 0.0).leases) == 1
    shop.outbox.close()


def test_the_connection_is_closed_when_no_worker_uses_it_any_more(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_thread, "_IDLE", 0.05)
    used: list[Any] = []

    def pace(pool: str) -> float:
        used.append(connections["default"])
        return 0.0

    shop.defer()
    shop.outbox.take(1, time.time(), lease=1.0, pace=pace)
    [mine] = used
    until(lambda: mine.connection is None)
    shop.outbox.take(1, time.time(), lease=1.0, pace=pace)
    shop.outbox.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [OperationalError, OSError])
def test_a_worker_goes_on_if_its_idle_connection_cannot_be_closed(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, error: type[Exception]
) -> None:
    close, is_lost = DatabaseWrapper._close, threading.Event()

    def lost(wrapper: DatabaseWrapper) -> None:
        close(wrapper)
        if threading.current_thread().name == "insider-otel outbox database" and not is_lost.is_set():
            is_lost.set()
            raise error("the server has gone away")

    monkeypatch.setattr(database_thread, "_IDLE", 0.05)
    monkeypatch.setattr(DatabaseWrapper, "_close", lost)
    shop.defer()
    shop.outbox.take(0, time.time(), lease=1.0, pace=lambda pool: 0.0)
    assert is_lost.wait(BOUND)
    if error is OSError:
        until(lambda: "insider-otel outbox database" not in [thread.name for thread in threading.enumerate()])
    taken: list[Taken] = []
    asking = threading.Thread(
        target=lambda: taken.append(shop.outbox.take(1, time.time(), lease=1.0, pace=lambda pool: 0.0)), daemon=True
    )
    asking.start()
    asking.join(BOUND)
    assert [len(each.leases) for each in taken] == [1]
    shop.outbox.close()


def test_who_looks_from_another_thread_leaves_no_connection_open(shop: Shop) -> None:
    """As the thread does that exports metrics."""
    left: list[object] = []

    def look() -> None:
        shop.outbox.stats()
        left.append(connection.connection)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert left == [None]
    connection.ensure_connection()
    shop.outbox.stats()
    assert connection.connection is not None, "that of a request stays open"


def test_a_transaction_is_seen_from_within() -> None:
    """In tests that Django rolls back: there is no commit for which a worker could wait."""

    class Order(TestCase):
        def test_order(self) -> None:
            fake = FakeInsider()
            with override_settings(INSIDER_OTEL=OPTIONS), set_testing(hold=True), override(fake):
                client().request(**sample("mail.send"), extensions=DEFER)
                assert deliver_outbox(client()) == 1
            assert len(fake.accepted("mail.send")) == 1

    # In memory, as Django makes its test database for sqlite.
    call_command("migrate", verbosity=0)
    result = unittest.TestResult()
    unittest.TestSuite([Order("test_order")]).run(result)
    assert (result.testsRun, result.errors, result.failures) == (1, [], [])
    connections.close_all()


# ------------------------------------------------------------------------------------------------------------- errors


def test_missing_tables_are_said_to_be_missing(shop: Shop) -> None:
    with connection.schema_editor() as editor:
        editor.delete_model(OutboxJob)
    for act in (shop.defer, shop.outbox.stats, lambda: shop.outbox.take(1, 0, lease=1, pace=lambda pool: 0.0)):
        with pytest.raises(OutboxError, match=r"run manage.py migrate"):
            act()
    shop.outbox.close()


def test_an_error_says_nothing_of_what_was_to_be_kept(shop: Shop) -> None:
    job = shop.outbox.job(shop.defer())
    assert job is not None
    with pytest.raises(OutboxError) as caught:
        shop.outbox.put(replace(job, content=b"jane@example.com"))
    assert "jane" not in str(caught.value)
    assert job.id not in str(caught.value)


def test_an_app_that_is_not_installed_is_named() -> None:
    installed = [app for app in settings.INSTALLED_APPS if app != "insider_otel_django.outbox"]
    with (
        override_settings(INSTALLED_APPS=installed),
        pytest.raises(OutboxError, match=r'add "insider_otel_django\.outbox" to INSTALLED_APPS'),
    ):
        open_outbox()


def test_without_django_it_says_where_it_belongs() -> None:
    environ = {name: value for name, value in os.environ.items() if name != "DJANGO_SETTINGS_MODULE"}
    done = subprocess.run(
        [sys.executable, "-c", "from insider_otel_django.outbox import open_outbox; open_outbox()"],
        env=environ,
        capture_output=True,
        check=False,
        text=True,
        timeout=BOUND,
    )
    assert "OutboxError: it is in a Django app's database" in done.stderr


@pytest.mark.anyio
async def test_a_sync_client_in_an_event_loop_is_told_so(database: Path) -> None:
    with pytest.raises(OutboxError, match="use an async client"):
        DjangoOutbox().put(_job())


def _job() -> Job:
    now = time.time()
    return Job(
        id="a-job",
        operation="mail.send",
        product="mail",
        pool="mail.send",
        content=b"",
        created=now,
        due=now,
        expires=now + 60,
    )


# -------------------------------------------------------------------------------------------------------------- views


def test_a_view_may_defer_a_call(database: Path, fake: FakeInsider) -> None:
    with override_settings(INSIDER_OTEL=OPTIONS):
        assert Client().get("/signup", {"defer": "yes"}).json()["outcome"] == "deferred"
    assert DjangoOutbox().stats().waiting == 1


@pytest.mark.anyio
async def test_an_async_view_may_defer_a_call(database: Path, fake: FakeInsider) -> None:
    with override_settings(INSIDER_OTEL=OPTIONS):
        response: Any = await AsyncClient().get("/signup/async", {"defer": "yes"})
    assert response.json()["outcome"] == "deferred"
    assert (await sync_to_async(DjangoOutbox().stats)()).waiting == 1
    await sync_to_async(connections.close_all)()


def test_the_process_that_serves_sends_what_a_view_deferred(database: Path, fake: FakeInsider) -> None:
    with override_settings(INSIDER_OTEL={**OPTIONS, "OUTBOX_WORKER": True}):
        assert Client().get("/signup", {"defer": "yes"}).json()["outcome"] == "deferred"
        until(lambda: DjangoOutbox().stats().waiting == 0)
    assert len(fake.accepted("user.upsert")) == 1
    assert "insider-otel outbox database" not in [thread.name for thread in threading.enumerate()]
