"""The task that delivers a job: what it sends, what it puts back, and what it gives up."""

from __future__ import annotations

import base64
import itertools
import logging
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
from datetime import datetime
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from celery import signals  # type: ignore[import-untyped]
from celery.exceptions import Reject, Retry, SoftTimeLimitExceeded  # type: ignore[import-untyped]

from insider_otel import Settings, SettingsError
from insider_otel.delivery.deliverer import Deliverer
from insider_otel.outbox import celery as task
from insider_otel.outbox.celery_outbox import PURGE_TASK, TASK, CeleryOutbox
from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import OutboxError
from insider_otel.testing import CapturedSpans, FakeInsider
from tests.outbox.celery import shop
from tests.outbox.celery.broker import Broker, arguments_of
from tests.state.redis_server import RedisServer

A_MINUTE = 60.0
A_DAY = 86_400.0

Run = Callable[..., None]

_numbers = itertools.count(1)


@pytest.fixture
def spans() -> CapturedSpans:
    return CapturedSpans()


@pytest.fixture(autouse=True)
def configured(environment: dict[str, str], spans: CapturedSpans) -> Iterator[None]:
    task.configure(Settings.from_env(), tracer_provider=spans.tracer_provider)
    yield
    task._sender.configure({})


@pytest.fixture
def client(environment: dict[str, str], broker: Broker, spans: CapturedSpans) -> Iterator[httpx.Client]:
    """A client as a web process has it, whose spans are looked at."""
    shop.make_app(broker.url)
    with shop.open_client(tracer_provider=spans.tracer_provider) as client:
        yield client


@pytest.fixture
def deferred(client: httpx.Client, url: str, broker: Broker) -> Callable[[str], Job]:
    """Defers a call, and takes its message out of the queue."""

    def defer(operation: str) -> Job:
        # Of no other test: what was sent a moment ago is held back.
        number = next(_numbers)
        recipient = f"+90555{number:07d}" if operation == "sms.send" else f"jane{number}@example.com"
        shop.defer_call(client, url, operation, recipient)
        (job,) = broker.jobs()
        broker.lose()
        return job

    return defer


def run(job: Job | object, *, redelivered: bool = False) -> None:
    """What a worker does with a message."""
    request = SimpleNamespace(id="job", delivery_info={"redelivered": redelivered})
    value = job.to_json() if isinstance(job, Job) else job
    task._deliver(SimpleNamespace(request=request), value, shop.QUEUE)


def test_a_job_is_sent_with_the_credentials_back_in_their_places_and_then_forgotten(
    deferred: Callable[[str], Job], fake: FakeInsider, broker: Broker
) -> None:
    job = deferred("user.upsert")
    assert broker.held() == 1
    run(job)
    assert [request.status for request in fake.requests] == [200]
    assert (broker.jobs(), broker.dead(), broker.held()) == ([], [], 0)


def test_a_delivery_belongs_to_the_trace_of_the_call_and_is_linked_to_the_task(
    deferred: Callable[[str], Job], spans: CapturedSpans, fake: FakeInsider
) -> None:
    job = deferred("user.upsert")
    with spans.tracer_provider.get_tracer("celery").start_as_current_span("run/deliver") as own:
        run(job)
    (delivery,) = spans.deliveries()
    assert delivery.parent is not None
    assert f"{delivery.parent.trace_id:032x}-{delivery.parent.span_id:016x}" in job.context["traceparent"]
    assert [link.context for link in delivery.links] == [own.get_span_context()]


def test_a_delivery_that_fails_is_a_retry_of_the_task_with_the_same_name(
    deferred: Callable[[str], Job], fake: FakeInsider, broker: Broker
) -> None:
    fake.script("user.upsert", "503", repeat=True)
    job = deferred("user.upsert")
    with pytest.raises(Retry, match=r"user\.upsert: unavailable"):
        run(job)
    (later,) = broker.jobs()
    assert (later.id, later.deliveries, later.attempts) == (job.id, 1, len(fake.requests))
    assert broker.messages()[0]["headers"]["id"] == job.id
    assert later.due > job.due


def test_a_message_that_comes_before_its_time_waits_on_and_nothing_is_sent(
    deferred: Callable[[str], Job], fake: FakeInsider, broker: Broker
) -> None:
    job = replace(deferred("sms.send"), due=time.time() + A_MINUTE)
    with pytest.raises(Retry, match="not due yet"):
        # Delivered before or not: it cannot have been sent.
        run(job, redelivered=True)
    assert broker.jobs() == [job]
    assert not fake.requests


def test_a_job_that_is_refused_is_a_visible_dead_letter(
    deferred: Callable[[str], Job], fake: FakeInsider, broker: Broker
) -> None:
    fake.script("user.upsert", "400")
    job = deferred("user.upsert")
    with pytest.raises(task.DeadLetter, match=r"user\.upsert was given up: failed.*kept in insider\.dead"):
        run(job)
    (dead,) = broker.dead()
    assert (dead.id, dead.stopped) == (job.id, "failed")
    assert (broker.jobs(), broker.held()) == ([], 0)
    assert dead.stopped_at is not None
    assert _ends(broker) == pytest.approx(dead.stopped_at + 30 * A_DAY, abs=0.01)


def _ends(broker: Broker) -> float:
    """When the dead letter is deleted, in seconds since 1970."""
    (message,) = broker.messages(shop.DEAD_QUEUE)
    return datetime.fromisoformat(message["headers"]["expires"]).timestamp()


def test_a_dead_letter_is_kept_for_as_long_as_the_setting_says(
    deferred: Callable[[str], Job], fake: FakeInsider, broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    task._sender.configure({})
    monkeypatch.setenv("INSIDER_OTEL_OUTBOX_RETENTION", "none")
    fake.script("user.upsert", "400")
    with pytest.raises(task.DeadLetter):
        run(deferred("user.upsert"))
    assert broker.messages(shop.DEAD_QUEUE)[0]["headers"]["expires"] is None
    broker.clear()
    monkeypatch.setenv("INSIDER_OTEL_OUTBOX_RETENTION", "60")
    before = time.time()
    with pytest.raises(task.DeadLetter):
        run({"format": 99})
    assert before + 59 < _ends(broker) < time.time() + 61, "also what is not understood may be personal"


def test_a_dead_letter_that_cannot_be_dated_for_want_of_a_setting_is_left_to_be_delivered_again(
    broker: Broker, client: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "_TROUBLE_PAUSE", 0.0)
    task._sender.configure({})
    monkeypatch.setenv("INSIDER_OTEL_OUTBOX_RETENTION", "soon")
    with pytest.raises(Reject) as raised:
        run({"format": 99})
    assert raised.value.requeue
    assert broker.messages(shop.DEAD_QUEUE) == []


def test_what_was_kept_for_long_enough_is_deleted_when_a_worker_starts_and_whenever_beat_says_so(
    client: httpx.Client, broker: Broker
) -> None:
    with closing(CeleryOutbox(shop.QUEUE)) as outbox:
        for act in (task._purge_at_start, shop.make_app(broker.url).tasks[PURGE_TASK]):
            outbox.bury({"format": 99}, "unread", until=time.time() - 1)
            act()
            assert broker.messages(shop.DEAD_QUEUE) == []


def test_a_dead_letter_is_not_sent_by_a_worker_that_reads_the_wrong_queue(
    deferred: Callable[[str], Job], fake: FakeInsider, broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    job = replace(deferred("sms.send"), stopped="unsafe", stopped_at=time.time() - A_DAY)
    with pytest.raises(Retry):
        run(job)
    assert "reads insider.dead, and should not" in caplog.text
    assert broker.dead() == [job]
    assert broker.messages(shop.DEAD_QUEUE)[0]["headers"]["eta"] is not None
    assert _ends(broker) == pytest.approx((job.stopped_at or 0.0) + 30 * A_DAY, abs=0.01), "it is not kept anew"
    assert not fake.requests


def test_a_job_that_a_killed_worker_had_is_sent_again_if_twice_is_as_good_as_once(
    deferred: Callable[[str], Job], fake: FakeInsider, broker: Broker
) -> None:
    job = replace(deferred("user.upsert"), due=time.time() - A_MINUTE)
    fake.script("user.upsert", "503", repeat=True)
    with pytest.raises(Retry):
        run(job, redelivered=True)
    (later,) = broker.jobs()
    assert later.ambiguous_since == pytest.approx(job.due, abs=1.0)
    assert later.attempts == len(fake.requests) + 1


def test_a_mail_that_a_killed_worker_had_is_sent_again_while_insider_ignores_a_repeat(
    deferred: Callable[[str], Job], fake: FakeInsider
) -> None:
    run(replace(deferred("mail.send"), due=time.time() - 10 * A_MINUTE), redelivered=True)
    assert len(fake.accepted("mail.send")) == 1


@pytest.mark.parametrize(("operation", "stopped"), [("mail.send", "duplicate_window"), ("sms.send", "unsafe")])
def test_what_must_not_arrive_twice_is_not_sent_again_when_a_killed_worker_had_it(
    deferred: Callable[[str], Job], fake: FakeInsider, broker: Broker, operation: str, stopped: str
) -> None:
    job = replace(deferred(operation), due=time.time() - 16 * A_MINUTE)
    with pytest.raises(task.DeadLetter, match=stopped):
        run(job, redelivered=True)
    assert [dead.stopped for dead in broker.dead()] == [stopped]
    assert not fake.requests


TWICE = [("user.upsert", None), ("mail.send", "duplicate_window"), ("sms.send", "unsafe")]


@pytest.mark.parametrize(("operation", "stopped"), TWICE)
def test_what_a_slow_broker_has_twice_is_sent_twice_only_if_that_is_as_good_as_once(
    deferred: Callable[[str], Job],
    fake: FakeInsider,
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    operation: str,
    stopped: str | None,
) -> None:
    put = CeleryOutbox.put

    def put_slowly(outbox: CeleryOutbox, job: Job) -> None:
        put(outbox, job)
        if len(broker.jobs()) == 1:
            raise OutboxError("the broker did not answer in time")

    now, ahead = time.time, 0.0
    monkeypatch.setattr(time, "time", lambda: now() + ahead)
    job = deferred(operation)
    fake.script(operation, "503", repeat=True)
    monkeypatch.setattr(task, "_TROUBLE_PAUSE", 0.0)
    monkeypatch.setattr(CeleryOutbox, "put", put_slowly)
    with pytest.raises(Retry):
        run(job)
    first, second = broker.jobs()
    assert (first.id, first.ambiguous_since) == (job.id, None)
    # The first is in no hurry: Insider may go on refusing it for long after the second.
    fake.script(operation, "ok", repeat=True)
    ahead = first.due - now()
    if stopped is None:
        run(second)
    else:
        with pytest.raises(task.DeadLetter, match=stopped):
            run(second)
    ahead += 18 * A_MINUTE
    run(first)
    assert len(fake.accepted(operation)) == (2 if stopped is None else 1)


def test_a_message_that_is_not_understood_is_kept_as_it_is(
    client: httpx.Client, broker: Broker, fake: FakeInsider
) -> None:
    with pytest.raises(task.DeadLetter, match=r"format 99.*upgrade it.*kept in insider\.dead"):
        run({"format": 99})
    (message,) = broker.messages(shop.DEAD_QUEUE)
    assert arguments_of(message) == [{"format": 99}, shop.QUEUE]


def test_a_delivery_that_breaks_off_may_have_sent_the_job(
    deferred: Callable[[str], Job], broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def break_off(*_: object) -> Any:
        raise RuntimeError("jane@example.com")

    monkeypatch.setattr(Deliverer, "deliver", break_off)
    job = deferred("user.upsert")
    before = time.time()
    with pytest.raises(Retry, match="broke off") as raised:
        run(job)
    (later,) = broker.jobs()
    assert later.ambiguous_since is not None
    assert before <= later.ambiguous_since <= time.time() < later.due
    assert later.attempts == 1
    assert "jane" not in str(raised.value)


class Reporter(logging.Handler):
    """What an error reporter would send: the variables of frames, the texts, and the arguments of the task."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.sent.append(record.getMessage())
        if record.exc_info is not None:
            self.look_at(record.exc_info[1])

    def failed(self, *, exception: BaseException, args: object, einfo: Any, **_: object) -> None:
        self.sent += [repr(args), einfo.traceback]
        self.look_at(exception)

    def retried(self, *, request: Any, reason: BaseException, einfo: Any, **_: object) -> None:
        self.sent += [repr(request.args), einfo.traceback]
        self.look_at(reason)

    def look_at(self, error: BaseException | None) -> None:
        while error is not None:
            self.sent.append(type(error).__name__)
            for frame, _ in traceback.walk_tb(error.__traceback__):
                if frame.f_globals["__name__"] != __name__:
                    self.sent += [f"{frame.f_code.co_name}: {name} = {it!r}" for name, it in frame.f_locals.items()]
            error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)


@pytest.fixture
def reporter() -> Iterator[Reporter]:
    reporter, log = Reporter(), logging.getLogger("celery.app.trace")
    log.addHandler(reporter)
    signals.task_failure.connect(reporter.failed, weak=False)
    signals.task_retry.connect(reporter.retried, weak=False)
    yield reporter
    signals.task_retry.disconnect(reporter.retried)
    signals.task_failure.disconnect(reporter.failed)
    log.removeHandler(reporter)


UNFORTUNATE = [
    ("given up", "DeadLetter"),
    ("of another version", "DeadLetter"),
    ("damaged", "DeadLetter"),
    ("put back", "Retry"),
    ("broken off", "Retry"),
    ("without settings", "Retry"),
    ("given back", "Reject"),
]


@pytest.mark.parametrize(("end", "raised"), UNFORTUNATE)
def test_an_error_reporter_is_given_nothing_of_the_call_however_its_task_ends(
    deferred: Callable[[str], Job],
    broker: Broker,
    fake: FakeInsider,
    monkeypatch: pytest.MonkeyPatch,
    reporter: Reporter,
    end: str,
    raised: str,
) -> None:
    def break_off(*_: object, **__: object) -> Any:
        raise RuntimeError("jane@example.com")

    def refuse(*_: object, **__: object) -> None:
        raise OutboxError("no room")

    fake.script("user.upsert", "503" if end == "put back" else "400", repeat=True)
    value = deferred("user.upsert").to_json()
    if end == "of another version":
        value["format"] = 99
    if end == "damaged":
        value["colour"] = "red"
    content = value["content"]
    assert b"jane" in base64.b64decode(content)
    monkeypatch.setattr(task, "_TROUBLE_PAUSE", 0.0)
    if end == "broken off":
        monkeypatch.setattr(Deliverer, "deliver", break_off)
    if end == "without settings":
        monkeypatch.setattr(task._Sender, "deliverer", break_off)
    if end == "given back":
        monkeypatch.setattr(CeleryOutbox, "bury", refuse)
    shop.make_app(broker.url).tasks[TASK].apply(args=[value, shop.QUEUE])

    assert raised in reporter.sent
    assert not [sent for sent in reporter.sent if content in sent or "jane" in sent]


def test_a_worker_without_the_settings_to_send_says_so_when_it_starts_and_loses_no_job(
    deferred: Callable[[str], Job],
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    job = deferred("user.upsert")
    task._sender.configure({})
    monkeypatch.delenv("INSIDER_OTEL_OUTBOX")
    with pytest.raises(ValueError, match="INSIDER_OTEL_OUTBOX"):
        task._check_at_start()
    with caplog.at_level(logging.ERROR, "insider_otel.outbox"), pytest.raises(Retry, match="cannot be sent"):
        run(job)
    assert "there is no outbox" in caplog.text
    (later,) = broker.jobs()
    assert (later.id, later.attempts, later.ambiguous_since) == (job.id, 0, None)


ODD_ENVIRONMENTS = [
    pytest.param("SSL_CERT_FILE", __file__, "SSLError", id="no certificate"),
    ("HTTPS_PROXY", "sock://jane:planted@proxy.internal:3128", "ValueError"),
    ("HTTPS_PROXY", "http://jane:pla/nted@proxy.internal:3128", "InvalidURL"),
    ("NO_PROXY", "[::1]", "InvalidURL"),
]


@pytest.mark.parametrize(("variable", "value", "error"), ODD_ENVIRONMENTS)
def test_a_worker_that_httpx_makes_no_client_for_says_so_when_it_starts_and_loses_no_job(
    deferred: Callable[[str], Job],
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    variable: str,
    value: str,
    error: str,
) -> None:
    job = deferred("sms.send")
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=rf"{error}.*{variable}") as at_start:
        task._check_at_start()
    with caplog.at_level(logging.ERROR, "insider_otel.outbox"), pytest.raises(Retry, match="cannot be sent"):
        run(job)
    (later,) = broker.jobs()
    assert (later.id, later.attempts, later.ambiguous_since) == (job.id, 0, None), "so even an SMS may still be sent"
    assert later.due > time.time() + 50
    assert f"({error})" in caplog.text
    assert "pla" not in caplog.text + str(at_start.value)


@pytest.mark.parametrize("moment", ["from_json", "deliverer", "put", "bury", "forget"])
def test_a_message_is_given_back_to_the_broker_whatever_breaks_and_whenever(
    deferred: Callable[[str], Job],
    broker: Broker,
    fake: FakeInsider,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    moment: str,
) -> None:
    def break_off(*_: object, **__: object) -> Any:
        raise SoftTimeLimitExceeded("jane@example.com")

    monkeypatch.setattr(task, "_TROUBLE_PAUSE", 0.0)
    fake.script("user.upsert", {"put": "503", "bury": "400"}.get(moment, "ok"), repeat=True)
    job = deferred("user.upsert")
    owner = {"from_json": Job, "deliverer": task._Sender}.get(moment, CeleryOutbox)
    monkeypatch.setattr(owner, moment, break_off)
    with pytest.raises((Reject, Retry)) as raised:
        run(job)
    assert [each.id for each in broker.jobs()] == [job.id] if raised.type is Retry else raised.value.requeue
    assert "jane" not in caplog.text + str(raised.value)


def test_a_worker_with_settings_to_send_starts_without_a_word() -> None:
    task._check_at_start()


def test_a_job_whose_fate_the_broker_does_not_take_is_left_to_be_delivered_again(
    deferred: Callable[[str], Job], redis_process: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task, "_TROUBLE_PAUSE", 0.0)
    job = deferred("user.upsert")
    redis_process.stop()
    try:
        with pytest.raises(Reject) as raised:
            run(job)
    finally:
        redis_process.start()
    assert raised.value.requeue


def test_celery_confirms_a_message_only_when_the_job_is_over() -> None:
    registered = shop.make_app(None).tasks[TASK]
    assert registered.acks_late
    assert registered.reject_on_worker_lost
    assert not registered.acks_on_failure_or_timeout
    assert registered.ignore_result
