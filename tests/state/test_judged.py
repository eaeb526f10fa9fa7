"""Insider's own limiter as the judge: many workers at full demand are never told "too many", and waste nothing."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from insider_otel.testing import FakeInsider

from .redis_server import RedisServer, skip_without_program

pytestmark = pytest.mark.once

DEMAND = Path(__file__).with_name("demand.py")
LIMIT = "300/10s"
WORKERS = 8
SECONDS = 30.0
ALLOWED = 900
"""What 300 in any 10 s allow in 30 s: 300 at once, and as many again 10 s and 20 s later."""


def demand(url: str, state: str) -> Counter[str]:
    """The answers to all calls of eight processes, each with four threads and four event loops."""
    begin = time.time() + 12  # eight interpreters start on few cores
    command = [sys.executable, str(DEMAND), url, state, LIMIT, str(begin), str(SECONDS)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(WORKERS)]
    answers: Counter[str] = Counter()
    for process in processes:
        output, _ = process.communicate(timeout=SECONDS + 60)
        assert process.returncode == 0
        answers.update(json.loads(output))
    return answers


@pytest.fixture
def state(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'state.db'}?timeout=2"
    skip_without_program()
    server: RedisServer = request.getfixturevalue("redis_for_all")
    return f"{server.url}?timeout=2&prefix=judged"


@pytest.mark.parametrize("state", ["sqlite", "redis"], indirect=True)
def test_eight_processes_at_full_demand_are_never_told_too_many_and_use_what_is_allowed(state: str) -> None:
    fake = FakeInsider(clock=time.monotonic, limits={"catalog.ingest": LIMIT})
    with fake.serve() as served:
        answers = demand(served.url, state)
    assert all(request.accepted for request in fake.requests), answers
    assert answers["200"] == len(fake.requests), answers
    assert answers["200"] >= 0.97 * ALLOWED, answers
