"""The shop of the example exports what the dashboards show, and its dial turns."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from types import ModuleType

import httpx
import pytest
from insider_testkit.otlp import otlp_receiver  # type: ignore[import-not-found]  # pytest finds it by pythonpath

from insider_otel.telemetry import attributes
from insider_otel.testing import FakeInsider

from .exported import KEYS, UPSERT, USER
from .metrics_receiver import metrics_receiver
from .promtool import OBSERVABILITY

fastapi = pytest.importorskip("fastapi", reason="the shop is a FastAPI app; the dependency group web has it")

SCRIPT = OBSERVABILITY / "shop" / "run.py"


@pytest.mark.once
def test_visitors_leave_traces_and_metrics() -> None:
    with otlp_receiver() as receiver, metrics_receiver() as (metrics_url, metrics):
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "INSIDER_OTEL_"))}
        ran = subprocess.run(
            [sys.executable, str(SCRIPT), "--port", "0", "--visits", "2", "--pause", "0"],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env={**kept, **receiver.environ, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": metrics_url},
        )
    assert ran.returncode == 0, ran.stderr
    spans = receiver.spans()
    assert {span.resource["service.name"] for span in spans} == {"shop"}
    assert {span.attributes.get(attributes.OUTCOME) for span in spans} == {None, "succeeded", "partly_failed"}
    (page,) = [span for span in spans if span.name == "POST /catalog"]
    assert page.attributes["http.route"] == "/catalog"
    assert page.summary["failed_calls"] == 1
    by_name = {metric.name: metric for metric in metrics}
    assert set(by_name) >= {attributes.METRIC_RECORDS, attributes.METRIC_REQUEST_DURATION}
    points = by_name[attributes.METRIC_CALL_DURATION].histogram.data_points
    exemplars = {exemplar.trace_id.hex() for point in points for exemplar in point.exemplars}
    assert exemplars
    assert exemplars <= {span.trace_id for span in spans}, "a point leads to its trace"


def shop_script() -> ModuleType:
    spec = importlib.util.spec_from_file_location("observability_shop", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.anyio
async def test_the_dial_says_how_insider_fares() -> None:
    app, fake = fastapi.FastAPI(), FakeInsider()
    shop_script().add_dial(app, fake)

    def answers() -> list[int]:
        with httpx.Client(transport=fake.transport(), headers=KEYS) as client:
            return [client.post(UPSERT, json=USER).status_code for _ in range(3)]

    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as hand:
        await hand.put("/dial", params={"steps": "503,ok"})
        assert answers() == [503, 200, 503]
        refused = await hand.put("/dial", params={"steps": "nonsense"})
        assert (refused.status_code, "nonsense" in refused.text) == (422, True)
        await hand.delete("/dial")
        assert answers() == [200, 200, 200]
