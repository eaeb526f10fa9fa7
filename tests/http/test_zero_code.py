"""``opentelemetry-instrument``, the real command in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from .wire import Reply, Wire

APP = """
import sys, httpx
from insider_otel import call_of
response = httpx.post(sys.argv[1] + "/api/user/v1/upsert", json={"users": []})
call = call_of(response)
print("CALL", response.status_code, call.attempts, call.outcome)
print("OTHER", httpx.get(sys.argv[1].replace("127.0.0.1", "localhost") + "/other").status_code)
"""


@pytest.mark.parametrize(("mode", "line"), [(None, "CALL 503 1 failed"), ("enforce", "CALL 200 2 succeeded")])
def test_zero_code_observes_unless_told_to_enforce(server: Wire, tmp_path: Path, mode: str | None, line: str) -> None:
    command = Path(sys.executable).with_name("opentelemetry-instrument")
    script = tmp_path / "app.py"
    script.write_text(APP)
    server.script = [Reply(status=503)]
    environ = {
        **os.environ,
        "INSIDER_OTEL_HOSTS": json.dumps({server.address: "unification.useinsider.com"}),
        "OTEL_TRACES_EXPORTER": "console",
        "OTEL_METRICS_EXPORTER": "none",
        "OTEL_LOGS_EXPORTER": "none",
        **({"INSIDER_OTEL_MODE": mode} if mode else {}),
    }
    arguments = [str(command), sys.executable, str(script), server.url]
    ran = subprocess.run(arguments, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert line in ran.stdout, ran.stderr
    assert "OTHER 200" in ran.stdout
    names = [text.split('"')[3] for text in ran.stdout.splitlines() if text.startswith('    "name": ')]
    attempts = 1 if mode is None else 2
    assert names.count("insider user.upsert") == 1
    assert names.count("POST /api/user/v1/upsert") == attempts
    # The stock instrumentation, which the command turns on too, traces the other host and nothing else.
    assert names.count("GET") == 1
    assert names.count("POST") == 0


OTHERS = """
import sqlite3
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from opentelemetry.instrumentation.sqlite3 import SQLite3Instrumentor
print("OTHERS", *(each().is_instrumented_by_opentelemetry for each in (HTTPXClientInstrumentor, SQLite3Instrumentor)))
"""


@pytest.mark.parametrize(
    "mistake",
    [
        {"INSIDER_OTEL_EVENTS": "spans"},
        {"INSIDER_OTEL_OUTBOX": "sqlite:////nowhere/at/all/outbox.db"},
        {"INSIDER_OTEL_STATE": "sqlite:////nowhere/at/all/state.db", "INSIDER_OTEL_MODE": "enforce"},
    ],
    ids=["events", "outbox", "state"],
)
def test_a_mistake_in_our_settings_costs_an_app_none_of_its_other_instrumentations(
    tmp_path: Path, mistake: dict[str, str]
) -> None:
    pytest.importorskip("opentelemetry.instrumentation.sqlite3", reason="comes with the newest dependencies only")
    command = Path(sys.executable).with_name("opentelemetry-instrument")
    script = tmp_path / "app.py"
    script.write_text(OTHERS)
    exporters = {f"OTEL_{signal}_EXPORTER": "none" for signal in ("TRACES", "METRICS", "LOGS")}
    arguments = [str(command), sys.executable, str(script)]
    environ = {**os.environ, **exporters, **mistake}
    ran = subprocess.run(arguments, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert "OTHERS True True" in ran.stdout, ran.stderr
    assert "Traceback" not in ran.stderr
