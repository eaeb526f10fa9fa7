"""Handing a call over to Celery: kept by the broker, or refused, within seconds and without a secret."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import anyio
import httpx
import pytest
from celery import Celery  # type: ignore[import-untyped]

from insider_otel import CannotDefer, Settings, defer, request_scope
from insider_otel.outbox.celery_outbox import CeleryOutbox
from insider_otel.outbox.protocol import OutboxError
from insider_otel.testing import FakeInsider
from tests.outbox.celery import shop
from tests.outbox.celery.broker import Broker
from tests.outbox.celery.conftest import PASSWORD
from tests.outbox.jobs import job
from tests.state.redis_server import RedisServer

SOON = 20.0
"""Seconds that a caller may have to wait on a machine that stands still now and then; on others it is three at most."""


def test_a_call_is_in_the_queue_when_the_caller_is_told_so(client: httpx.Client, url: str, broker: Broker) -> None:
    accepted = shop.defer_call(client, url, "user.upsert", "jane@example.com")
    assert [job.id for job in broker.jobs()] == [accepted.job]


def test_an_event_loop_hands_over_in_a_thread_that_knows_the_app(outbox: CeleryOutbox, broker: Broker) -> None:
    anyio.run(outbox.put_async, job(id="one"))
    assert [each.id for each in broker.jobs()] == ["one"]


def test_what_lies_in_the_broker_holds_the_call_and_none_of_its_credentials(
    client: httpx.Client, url: str, broker: Broker
) -> None:
    for operation in ("user.upsert", "mail.send"):
        shop.defer_call(client, url, operation, "jane@example.com")
    everything = broker.everything()
    assert everything.count(b"jane@example.com") >= 2
    assert shop.TOKEN.encode() not in everything
    assert PASSWORD.encode() not in everything


def test_monitors_are_shown_nothing_of_what_a_message_holds(outbox: CeleryOutbox, broker: Broker) -> None:
    outbox.put(job())
    assert broker.messages()[0]["headers"]["argsrepr"] == "(…, 'insider')"


def test_a_message_waits_at_a_worker_for_less_than_the_broker_waits_for_its_confirmation(
    outbox: CeleryOutbox, broker: Broker
) -> None:
    before = time.time()
    outbox.put(job(due=before + 3600))
    outbox.put(job(due=before - 10))
    late, due = (message["headers"]["eta"] for message in broker.messages())
    assert before < datetime.fromisoformat(late).timestamp() <= time.time() + shop.VISIBILITY_TIMEOUT / 2
    assert due is None


def test_by_default_a_message_waits_for_ten_minutes_at_most(outbox: CeleryOutbox, broker: Broker) -> None:
    Celery("plain", broker=broker.url)
    outbox.put(job(due=time.time() + 3600))
    eta = datetime.fromisoformat(broker.messages()[0]["headers"]["eta"]).timestamp()
    assert time.time() + 500 < eta <= time.time() + 600


def test_without_a_celery_app_in_the_process_the_error_says_what_to_do() -> None:
    Celery("without-broker")
    with pytest.raises(OutboxError, match=r"import the module that makes it.*set_default.*broker_url"):
        CeleryOutbox(shop.QUEUE).put(job())


def test_a_broker_that_is_down_is_soon_told_to_whoever_asked_to_defer(
    client: httpx.Client, url: str, fake: FakeInsider, redis_process: RedisServer
) -> None:
    redis_process.stop()
    began = time.monotonic()
    try:
        with pytest.raises(OutboxError, match=r"did not take the job \(\w+\): see that it runs") as raised:
            shop.defer_call(client, url, "user.upsert", "jane@example.com")
    finally:
        redis_process.start()
    assert time.monotonic() - began < SOON
    assert PASSWORD not in str(raised.value)
    assert not fake.requests


def test_a_broker_that_hangs_is_not_waited_for(outbox: CeleryOutbox, redis_process: RedisServer) -> None:
    outbox.put(job())
    redis_process.pause()
    began = time.monotonic()
    try:
        with pytest.raises(OutboxError, match="TimeoutError"):
            outbox.put(job())
    finally:
        redis_process.resume()
    assert time.monotonic() - began < SOON


def test_the_next_job_is_kept_when_the_broker_is_back(
    outbox: CeleryOutbox, redis_process: RedisServer, broker: Broker
) -> None:
    outbox.put(job())
    redis_process.stop()
    with pytest.raises(OutboxError):
        outbox.put(job())
    redis_process.start()
    outbox.put(job(id="later"))
    assert [each.id for each in broker.jobs()] == ["later"]


def test_a_wrong_password_of_the_broker_is_told_without_it(outbox: CeleryOutbox, broker: Broker) -> None:
    shop.make_app(broker.url.replace(PASSWORD, "planted-wrong-one"))
    with pytest.raises(OutboxError, match="password are right") as raised:
        outbox.put(job())
    error: BaseException | None = raised.value
    assert "planted" not in str(error)
    assert error is not None
    assert error.__suppress_context__


@pytest.fixture
def hurried(environment: dict[str, str], broker: Broker) -> Iterator[httpx.Client]:
    """A client whose retries lie far beyond the time that a request has."""
    shop.make_app(broker.url)
    with shop.open_client(settings=Settings.from_env({**environment, "INSIDER_OTEL_RETRY_WINDOW": "86400"})) as client:
        yield client


def test_a_call_whose_retry_lies_beyond_its_deadline_goes_to_celery(
    hurried: httpx.Client, url: str, fake: FakeInsider, broker: Broker
) -> None:
    fake.script("user.upsert", "503", repeat=True)
    with request_scope(deadline=5.0):
        response = _upsert(hurried, url)
    assert response.status_code == 202
    (waiting,) = broker.jobs()
    assert waiting.attempts == len(fake.requests) > 0


def test_it_ends_as_without_an_outbox_when_the_broker_is_down(
    hurried: httpx.Client, url: str, fake: FakeInsider, redis_process: RedisServer, caplog: pytest.LogCaptureFixture
) -> None:
    fake.script("user.upsert", "503", repeat=True)
    redis_process.stop()
    try:
        with request_scope(deadline=5.0), caplog.at_level(logging.WARNING, "insider_otel.outbox"):
            response = _upsert(hurried, url)
    finally:
        redis_process.start()
    assert response.status_code == 503
    assert "a call of user.upsert was not deferred: Celery's broker did not take the job" in caplog.text
    assert PASSWORD not in caplog.text


def _upsert(client: httpx.Client, url: str) -> Any:
    headers = shop.CREDENTIALS["UNIFICATION"]
    user = {"users": [{"identifiers": {"email": "jane@example.com"}, "attributes": {"name": "Jane"}}]}
    return client.post(f"{url}/api/user/v1/upsert", headers=headers, json=user)


def test_what_is_to_be_kept_in_order_is_refused_for_celery_keeps_none(
    client: httpx.Client, url: str, broker: Broker
) -> None:
    request = client.build_request(
        "POST", f"{url}/api/user/v1/upsert", headers=shop.CREDENTIALS["UNIFICATION"], json={}
    )
    with pytest.raises(CannotDefer, match="Celery's workers keep no order"):
        defer(client, request, ordering_key="user-42")
    assert not broker.jobs()


def test_the_setting_names_the_queue(environment: dict[str, str], url: str, broker: Broker) -> None:
    shop.make_app(broker.url)
    settings = Settings.from_env({**environment, "INSIDER_OTEL_OUTBOX": "celery?queue=letters"})
    with shop.open_client(settings=settings) as client:
        shop.defer_call(client, url, "mail.send", "jane@example.com")
    assert len(broker.jobs("letters")) == 1
