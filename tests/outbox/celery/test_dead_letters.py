"""Dead letters of Celery's workers: they can be looked at, sent once more, and forgotten."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing

import pytest
from insider_testkit.frames import variables_of_ours  # type: ignore[import-not-found]  # pytest finds it by pythonpath

from insider_otel.outbox.celery_dead_letters import DeadLetters
from insider_otel.outbox.celery_outbox import TASK, CeleryOutbox
from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import OutboxError
from tests.outbox.celery import shop
from tests.outbox.celery.broker import Broker, arguments_of
from tests.outbox.celery.conftest import ROOT
from tests.outbox.jobs import job
from tests.state.redis_server import RedisServer

A_DAY = 86_400.0


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
    assert [job.id for job in letters.jobs()] == ["one", "two"]
    assert len(broker.messages(shop.DEAD_QUEUE)) == 4
    assert broker.held() == 0


def test_none_leaves_the_queue_to_be_looked_at_so_none_is_lost_with_who_looks(
    letters: DeadLetters, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, there = Job.from_json, list[int]()

    def read_and_count(value: object) -> Job:
        there.append(len(broker.messages(shop.DEAD_QUEUE)))
        return read(value)

    with monkeypatch.context() as patch:
        patch.setattr(Job, "from_json", read_and_count)
        letters.jobs()
    assert there == [4, 4, 4, 4]


_KILLED = """
import os
from insider_otel.outbox.celery_dead_letters import DeadLetters
from insider_otel.outbox.celery_outbox import CeleryOutbox
from tests.outbox.celery import shop

shop.app.set_default()
CeleryOutbox.put = lambda outbox, job: os._exit(9)
DeadLetters().retry("two")
"""


def test_one_that_was_taken_by_who_is_killed_the_same_moment_is_put_back_by_celery(
    letters: DeadLetters, broker: Broker, environment: dict[str, str]
) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED], cwd=ROOT, env={**os.environ, **environment}, check=False)
    assert killed.returncode == 9
    assert [job.id for job in letters.jobs()] == ["one"]
    # What every worker of Celery's does now and then.
    app = shop.make_app(broker.url, visibility_timeout=0.0)
    with app.connection_for_write() as connection:
        connection.default_channel.qos.restore_visible()
    assert sorted(job.id for job in letters.jobs()) == ["one", "two"]
    assert (broker.jobs(), broker.held()) == ([], 0)


def test_two_that_ask_at_once_send_each_once(
    letters: DeadLetters, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    put, counts = CeleryOutbox.put, list[int]()

    def put_while_somebody_else_asks(outbox: CeleryOutbox, job: Job) -> None:
        monkeypatch.setattr(CeleryOutbox, "put", put)
        counts.append(letters.retry())
        put(outbox, job)

    monkeypatch.setattr(CeleryOutbox, "put", put_while_somebody_else_asks)
    counts.append(letters.retry())
    assert counts == [1, 1]
    assert sorted(job.id for job in broker.jobs()) == ["one", "two"]
    assert letters.jobs() == []


def test_those_of_each_priority_are_seen_and_deleted(broker: Broker) -> None:
    app = shop.make_app(broker.url)
    app.conf.task_routes = {TASK: {"priority": 6}}
    with closing(CeleryOutbox(shop.QUEUE)) as outbox:
        outbox.bury(job(id="urgent", stopped="failed").to_json(), "urgent", until=time.time() - 1)
        assert broker.dead() == []
        assert [each.id for each in DeadLetters().jobs()] == ["urgent"]
        assert DeadLetters().purge() == 1
        assert DeadLetters().jobs() == []


def test_on_a_broker_that_gives_a_message_to_one_only_those_that_are_not_settled_go_back() -> None:
    shop.make_app("memory://")
    with closing(CeleryOutbox("calls")) as outbox:
        for name in ("one", "two", "three"):
            outbox.bury(job(id=name, stopped="failed", stopped_at=1.0).to_json(), name)
        letters = DeadLetters("calls")
        assert [each.id for each in letters.jobs()] == ["one", "two", "three"]
        assert letters.retry("two") == 1
        assert letters.discard("three") == 1
        assert [each.id for each in letters.jobs()] == ["one"]
        assert letters.discard("one") == 1
        assert letters.jobs() == []


def test_what_is_raised_shows_none_of_what_they_hold(
    outbox: CeleryOutbox, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(job: Job) -> None:
        raise OutboxError("no room")

    given_up = job(stopped="failed", content=b"p jane@example.com")
    outbox.bury(given_up.to_json(), given_up.id)
    text = broker.messages(shop.DEAD_QUEUE)[0]["body"]
    letters = DeadLetters()
    letters._outbox = outbox
    monkeypatch.setattr(outbox, "put", refuse)
    with pytest.raises(OutboxError) as raised:
        letters.retry()
    assert not [variable for variable in variables_of_ours(raised.value) if text in variable or "jane" in variable]


ONE_OF_THEM: list[Callable[[DeadLetters], int]] = [
    lambda letters: len(letters.jobs()),
    lambda letters: letters.retry(),
    lambda letters: letters.retry("twice"),
    lambda letters: letters.discard("twice"),
]


@pytest.mark.parametrize("ask", ONE_OF_THEM, ids=["look", "retry all", "retry", "discard"])
def test_one_that_a_slow_broker_has_twice_is_one(
    outbox: CeleryOutbox, broker: Broker, ask: Callable[[DeadLetters], int]
) -> None:
    given_up = job(id="twice", stopped="failed", stopped_at=1.0)
    for _ in range(2):
        outbox.bury(given_up.to_json(), given_up.id)
    letters = DeadLetters()
    letters._outbox = outbox
    assert ask(letters) == 1
    assert len(broker.jobs()) <= 1
    assert len(broker.dead()) in {0, 2}


@pytest.mark.parametrize("names", [(), ("killed",)], ids=["retry all", "retry"])
def test_one_that_a_killed_worker_and_the_next_gave_up_is_one(
    outbox: CeleryOutbox, broker: Broker, names: tuple[str, ...]
) -> None:
    for stopped, at in (("failed", 1.0), ("unsafe", 2.0)):
        outbox.bury(job(id="killed", stopped=stopped, stopped_at=at).to_json(), "killed")
    letters = DeadLetters()
    letters._outbox = outbox
    assert [each.stopped for each in letters.jobs()] == ["failed"]
    assert letters.retry(*names) == 1
    assert [each.id for each in broker.jobs()] == ["killed"]
    assert broker.dead() == []


def test_one_that_was_given_up_twice_is_sent_once_though_two_ask_for_it_at_once(
    outbox: CeleryOutbox, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for stopped, at in (("failed", 1.0), ("unsafe", 2.0)):
        outbox.bury(job(id="killed", stopped=stopped, stopped_at=at).to_json(), "killed")
    letters = DeadLetters()
    letters._outbox = outbox
    put = CeleryOutbox.put

    def put_while_somebody_else_asks(self: CeleryOutbox, sent: Job) -> None:
        monkeypatch.setattr(CeleryOutbox, "put", put)
        assert letters.retry("killed") == 0
        put(self, sent)

    monkeypatch.setattr(CeleryOutbox, "put", put_while_somebody_else_asks)
    assert letters.retry("killed") == 1
    assert [each.id for each in broker.jobs()] == ["killed"]


def test_one_that_is_given_up_anew_while_the_others_are_sent_once_more_stays(
    letters: DeadLetters, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = CeleryOutbox.put
    anew = job(id="one", stopped="failed", stopped_at=time.time())

    def put_and_give_up(outbox: CeleryOutbox, each: Job) -> None:
        put(outbox, each)
        if [waiting.id for waiting in broker.jobs()] == ["one"]:
            outbox.bury(anew.to_json(), anew.id)

    monkeypatch.setattr(CeleryOutbox, "put", put_and_give_up)
    assert letters.retry() == 2
    assert [each.id for each in broker.jobs()] == ["one", "two"]
    assert letters.jobs() == [anew]


def test_those_whose_time_is_over_are_deleted_and_the_log_says_how_many(
    outbox: CeleryOutbox, letters: DeadLetters, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    now = time.time()
    for name, operation, until in (("old", "mail.send", now - 1), ("young", "sms.send", now + A_DAY)):
        given_up = job(id=name, operation=operation, stopped="unsafe", stopped_at=1.0, content=b"p jane@example.com")
        outbox.bury(given_up.to_json(), given_up.id, until=until)
        outbox.bury({"format": 99}, "unread", until=until)
    assert letters.purge() == 2
    assert [job.id for job in letters.jobs()] == ["one", "two", "young"]
    assert len(broker.messages(shop.DEAD_QUEUE)) == 6
    (record,) = [record for record in caplog.records if record.name == "insider_otel.outbox"]
    assert record.levelname == "WARNING"
    assert "2 in all: mail.send 1, unreadable 1" in record.getMessage()
    assert letters.purge() == 0


def test_each_is_there_a_second_before_its_time_is_over_and_gone_a_second_after(
    outbox: CeleryOutbox, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    ends = time.time() + A_DAY
    outbox.bury(job(stopped="failed").to_json(), "one", until=ends)
    monkeypatch.setattr(time, "time", lambda: ends - 1.0)
    assert outbox.purge() == []
    monkeypatch.setattr(time, "time", lambda: ends + 1.0)
    assert len(outbox.purge()) == 1
    assert broker.dead() == []


def test_two_that_delete_at_once_count_each_once_and_lose_no_other(outbox: CeleryOutbox, broker: Broker) -> None:
    now = time.time()
    for number in range(250):
        outbox.bury({"number": number}, "unread", until=now + (A_DAY if number % 2 else -1))
    others = CeleryOutbox(shop.QUEUE)
    with ThreadPoolExecutor(2) as pool:
        counts = list(pool.map(lambda each: len(each.purge()), (outbox, others)))
    left = len(outbox.purge())
    assert sum(counts) + left == 125
    assert [arguments_of(message)[0]["number"] for message in broker.messages(shop.DEAD_QUEUE)] == [*range(1, 250, 2)]


def test_the_keys_of_a_redis_that_is_shared_may_begin_with_a_prefix(broker: Broker) -> None:
    app = shop.make_app(broker.url)
    app.conf.broker_transport_options = {**app.conf.broker_transport_options, "global_keyprefix": "shop-"}
    with closing(CeleryOutbox(shop.QUEUE)) as outbox:
        outbox.bury(job(stopped="failed").to_json(), "one", until=time.time() - 1)
        assert len(broker.messages(f"shop-{shop.DEAD_QUEUE}")) == 1
        assert len(outbox.purge()) == 1
        assert broker.messages(f"shop-{shop.DEAD_QUEUE}") == []
        outbox.bury(job(id="two", stopped="failed").to_json(), "two")
        letters = DeadLetters()
        letters._outbox = outbox
        assert letters.retry("two") == 1
        assert len(broker.messages(f"shop-{shop.QUEUE}")) == 1
        assert (letters.jobs(), broker.messages(f"shop-{shop.DEAD_QUEUE}")) == ([], [])


def test_one_that_is_sent_once_more_has_all_its_time_again(letters: DeadLetters, broker: Broker) -> None:
    outbox = letters._outbox
    outbox.bury(job(id="three", stopped="failed", stopped_at=1.0).to_json(), "three", until=time.time() - 1)
    assert letters.retry("three") == 1
    (waiting,) = broker.jobs()
    assert (waiting.stopped, waiting.stopped_at) == (None, None)
    assert broker.messages()[0]["headers"]["expires"] is None
    assert letters.purge() == 0


def test_a_broker_that_is_down_is_told(letters: DeadLetters, redis_process: RedisServer) -> None:
    redis_process.stop()
    try:
        for ask in (letters.jobs, letters.retry, letters.purge):
            with pytest.raises(OutboxError, match=r"while its dead letters were gone through \(\w+\): see that"):
                ask()
    finally:
        redis_process.start()
