"""The app of these tests: its Celery, as its web processes and its workers load it. Its settings are variables."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import httpx
from celery import Celery  # type: ignore[import-untyped]
from celery.signals import worker_process_init  # type: ignore[import-untyped]
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import ConsoleSpanExporter, SimpleSpanProcessor

from insider_otel import InsiderTransport
from insider_otel.testing import sample_request

QUEUE = "insider"
DEAD_QUEUE = "insider.dead"
VISIBILITY_TIMEOUT = float(os.environ.get("SHOP_VISIBILITY_TIMEOUT", "2"))
TOKEN = "planted-token-5b1f"
CREDENTIALS = {
    "UNIFICATION": {"X-PARTNER-NAME": "invented", "X-REQUEST-TOKEN": TOKEN},
    "MAIL": {"X-INS-AUTH-KEY": TOKEN},
    "SMS": {"X-INS-AUTH-KEY": TOKEN},
}


def variables(broker: str, hosts: Mapping[str, str]) -> dict[str, str]:
    """The environment of the app's processes.

    Args:
        broker: The URL of Celery's broker.
        hosts: Where the fake is served, for ``Settings.hosts``.
    """
    return {
        "SHOP_BROKER": broker,
        "INSIDER_OTEL_HOSTS": json.dumps(dict(hosts)),
        "INSIDER_OTEL_OUTBOX": f"celery?queue={QUEUE}",
        "INSIDER_OTEL_RETRY_WINDOW": "1",
        "INSIDER_OTEL_QUICK_DELAY": "0.05",
        "INSIDER_OTEL_LIMITS": json.dumps({"sms.send": "off", "mail.send": "off", "user.upsert": "off"}),
        **{f"INSIDER_OTEL_CREDENTIALS_{product}": json.dumps(held) for product, held in CREDENTIALS.items()},
    }


def make_app(broker: str | None, visibility_timeout: float = VISIBILITY_TIMEOUT) -> Any:
    """The app's Celery, which becomes the current one.

    Args:
        broker: The URL of its broker.
        visibility_timeout: Seconds after which Redis delivers again what no worker confirmed.
    """
    app: Any = Celery("shop", broker=broker, include=["insider_otel.outbox.celery"])
    app.conf.broker_connection_retry_on_startup = True
    app.conf.worker_prefetch_multiplier = 1
    app.conf.worker_cancel_long_running_tasks_on_connection_loss = True
    if broker and broker.startswith("redis"):
        # What a killed worker held comes back within seconds.
        app.conf.broker_transport_options = {
            "visibility_timeout": visibility_timeout,
            "unacked_mutex_expire": 2,
            "unacked_restore_interval": 1,
            "unacked_restore_throttle": 1,
        }
    return app


app = make_app(os.environ.get("SHOP_BROKER"))


@worker_process_init.connect  # type: ignore[untyped-decorator]
def write_spans(**_: object) -> None:
    """Have a worker write its spans to a file, one a line."""
    path = os.environ.get("SHOP_SPANS")
    if path:
        provider = TracerProvider()
        out = open(path, "a", buffering=1)  # noqa: SIM115  (it is open for as long as the process lives)
        exporter = ConsoleSpanExporter(out=out, formatter=lambda span: span.to_json(indent=None) + "\n")
        provider.add_span_processor(SimpleSpanProcessor(exporter))
        trace.set_tracer_provider(provider)


@dataclass(frozen=True)
class Accepted:
    """A call that the app was told will be sent.

    Attributes:
        operation: Its operation.
        recipient: Whom it is about: nobody else's call has the same.
        job: The name of the job.
    """

    operation: str
    recipient: str
    job: str


def open_client(**options: Any) -> httpx.Client:
    """A client as a web process has it.

    Args:
        **options: Of ``InsiderTransport``.
    """
    return httpx.Client(transport=InsiderTransport(httpx.HTTPTransport(), **options))


def defer_call(client: httpx.Client, url: str, operation: str, recipient: str) -> Accepted:
    """Hand a call over to the outbox.

    Args:
        client: The client.
        url: Where the fake is served.
        operation: ``user.upsert``, ``mail.send`` or ``sms.send``.
        recipient: Whom it is about: an e-mail address, or a phone number.
    """
    sample = sample_request(operation)
    headers = {**sample.headers, **CREDENTIALS[sample.operation.product.upper()]}
    response = client.post(
        url + httpx.URL(sample.url).path,
        headers=headers,
        json=_body(operation, sample.json, recipient),
        extensions={"insider": {"defer": True}},
    )
    assert response.status_code == 202, response.status_code
    return Accepted(operation, recipient, response.headers["x-insider-otel"].partition("job=")[2])


def _body(operation: str, sample: dict[str, Any], recipient: str) -> dict[str, Any]:
    match operation:
        case "user.upsert":
            return {"users": [{"identifiers": {"email": recipient}, "attributes": {"name": "Jane"}}]}
        case "mail.send":
            return {**sample, "tos": [{"name": "Jane", "email": recipient}]}
        case _:
            return {**sample, "to": recipient}


def recipient_of(operation: str, body: Any) -> str:
    """Whom a request that the fake got was about.

    Args:
        operation: Its operation.
        body: Its body.
    """
    match operation:
        case "user.upsert":
            recipient = body["users"][0]["identifiers"]["email"]
        case "mail.send":
            recipient = body["tos"][0]["email"]
        case _:
            recipient = body["to"]
    assert isinstance(recipient, str)
    return recipient
