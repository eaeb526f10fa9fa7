"""Dead letters of Celery's workers: they can be looked at, sent once more, and forgotten."""

from __future__ import annotations

import time

import pytest

from insider_otel.outbox.celery_dead_letters import DeadLetters
from insider_otel.outbox.celery_outbox import CeleryOutbox
from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import OutboxError
from tests.outbox.celery import shop
from tests.outbox.celery.broker import Broker
from tests.outbox.jobs import job
from tests.state.redis_server import RedisServer


@pytest.fixture
def letters(outbox: CeleryOutbox) -> DeadLetters:
    """Three of them, of which the second cannot be read."""
    for name in ("one", "two"):
        given_up = job(id=name, stopped="unsafe", ambiguous_since=1.0, expires=2.0)
        outbox.bury(given_up.to_json(), given_up.id)
        outbox.bury({"format": 99}, "unread")
    letters = DeadLetters()
    # One connection to close: the fixture's.
    letters._outbox = outbox
    return letters


def test_looking_at_them_leaves_them_where_they_are(letters: DeadLetters, broker: Broker) -> None:
    assert [job.id for job in letters.jobs()] == ["one", "two"]
    assert [job.id for job in letters.jobs()] == ["one", "two"]
    assert len(broker.messages(shop.DEAD_QUEUE)) == 4
    assert broker.held() == 0


def test_one_that_is_to_be_sent_once_more_waits_in_the_queue_as_if_it_were_new(
    letters: DeadLetters, broker: Broker
) -> None:
    assert letters.retry("two") == 1
    (waiting,) = broker.jobs()
    assert (waiting.id, waiting.stopped, waiting.ambiguous_since) == ("two", None, None)
    assert waiting.due <= time.time() < waiting.expires
    assert [job.id for job in letters.jobs()] == ["one"]


def test_all_that_can_be_read_are_sent_once_more_unless_some_are_named(letters: DeadLetters, broker: Broker) -> None:
    assert letters.retry() == 2
    assert [job.id for job in broker.jobs()] == ["one", "two"]
    assert len(broker.messages(shop.DEAD_QUEUE)) == 2


def test_those_that_are_named_are_forgotten(letters: DeadLetters, broker: Broker) -> None:
    assert letters.discard("one", "nobody") == 1
    assert [job.id for job in letters.jobs()] == ["two"]
    assert not broker.jobs()


def test_one_that_the_broker_does_not_take_stays_with_those_behind_it(
    letters: DeadLetters, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(job: Job) -> None:
        raise OutboxError("no room")

    monkeypatch.setattr(letters._outbox, "put", refuse)
    with pytest.raises(OutboxError, match="no room"):
        letters.retry()
    assert [job.id for job in letters.jobs()] == ["two", "one"]
    assert len(broker.messages(shop.DEAD_QUEUE)) == 4


def test_a_broker_that_is_down_is_told(letters: DeadLetters, redis_process: RedisServer) -> None:
    redis_process.stop()
    try:
        with pytest.raises(OutboxError):
            letters.jobs()
    finally:
        redis_process.start()
