"""Celery on RabbitMQ, which confirms what it stored, and delivers at once what a killed worker had."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import kombu.entity
import pytest

from insider_otel.outbox.celery_dead_letters import DeadLetters
from insider_otel.outbox.celery_outbox import CeleryOutbox
from insider_otel.outbox.protocol import OutboxError
from insider_otel.testing import FakeInsider
from insider_otel.testing.server import ServedFake
from tests.outbox.celery import shop
from tests.outbox.celery.balancer import balancer
from tests.outbox.celery.conftest import ROOT
from tests.outbox.celery.rabbitmq import find_program, rabbitmq_server
from tests.outbox.jobs import job

pytestmark = pytest.mark.once


@pytest.fixture(scope="module")
def rabbitmq() -> Iterator[str]:
    if find_program() is None:
        pytest.skip("no RabbitMQ on this machine")
    with rabbitmq_server() as url:
        yield url


@pytest.fixture
def app(rabbitmq: str) -> Iterator[Any]:
    """The app's Celery, with empty queues."""
    app = shop.make_app(rabbitmq)
    for queue in (shop.QUEUE, shop.DEAD_QUEUE):
        with app.connection_for_write() as connection:
            connection.default_channel.queue_delete(queue)
    yield app
    app.close()


@pytest.fixture
def variables(
    rabbitmq: str, served_fake: tuple[FakeInsider, ServedFake], monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    variables = shop.variables(rabbitmq, served_fake[1].hosts)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture
def outbox(app: Any) -> Iterator[CeleryOutbox]:
    outbox = CeleryOutbox(shop.QUEUE)
    yield outbox
    outbox.close()


def _count(app: Any, queue: str) -> int:
    with app.connection_for_write() as connection, suppress(connection.channel_errors):
        count: int = connection.default_channel.queue_declare(queue, passive=True).message_count
        return count
    # There is no such queue yet.
    return 0


def test_a_job_is_stored_when_put_returns(app: Any, outbox: CeleryOutbox) -> None:
    outbox.put(job())
    assert _count(app, shop.QUEUE) == 1


def test_a_message_that_rabbitmq_refuses_is_not_taken_for_stored(app: Any, outbox: CeleryOutbox) -> None:
    queue: Any = kombu.entity.Queue
    app.conf.task_queues = [queue(shop.QUEUE, queue_arguments={"x-max-length": 0, "x-overflow": "reject-publish"})]
    with pytest.raises(OutboxError, match="MessageNacked"):
        outbox.put(job())


def test_a_job_is_stored_also_when_its_queue_was_deleted_since_the_last_one(app: Any, outbox: CeleryOutbox) -> None:
    outbox.put(job(id="one"))
    with app.connection_for_write() as connection:
        connection.default_channel.queue_delete(shop.QUEUE)
    outbox.put(job(id="two"))
    assert _count(app, shop.QUEUE) == 1


def test_a_job_for_a_queue_that_is_missing_and_must_not_be_declared_is_refused(app: Any, outbox: CeleryOutbox) -> None:
    queue: Any = kombu.entity.Queue
    app.conf.task_queues = [queue(shop.QUEUE, no_declare=True)]
    with pytest.raises(OutboxError, match="the queue insider is there or may be declared"):
        outbox.put(job())


def test_a_job_is_stored_also_when_a_load_balancer_closed_the_connection_since_the_last_one(rabbitmq: str) -> None:
    port = urlsplit(rabbitmq).port
    assert port is not None
    with balancer(port) as between:
        app = shop.make_app(rabbitmq.replace(f":{port}", f":{between.port}"))
        with closing(CeleryOutbox(shop.QUEUE)) as outbox:
            outbox.put(job())
            with outbox._connection(app) as connection:
                sock = connection.connection.sock
            between.drop()
            assert select.select([sock], [], [], 60.0)[0], "the client is told so"
            outbox.put(job())


def test_rabbitmq_waits_for_no_heartbeats_which_nobody_would_send_between_two_jobs(rabbitmq: str) -> None:
    app = shop.make_app(f"{rabbitmq}?heartbeat=1")
    with closing(CeleryOutbox(shop.QUEUE)) as outbox:
        outbox.put(job())
        with outbox._connection(app) as connection:
            assert connection.connection.heartbeat == 0


def test_rabbitmq_itself_deletes_a_dead_letter_when_its_time_is_over(
    app: Any, outbox: CeleryOutbox, eventually: Callable[..., None]
) -> None:
    now = time.time()
    for name, seconds in (("over", 1.0), ("month", 30 * 86_400.0), ("the longest", 10 * 365 * 86_400.0)):
        outbox.bury({"format": 99}, name, until=now + seconds)
    outbox.bury({"format": 99}, "for ever")
    eventually(lambda: _count(app, shop.DEAD_QUEUE) == 3)
    assert outbox.purge() == []


def test_rabbitmq_has_the_dead_letters_back_that_were_neither_sent_nor_forgotten(
    app: Any, outbox: CeleryOutbox, eventually: Callable[..., None]
) -> None:
    for name, stopped in (("one", "failed"), ("two", "failed"), ("one", "unsafe"), ("three", "failed")):
        outbox.bury(job(id=name, stopped=stopped, stopped_at=1.0).to_json(), name)
    letters = DeadLetters(shop.QUEUE)
    # One pool of connections to close: the fixture's.
    letters._outbox = outbox
    eventually(lambda: _count(app, shop.DEAD_QUEUE) == 4)
    assert sorted(each.id for each in letters.jobs()) == ["one", "three", "two"]
    eventually(lambda: _count(app, shop.DEAD_QUEUE) == 4)
    assert letters.retry("one") == 1
    assert _count(app, shop.QUEUE) == 1
    eventually(lambda: _count(app, shop.DEAD_QUEUE) == 2)
    assert letters.discard("two") == 1
    eventually(lambda: _count(app, shop.DEAD_QUEUE) == 1)
    assert [each.id for each in letters.jobs()] == ["three"]


def test_what_a_killed_worker_had_is_delivered_by_another_or_given_up(
    app: Any,
    variables: dict[str, str],
    fake: FakeInsider,
    url: str,
    eventually: Callable[..., None],
    tmp_path: Path,
) -> None:
    # The first worker is killed while Insider has two calls and has not answered.
    fake.script("user.upsert", "delay:30:ok")
    fake.script("sms.send", "delay:30:ok")
    command = ("worker", "--queues", shop.QUEUE, "--concurrency", "2", "--without-gossip", "--without-mingle")

    def start() -> subprocess.Popen[bytes]:
        with (tmp_path / "log").open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", "celery", "-A", "tests.outbox.celery.shop", *command],
                cwd=ROOT,
                env={**os.environ, **variables},
                stdout=log,
                stderr=log,
                start_new_session=True,
            )

    with shop.open_client() as client:
        shop.defer_call(client, url, "user.upsert", "jane@example.com")
        shop.defer_call(client, url, "sms.send", "+905550000001")
    first = start()
    eventually(lambda: len(fake.requests) == 2)
    os.killpg(first.pid, signal.SIGKILL)
    first.wait(30)
    second = start()
    try:
        eventually(lambda: len(fake.requests) == 3 and _count(app, shop.DEAD_QUEUE) == 1)
    finally:
        second.terminate()
        second.wait(60)
    # Nobody knows whether the text message was sent, so it is not sent again.
    assert sorted(request.operation for request in fake.requests) == ["sms.send", "user.upsert", "user.upsert"]
    assert _count(app, shop.QUEUE) == 0
