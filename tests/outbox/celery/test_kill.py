"""Kill -9, of web processes and of workers, at random moments: what was promised is sent, or is a visible dead letter.

The web processes of this test defer calls without pause. Whoever is killed is started anew at once.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from insider_otel.testing import FakeInsider
from tests.outbox.celery import shop
from tests.outbox.celery.broker import Broker
from tests.outbox.celery.conftest import ROOT

ROUNDS = int(os.environ.get("INSIDER_OTEL_KILL_ROUNDS", "40"))
"""Rounds of killing, a second each. 200 take over three minutes: ``INSIDER_OTEL_KILL_ROUNDS=200``."""

SEED = 20_261_123
_PATIENCE = 30.0
_LONGEST_LIFE = 0.3
_VISIBILITY_TIMEOUT = 10.0
_FATES = ("delay:0.03:ok", "ok", "delay:0.1:ok", "503", "ok", "reset")
"""What the fake does with one request after another; with a delay it has taken the call before it says so."""


class Shop:
    """The app's processes: one web process and one worker.

    Args:
        environment: Their variables.
        log: Where they write what they have to say.
    """

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        with log.open("wb") as out:
            self._nursery = subprocess.Popen(
                [sys.executable, "-m", "tests.outbox.celery.nursery"],
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=out,
                text=True,
            )
        self._writers = 0
        self.writer = self._fork("writer 0")
        self.worker = self._fork("worker")

    def kill_writer(self) -> None:
        """Kill the web process, and start another."""
        _kill_group(self.writer)
        self._writers += 1
        self.writer = self._fork(f"writer {self._writers}")

    def kill_worker(self) -> None:
        """Kill the worker with its children, and start another."""
        _kill_group(self.worker)
        self.worker = self._fork("worker")

    def kill_main(self) -> None:
        """Kill the worker's main process, whose children are on their own then, and start another."""
        os.kill(self.worker, signal.SIGKILL)
        self.worker = self._fork("worker")

    def kill_child(self, chance: random.Random) -> None:
        """Kill one of the worker's children, which it replaces."""
        command = ["ps", "-o", "pid=", "--ppid", str(self.worker)]
        children = subprocess.run(command, check=False, capture_output=True, text=True).stdout.split()
        if children:
            with suppress(ProcessLookupError):
                os.kill(int(chance.choice(children)), signal.SIGKILL)

    def close(self) -> None:
        """Kill them all."""
        for pid in (self.writer, self.worker):
            _kill_group(pid)
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.close()
        self._nursery.wait(_PATIENCE)
        self._nursery.stdout.close()

    def _fork(self, what: str) -> int:
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        self._nursery.stdin.write(f"{what}\n")
        self._nursery.stdin.flush()
        return int(self._nursery.stdout.readline())


def _kill_group(pid: int) -> None:
    with suppress(ProcessLookupError):
        os.killpg(pid, signal.SIGKILL)


@pytest.fixture
def ledger(tmp_path: Path) -> Path:
    """Where web processes note what was promised to be sent."""
    path = tmp_path / "ledger"
    path.touch()
    return path


@pytest.fixture
def running(environment: dict[str, str], ledger: Path, url: str, tmp_path: Path) -> Iterator[Shop]:
    places = {"SHOP_LEDGER": str(ledger), "SHOP_URL": url}
    running = Shop(
        {**environment, **places, "SHOP_VISIBILITY_TIMEOUT": str(_VISIBILITY_TIMEOUT)}, tmp_path / "processes.log"
    )
    yield running
    running.close()


def _wait_for_a_request(fake: FakeInsider) -> None:
    """Until a worker works: to kill one that has not begun shows nothing."""
    seen, deadline = len(fake.requests), time.monotonic() + _PATIENCE
    while len(fake.requests) == seen:
        assert time.monotonic() < deadline, "no worker sends anything any more"
        time.sleep(0.005)


def _arrivals(fake: FakeInsider) -> Counter[tuple[str, str]]:
    """How often Insider took a call, by its operation and whom it was about."""
    taken = [request for request in fake.requests if request.accepted]
    return Counter((request.operation, shop.recipient_of(request.operation, request.json)) for request in taken)


@pytest.mark.once
def test_every_call_that_was_promised_arrives_or_is_a_visible_dead_letter(
    fake: FakeInsider, running: Shop, ledger: Path, broker: Broker, eventually: Callable[..., None]
) -> None:
    for operation in ("user.upsert", "mail.send", "sms.send"):
        fake.script(operation, *_FATES, repeat=True)
    chance, killed = random.Random(SEED), Counter[str]()
    for _ in range(ROUNDS):
        _wait_for_a_request(fake)
        time.sleep(chance.uniform(0.0, _LONGEST_LIFE))
        what = chance.choice(("writer", "worker", "both", "main", "child"))
        killed[what] += 1
        if what in {"writer", "both"}:
            running.kill_writer()
        if what in {"worker", "both"}:
            running.kill_worker()
        if what == "main":
            running.kill_main()
        if what == "child":
            running.kill_child(chance)
    _kill_group(running.writer)

    promised = [shop.Accepted(*line.split()) for line in ledger.read_text().splitlines()]
    eventually(lambda: not broker.messages() and broker.held() == 0, 240.0)
    arrivals, dead = _arrivals(fake), {job.id: job.stopped for job in broker.dead()}
    lost = [call for call in promised if not arrivals[call.operation, call.recipient] and call.job not in dead]
    twice = Counter(operation for (operation, _), times in arrivals.items() if times > 1)
    print(
        f"\n{ROUNDS} rounds, killed {dict(killed)}: {len(promised)} promised, {len(lost)} lost, more than once "
        f"{dict(twice)}, dead letters {dict(Counter(dead.values()))}, {len(fake.requests)} requests"
    )
    assert not lost
    assert len(promised) > ROUNDS
    # Whatever may have been processed is sent again only where that does no harm: a text message never, and mail only
    # while Insider ignores a repeat. What is not known to have arrived is a dead letter that says so.
    assert set(twice) <= {"user.upsert"}
    assert set(dead.values()) <= {"unsafe"}
    assert {call.operation for call in promised if call.job in dead} <= {"sms.send"}
