"""What the library really exports, under the names that Prometheus gives it."""

from __future__ import annotations

import json
import re
from functools import cache
from tempfile import TemporaryDirectory
from typing import Any

import httpx
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import Gauge, Histogram, InMemoryMetricReader, Metric, Sum
from opentelemetry.sdk.trace import ReadableSpan

from insider_otel import InsiderTransport, Settings, defer
from insider_otel.testing import CapturedSpans, FakeClock, FakeInsider, deliver_outbox

UPSERT = "https://unification.useinsider.com/api/user/v1/upsert"
MAIL = "https://mail.useinsider.com/mail/v1/send"
USER = {"users": [{"identifiers": {"email": "jane@example.com"}, "attributes": {"name": "Jane"}}]}
NOBODY = {"identifiers": {}, "attributes": {"name": "Nobody"}}
LETTER = {
    "subject": "Your order",
    "tos": [{"email": "jane@example.com", "name": "Jane"}],
    "from": {"email": "shop@example.com", "name": "Shop"},
    "content": [{"type": "text/html", "value": "<p>Thank you.</p>"}],
}
KEYS = {"X-PARTNER-NAME": "invented", "X-REQUEST-TOKEN": "invented-token", "X-INS-AUTH-KEY": "invented-key"}


@cache
def shop_day() -> tuple[dict[str, frozenset[str]], tuple[ReadableSpan, ...]]:
    """A day in which everything happens: what it left in Prometheus, and its spans.

    Returns:
        The labels of each series by its name; the spans.
    """
    with TemporaryDirectory() as folder:
        return _day(f"sqlite:///{folder}/outbox.db")


def _day(outbox: str) -> tuple[dict[str, frozenset[str]], tuple[ReadableSpan, ...]]:
    fake, spans, clock, reader = FakeInsider(), CapturedSpans(), FakeClock(), InMemoryMetricReader()
    provider = MeterProvider([reader])

    def shop(**settings: Any) -> httpx.Client:
        transport = InsiderTransport(
            fake.transport(),
            settings=Settings(deadline=60.0, **settings),
            tracer_provider=spans.tracer_provider,
            meter_provider=provider,
            clock=clock,
            sleep=clock.sleep,
            random=lambda: 0.5,
        )
        return httpx.Client(transport=transport, headers=KEYS)

    later = {"outbox": outbox, "credentials": lambda operation, account: KEYS}
    with shop() as client, shop(quick_retries=0, **later) as patient:
        client.post(UPSERT, json={"users": [*USER["users"], NOBODY]})
        # Tried twice; refused; limited for longer than the deadline; held back until the limit ends.
        fake.script("user.upsert", "503", "ok", "401", "429")
        for _ in range(4):
            client.post(UPSERT, json=USER)
        client.post(MAIL, json=LETTER)
        client.post(MAIL, json=LETTER)
        # Sent later, in vain at first.
        assert defer(patient, patient.build_request("POST", UPSERT, json=USER)).status_code == 202
        fake.script("user.upsert", "503")
        assert [deliver_outbox(patient), deliver_outbox(patient, ahead=3600.0)] == [1, 1]
        data = reader.get_metrics_data()
    assert data is not None
    series: dict[str, frozenset[str]] = {}
    for metric in (m for r in data.resource_metrics for scope in r.scope_metrics for m in scope.metrics):
        labels = {underscored(str(label)) for point in metric.data.data_points for label in point.attributes or {}}
        series |= {name: frozenset(labels | more) for name, more in names_in_prometheus(metric).items()}
    return series, tuple(spans.all())


def underscored(name: str) -> str:
    """A name as Prometheus has it, without the dots."""
    return re.sub(r"\W", "_", name)


def names_in_prometheus(metric: Metric) -> dict[str, set[str]]:
    """The names of a metric's series and the labels they have beside its own, after Prometheus' OTLP translation."""
    name = underscored(metric.name) + {"s": "_seconds"}.get(metric.unit or "", "")
    match metric.data:
        case Histogram():
            return {f"{name}_bucket": {"le"}, f"{name}_count": set(), f"{name}_sum": set()}
        case Sum(is_monotonic=True):
            return {f"{name}_total": set()}
        case Gauge():
            return {name + ("_ratio" if metric.unit == "1" else ""): set()}
        case _:
            raise ValueError(f"{metric.name} is of a kind that the library did not export before; teach it here")


def texts(spans: tuple[ReadableSpan, ...]) -> dict[str, str]:
    """Every attribute that is exported, by name, as text."""
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for span in spans
        for attributes in (span.attributes, *(event.attributes for event in span.events))
        for name, value in (attributes or {}).items()
    }
