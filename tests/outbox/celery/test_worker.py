"""A real worker of the app: what was deferred arrives, in the same trace, also what a killed worker took with it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from insider_otel.outbox.celery_outbox import CeleryOutbox
from insider_otel.testing import CapturedSpans, FakeInsider
from tests.outbox.celery import shop
from tests.outbox.celery.broker import Broker
from tests.outbox.celery.conftest import PASSWORD
from tests.outbox.jobs import NOW, job

Wait = Callable[..., None]


def _spans(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def test_calls_are_delivered_retried_or_given_up_by_celery(
    environment: dict[str, str],
    start_worker: Callable[[], Path],
    url: str,
    fake: FakeInsider,
    broker: Broker,
    eventually: Wait,
    tmp_path: Path,
) -> None:
    spans = CapturedSpans()
    shop.make_app(broker.url)
    log = start_worker()
    with shop.open_client(tracer_provider=spans.tracer_provider) as client:
        shop.defer_call(client, url, "user.upsert", "jane@example.com")
        eventually(lambda: len(fake.accepted("user.upsert")) == 1)
        fake.script("mail.send", *["503"] * 4)
        shop.defer_call(client, url, "mail.send", "jane@example.com")
        eventually(lambda: len(fake.accepted("mail.send")) == 1)
        fake.script("sms.send", "400")
        given_up = shop.defer_call(client, url, "sms.send", "+905550000001")
        eventually(lambda: len(broker.dead()) == 1)
    eventually(lambda: broker.held() == 0)

    by_operation = {
        operation: [request.status for request in fake.requests if request.operation == operation]
        for operation in ("user.upsert", "mail.send", "sms.send")
    }
    assert by_operation == {"user.upsert": [200], "mail.send": [503] * 4 + [202], "sms.send": [400]}

    # Each delivery goes on with the trace of its call.
    written = _spans(tmp_path / "spans")
    for call in spans.calls():
        context = call.get_span_context()
        assert context is not None
        operation = str((call.attributes or {})["insider.operation"])
        deliveries = [span for span in written if span["name"] == f"insider deliver {operation}"]
        assert deliveries
        assert {span["parent_id"] for span in deliveries} == {f"0x{context.span_id:016x}"}
        assert {span["context"]["trace_id"] for span in deliveries} == {f"0x{context.trace_id:032x}"}

    # What was given up is seen by whoever looks at Celery, and no secret with it.
    eventually(lambda: "DeadLetter" in log.read_text())
    assert f"Task insider_otel.outbox.deliver[{given_up.job}] raised" in log.read_text()
    everything = log.read_bytes() + (tmp_path / "spans").read_bytes() + broker.everything()
    assert shop.TOKEN.encode() not in everything
    assert PASSWORD.encode() not in everything
    assert b"jane@example.com" not in log.read_bytes()


def test_a_message_that_was_lost_with_a_killed_worker_comes_back(
    client: httpx.Client,
    start_worker: Callable[[], Path],
    url: str,
    fake: FakeInsider,
    broker: Broker,
    eventually: Wait,
) -> None:
    shop.make_app(broker.url, visibility_timeout=0.1)
    shop.defer_call(client, url, "user.upsert", "jane@example.com")
    broker.lose()
    start_worker()
    # Before kombu 5.7 workers look every hundred seconds.
    eventually(lambda: len(fake.accepted("user.upsert")) == 1 and broker.held() == 0, 300.0)
    assert not broker.messages()


def test_celery_s_own_revoke_discards_a_job_with_all_that_is_kept_of_it(
    outbox: CeleryOutbox,
    environment: dict[str, str],
    start_worker: Callable[[], Path],
    fake: FakeInsider,
    broker: Broker,
    eventually: Wait,
) -> None:
    log = start_worker()
    eventually(lambda: "ready." in log.read_text())
    outbox._find_app().control.revoke("one")
    eventually(lambda: "flagged as revoked: one" in log.read_text())
    outbox.put(job(id="one"))
    eventually(lambda: "Discarding revoked task" in log.read_text() and broker.held() == 0)
    assert (broker.messages(), broker.dead(), fake.requests) == ([], [], [])


def test_a_job_has_the_same_task_id_however_often_it_was_tried(outbox: CeleryOutbox, broker: Broker) -> None:
    outbox.put(job(id="one"))
    outbox.put(job(id="one", deliveries=1))
    assert [message["headers"]["id"] for message in broker.messages()] == ["one", "one"]


def test_a_worker_that_starts_deletes_what_was_given_up_long_ago_and_nothing_else(
    outbox: CeleryOutbox, start_worker: Callable[[], Path], broker: Broker, eventually: Wait
) -> None:
    now = time.time()
    for name, until in (("old", now - 1), ("young", now + 86_400)):
        outbox.bury(job(id=name, stopped="failed", stopped_at=NOW).to_json(), name, until=until)
    log = start_worker()
    eventually(lambda: [each.id for each in broker.dead()] == ["young"])
    eventually(lambda: "outbox_retention is over were deleted, 1 in all: user.upsert 1" in log.read_text())


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("INSIDER_OTEL_OUTBOX", "", "there is no outbox: set"),
        pytest.param(
            "SSL_CERT_FILE",
            __file__,
            "httpx makes no client with what this worker's environment says",
            id="no certificate",
        ),
        ("INSIDER_OTEL_STATE", "sqlite:////gone/limits.db", "limits.db does not exist: make it"),
    ],
)
def test_a_worker_that_could_send_nothing_says_so_in_its_log_when_it_starts(
    start_worker: Callable[..., Path], eventually: Wait, variable: str, value: str, says: str
) -> None:
    log = start_worker(**{variable: value})
    eventually(lambda: says in log.read_text())
