"""The worker: sends what an outbox holds, at once, at the pool's pace, and stops without losing anything."""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from insider_otel import Settings, SettingsError
from insider_otel.delivery.worker import Worker
from insider_otel.http.engine import Engine
from insider_otel.http.transport import EngineTransport
from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import Lease, OutboxError
from insider_otel.outbox.rules import LONGEST_HOLD
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.testing import FakeInsider, sample_request
from tests.delivery.shop import BOUND, EMPTY, Shop, wait_until
from tests.outbox.killed import KEYS
from tests.outbox.killed import processes as forkserver

# ---------------------------------------------------------------------------------------------------------- waking up


def test_it_wakes_for_work_of_its_own_process(shop: Shop) -> None:
    with shop.working():
        for name in ("first", "second"):
            # Between them it has nothing to wait for: an outbox that is empty wakes nobody.
            shop.defer(name)
            shop.wait_for_request()
            shop.wait_until_empty()
    assert shop.insider.requests == ['{"users":["first"]}', '{"users":["second"]}']


def _defer_one(path: Path) -> None:
    Shop(path).defer("from another process")


def test_it_wakes_for_work_of_another_process(shop: Shop, path: Path) -> None:
    with shop.working():
        process = forkserver.Process(target=_defer_one, args=(path,))
        process.start()
        shop.wait_for_request()
        process.join(BOUND)
        process.close()
        shop.wait_until_empty()


def test_it_comes_back_to_what_failed_when_it_is_due_and_not_when_a_lease_would_end(shop: Shop) -> None:
    shop.insider.statuses = [503, 503]
    shop.defer("again")
    with shop.working(lease=10 * BOUND):
        shop.wait_until_empty()
    assert len(shop.insider.requests) == 3


def test_it_goes_on_with_a_line_as_soon_as_its_head_is_done(shop: Shop) -> None:
    for number in range(5):
        shop.defer(f"{number}", ordering_key="jane")
    with shop.working(lease=10 * BOUND):
        shop.wait_until_empty()
    assert shop.insider.requests == [f'{{"users":["{number}"]}}' for number in range(5)]


def test_it_sends_several_at_a_time_and_no_more_than_it_may(shop: Shop) -> None:
    shop.insider.may_answer.clear()
    for number in range(12):
        shop.defer(f"{number}")
    with shop.working(concurrency=4):
        for _ in range(4):
            shop.wait_for_request()
        assert shop.store.stats().leased == 4, "the others are left to other workers"
        shop.insider.may_answer.set()
        shop.wait_until_empty()
    assert shop.insider.most_at_once == 4


def test_it_ends_by_itself_if_it_is_to_drain_and_nothing_is_left(shop: Shop) -> None:
    for number in range(20):
        shop.defer(f"{number}")
    shop.worker().run(drain=True)
    assert len(shop.insider.requests) == 20
    assert shop.store.stats() == EMPTY


def test_the_log_names_each_dead_letter_and_says_why_but_not_whom_it_was_about(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    shop.insider.statuses = [400]
    shop.defer("jane@example.com")
    (job,) = shop.store.jobs()
    shop.defer("sent")
    worker = shop.worker(concurrency=1)
    worker.run(drain=True)
    (record,) = caplog.records
    assert (record.name, record.levelname) == ("insider_otel.outbox", "WARNING")
    assert record.getMessage() == (
        "a deferred call of user.upsert was given up, and is a dead letter: failed, validation, status.400; "
        f"attempts: 1; job: {job.id}"
    )
    assert (worker.sent, worker.given_up) == (1, 1)


def test_no_dead_letter_is_told_of_that_another_worker_has_in_hand(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The worker was held up after the answer for longer than its lease lasted."""
    put_back = SQLiteOutbox.put_back

    def put_back_late(store: SQLiteOutbox, lease: Lease, job: Job) -> bool:
        assert shop.store.take(1, time.time() + 31, lease=BOUND, pace=lambda pool: 0.0).leases
        return put_back(store, lease, job)

    monkeypatch.setattr(SQLiteOutbox, "put_back", put_back_late)
    shop.insider.statuses = [400]
    shop.defer("taken over")
    worker = shop.worker()
    assert worker.deliver_due() == 1
    assert (worker.sent, worker.given_up, caplog.text) == (0, 0, "")
    assert (shop.store.stats().waiting, shop.store.stats().dead) == (1, 0)


def test_a_dead_letter_is_told_of_also_if_the_outbox_did_not_say_that_it_has_it(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    put_back = SQLiteOutbox.put_back
    tries = itertools.count(1)

    def put_back_unheard(store: SQLiteOutbox, lease: Lease, job: Job) -> bool:
        is_put_back = put_back(store, lease, job)
        if next(tries) == 1:
            raise OutboxError("the connection broke")
        return is_put_back

    monkeypatch.setattr(SQLiteOutbox, "put_back", put_back_unheard)
    monkeypatch.setattr("insider_otel.delivery.worker._TROUBLE_PAUSE", 0.001)
    shop.insider.statuses = [400]
    shop.defer("unheard")
    worker = shop.worker()
    worker.deliver_due()
    assert (worker.sent, worker.given_up, shop.store.stats().dead) == (0, 1, 1)
    assert "was given up, and is a dead letter" in caplog.text


def test_a_pool_without_room_is_left_alone_for_a_minute_and_then_looked_at_again(path: Path) -> None:
    shop = Shop(path, limits={"user.upsert": "1/600s"})
    for name in ("sent", "no room"):
        shop.defer(name)
    before = time.time()
    assert shop.worker().deliver_due() == 2
    after = time.time()
    shop.defer("next")
    take = functools.partial(shop.store.take, 10, lease=1.0, pace=lambda pool: 0.0)
    assert take(before + 59).leases == []
    assert len(take(after + 61).leases) == 1
    assert len(shop.insider.requests) == 1


# ----------------------------------------------------------------------------------------- a clock that is set right


class WrongClock:
    """The clock of the engine of a shop, some hours ahead until it is set right."""

    def __init__(self, shop: Shop, hours: float) -> None:
        self.ahead = hours * 3600.0
        assert shop.engine.desk is not None
        shop.engine.desk.wall_clock = self

    def __call__(self) -> float:
        return time.time() + self.ahead


def test_deliveries_that_are_planned_start_at_their_pace_though_the_clock_is_set_back(path: Path) -> None:
    # One delivery in 0.6 s: when the first starts, the second is planned.
    shop = Shop(path, limits={"user.upsert": "100/54s"})
    for number in range(4):
        shop.defer(f"{number}")
    clock = WrongClock(shop, hours=5)
    with shop.working():
        shop.wait_for_request()
        clock.ahead = 0.0
        shop.wait_until_empty()
    assert len(shop.insider.requests) == 4


@pytest.mark.parametrize("hours", [5, -5], ids=["ahead", "behind"])
def test_a_worker_that_waits_looks_again_when_the_clock_is_set_right(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, hours: float
) -> None:
    shop.defer("waits")
    clock = WrongClock(shop, hours)
    # Longer than this test waits.
    shop.store.hold_pool("user.upsert", clock() + 1.5 * LONGEST_HOLD)
    has_asked = threading.Event()
    take_jobs = SQLiteOutbox.take

    def take(*arguments: Any, **options: Any) -> Any:
        try:
            return take_jobs(*arguments, **options)
        finally:
            has_asked.set()

    monkeypatch.setattr(SQLiteOutbox, "take", take)
    with shop.working():
        assert has_asked.wait(BOUND)
        assert shop.insider.requests == []
        clock.ahead = 0.0
        shop.wait_until_empty()
    assert len(shop.insider.requests) == 1


@pytest.mark.parametrize("ahead", [5.0, 60.0, 100.0, 3600.0])
def test_who_delivers_what_is_due_later_delivers_what_is_deferred_next_too(shop: Shop, ahead: float) -> None:
    worker = shop.worker()
    for name in ("first", "next"):
        shop.defer(name)
        assert worker.deliver_due(ahead if name == "first" else 0.0) == 1
    assert shop.insider.requests == ['{"users":["first"]}', '{"users":["next"]}']


# ------------------------------------------------------------------------------------------------------------ stopping


def test_what_is_being_sent_is_seen_through_and_what_is_planned_is_given_back(path: Path) -> None:
    # Another delivery starts 0.6 s after the first: it is taken, and planned.
    shop = Shop(path, limits={"user.upsert": "100/54s"})
    shop.insider.may_answer.clear()
    shop.defer("first")
    shop.defer("second")
    worker = shop.worker()
    worker.start()
    shop.wait_for_request()
    worker.stop(0)
    assert worker.is_alive, "who asked for it need not wait, but it waits for the answer"
    sent = len(shop.insider.requests)
    wait_until(lambda: shop.store.stats().leased == sent)
    shop.insider.may_answer.set()
    worker.stop(BOUND)
    wait_until(lambda: not worker.is_alive)
    assert len(shop.insider.requests) == sent, "nothing new was begun"
    left = shop.store.jobs()
    assert len(left) == 2 - sent
    assert all((job.attempts, job.deliveries, job.ambiguous_since) == (0, 0, None) for job in left)
    free = shop.store.take(10, time.time() + 2, lease=1.0, pace=lambda pool: 0.0).leases
    assert len(free) == 2 - sent, "others may have them"


def test_it_can_start_again(path: Path) -> None:
    fake = FakeInsider()
    with fake.serve() as served:
        address = f"127.0.0.1:{served.port}"
        shop = Shop(path, hosts={address: "*"})
        worker = Worker(shop.engine)
        for _ in range(2):
            with httpx.Client(transport=EngineTransport(shop.engine, httpx.HTTPTransport())) as client:
                sample = sample_request("user.upsert", base_url=served.url)
                client.request(
                    sample.method,
                    sample.url,
                    headers={name: KEYS[name] for name in ("X-PARTNER-NAME", "X-REQUEST-TOKEN")},
                    content=sample.content,
                    extensions={"insider": {"defer": True}},
                )
            worker.start()
            shop.wait_until_empty()
            worker.stop(BOUND)
        assert len(fake.requests) == 2


def test_who_stops_before_it_starts_does_nothing(shop: Shop) -> None:
    shop.defer("first")
    worker = shop.worker()
    worker.stop()
    worker.run()
    assert shop.insider.requests == []
    assert shop.store.stats().waiting == 1


def _script(path: Path, url: str, ending: str) -> str:
    return f"""
import time, httpx
from insider_otel import InsiderTransport, Settings
from insider_otel.delivery.worker import Worker
from insider_otel.http.engine import Engine
keys = {KEYS!r}
settings = Settings(outbox="sqlite:///{path}", credentials=lambda operation, account: keys, hosts={{"{url}": "*"}})
client = httpx.Client(transport=InsiderTransport(httpx.HTTPTransport(), settings=settings))
worker = Worker(Engine(settings))
worker.start()
for number in range(3):
    client.post("http://{url}/api/user/v1/upsert", headers=keys, extensions={{"insider": {{"defer": True}}}},
        json={{"users": [{{"identifiers": {{"email": "jane@example.com"}}, "attributes": {{"name": "Jane"}}}}]}})
{ending}
"""


@pytest.mark.parametrize("ending", ["", "time.sleep(0.3)", "worker.stop()", "raise SystemExit(0)"])
def test_a_process_that_ends_does_not_hang_and_loses_nothing(path: Path, ending: str) -> None:
    fake = FakeInsider()
    fake.script("user.upsert", "delay:0.5", repeat=True)
    with fake.serve() as served:
        script = _script(path, f"127.0.0.1:{served.port}", ending)
        ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=BOUND, check=False)
    assert (ran.returncode, ran.stderr) == (0, "")
    store = SQLiteOutbox(path)
    assert len(fake.accepted("user.upsert")) + store.stats().waiting == 3
    assert all(job.ambiguous_since is None for job in store.jobs()), "what was begun was seen through"
    store.close()


# -------------------------------------------------------------------------------------------------------------- leases


def test_the_lease_of_a_long_delivery_is_renewed(shop: Shop) -> None:
    shop.insider.may_answer.clear()
    shop.defer("long")
    with shop.working(lease=3.0):
        shop.wait_for_request()
        first = shop.leased_until()
        wait_until(lambda: shop.leased_until() > first + 3.0)
    assert len(shop.insider.requests) == 1


def test_it_is_renewed_also_while_the_worker_stops(shop: Shop) -> None:
    shop.insider.may_answer.clear()
    shop.defer("long")
    with shop.working(lease=3.0) as worker:
        shop.wait_for_request()
        worker.stop(0)
        first = shop.leased_until()
        wait_until(lambda: shop.leased_until() > first + 3.0)
    assert shop.store.stats() == EMPTY
    assert len(shop.insider.requests) == 1


def test_an_answer_that_never_ends_holds_no_worker_that_stops(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("insider_otel.delivery.worker._LONGEST_END", 0.1)
    shop.insider.may_answer.clear()
    shop.defer("endless")
    with shop.working() as worker:
        shop.wait_for_request()
        worker.stop(BOUND)
        assert not worker.is_alive
        assert shop.store.stats().leased == 1, "it may have arrived: others may have it when its lease ends"


def test_a_job_is_not_sent_whose_lease_was_lost(shop: Shop, path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worker was held up for longer than its lease lasted, and another has the job."""
    asked = threading.Event()
    begin = SQLiteOutbox.begin

    def begin_late(store: SQLiteOutbox, lease: Lease, now: float) -> bool:
        (stolen,) = shop.store.take(1, now + 31, lease=BOUND, pace=lambda pool: 0.0).leases
        assert stolen.job.id == lease.job.id
        try:
            return begin(store, lease, now)
        finally:
            asked.set()

    monkeypatch.setattr(SQLiteOutbox, "begin", begin_late)
    shop.defer("stolen")
    with shop.working():
        assert asked.wait(BOUND)
    assert shop.insider.requests == []
    (job,) = shop.store.jobs()
    assert (job.attempts, job.ambiguous_since) == (0, None)


# ------------------------------------------------------------------------------------------------------------- trouble


@contextmanager
def locked(path: Path) -> Iterator[None]:
    with closing(sqlite3.connect(path, isolation_level=None, timeout=BOUND)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_an_outbox_in_trouble_is_told_of_and_asked_again(
    shop: Shop, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop.defer("patient")
    with ExitStack() as stack:
        with locked(path):
            stack.enter_context(shop.working())
            wait_until(lambda: "cannot be asked for jobs" in caplog.text)
            assert shop.insider.requests == []
        shop.wait_until_empty()
    assert len(shop.insider.requests) == 1


@pytest.mark.parametrize("trouble", [OutboxError("no such file"), RuntimeError("a fault")])
def test_one_that_is_to_drain_an_outbox_in_lasting_trouble_ends_and_says_so(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, trouble: Exception
) -> None:
    asked = troubled(monkeypatch, lambda number: trouble)
    with pytest.raises(type(trouble), match=str(trouble)):
        shop.worker().run(drain=True)
    assert len(asked) == 5


def test_one_that_is_to_drain_an_outbox_bears_trouble_that_passes_as_often_as_it_comes(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("first", "second"):
        shop.defer(name)
    asked = troubled(monkeypatch, lambda number: OutboxError("busy") if number % 5 else None)
    shop.worker(concurrency=1).run(drain=True)
    assert len(asked) > 10
    assert shop.store.stats() == EMPTY


def troubled(monkeypatch: pytest.MonkeyPatch, trouble: Callable[[int], Exception | None]) -> list[int]:
    """Have an outbox raise what ``trouble`` says of the number of times it was asked; returns those."""
    asked: list[int] = []
    take_jobs = SQLiteOutbox.take

    def ask(*arguments: Any, **options: Any) -> Any:
        asked.append(len(asked) + 1)
        error = trouble(len(asked))
        if error is not None:
            raise error
        return take_jobs(*arguments, **options)

    monkeypatch.setattr(SQLiteOutbox, "take", ask)
    monkeypatch.setattr("insider_otel.delivery.worker._TROUBLE_PAUSE", 0.001)
    return asked


def test_an_outbox_that_cannot_be_told_is_told_again_and_nothing_is_sent_twice(
    shop: Shop, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop.insider.may_answer.clear()
    shop.defer("once")
    with shop.working():
        shop.wait_for_request()
        with locked(path):
            shop.insider.may_answer.set()
            wait_until(lambda: "told again" in caplog.text)
        shop.wait_until_empty()
    assert len(shop.insider.requests) == 1


def test_a_job_that_cannot_be_read_keeps_no_other_waiting(
    shop: Shop, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    shop.defer("damaged")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE jobs SET content = x'00'")
    shop.defer("whole")
    with caplog.at_level(logging.WARNING), shop.working():
        wait_until(lambda: shop.store.stats().waiting == 1)
        wait_until(lambda: shop.store.jobs()[0].verdict.get("category") == "configuration")
    assert shop.insider.requests == ['{"users":["whole"]}']
    (left,) = shop.store.jobs()
    assert left.stopped is None, "a newer version may be able to read it"
    assert "damaged" in caplog.text


@pytest.mark.parametrize("ending", [SystemExit, asyncio.CancelledError])
def test_no_exception_of_the_apps_own_ends_a_worker_and_the_job_is_sent_later(
    path: Path, caplog: pytest.LogCaptureFixture, ending: type[BaseException]
) -> None:
    is_worker_asked = threading.Event()

    def credentials(operation: object, account: str | None) -> dict[str, str]:
        if threading.current_thread().name.startswith("insider-otel delivery") and not is_worker_asked.is_set():
            is_worker_asked.set()
            raise ending("the vault is sealed")
        return KEYS

    shop = Shop(path, credentials=credentials)
    for name in ("first", "second"):
        shop.defer(name)
    with shop.working(concurrency=1, lease=1.0):
        shop.wait_until_empty()
    assert len(shop.insider.requests) == 2
    assert f"a delivery of user.upsert broke off: {ending.__name__}" in caplog.text
    assert "vault" not in caplog.text


def test_without_an_outbox_there_is_no_worker() -> None:
    with pytest.raises(SettingsError, match="there is no outbox"):
        Worker(Engine(Settings()))
