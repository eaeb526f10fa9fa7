"""`insider-otel outbox run` sends what waits, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from insider_otel.testing import deliver_outbox, sample_request

from .outbox_shop import Shop

PATIENCE = 60.0
_OTHER_CREDENTIALS = json.dumps({"X-API-KEY": "not-of-these-calls"})

Worker = Callable[..., subprocess.Popen[str]]

pytestmark = pytest.mark.usefixtures("nothing_is_set")


@pytest.fixture
def served(shop: Shop) -> Iterator[dict[str, str]]:
    """The environment of a process that sends to the shop's Insider."""
    with shop.fake.serve() as server:
        shop.settings["hosts"] = server.hosts
        shop.base_url = server.url
        credentials = json.dumps(sample_request("user.upsert").headers)
        yield {
            **os.environ,
            "INSIDER_OTEL_OUTBOX": f"sqlite:///{shop.path}",
            "INSIDER_OTEL_HOSTS": json.dumps(server.hosts),
            "INSIDER_OTEL_CREDENTIALS_UNIFICATION": credentials,
        }


@pytest.fixture
def worker(served: dict[str, str]) -> Iterator[Worker]:
    """Starts `insider-otel outbox run`, in a process that does not outlive the test."""
    started: list[subprocess.Popen[str]] = []

    def start(*arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "insider_otel", "outbox", "run", *arguments]
        pipe = subprocess.PIPE
        started.append(subprocess.Popen(command, env=served, stdout=pipe, stderr=pipe, text=True))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.communicate()


def ended(process: subprocess.Popen[str]) -> str:
    """What a process that ends well has printed."""
    try:
        out, err = process.communicate(timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"it does not end: {out} {err}") from None
    assert process.returncode == 0, err
    return out


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_draining_sends_what_is_due_and_leaves_the_rest(shop: Shop, worker: Worker) -> None:
    for _ in range(5):
        shop.defer()
    shop.fake.script("user.upsert", "503", "503", "503", repeat=True)
    with shop.client() as client:
        # Due in minutes: a retry is spread over five of them.
        assert deliver_outbox(client) == 5
    shop.fake.reset()
    for _ in range(20):
        shop.defer()
    printed = json.loads(ended(worker("--drain", "--json")))
    sent = len(shop.fake.requests)
    assert sent >= 20
    assert printed == {"sent": sent, "given_up": 0, "waiting": 25 - sent, "dead": 0}


def test_draining_says_how_many_were_sent_or_given_up_and_what_is_left(shop: Shop, worker: Worker) -> None:
    shop.dead()
    shop.fake.reset()
    for _ in range(2):
        shop.defer()
    shop.fake.script("user.upsert", "400")
    assert "1 sent, 1 given up. The outbox has 0 waiting, 2 dead." in ended(worker("--drain"))


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_when_what_is_being_sent_is_done_and_the_rest_is_given_back(
    number: signal.Signals, shop: Shop, worker: Worker
) -> None:
    for _ in range(3):
        shop.defer()
    shop.fake.script("user.upsert", "delay:1.5", repeat=True)
    process = worker("--concurrency", "1")
    until(lambda: len(shop.fake.requests) == 1)
    process.send_signal(number)
    assert "2 waiting, 0 dead" in ended(process)
    assert len(shop.fake.requests) == 1
    assert shop.store.stats().leased == 0


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")
def test_it_waits_for_work_and_sends_it_when_it_comes(shop: Shop, worker: Worker) -> None:
    process = worker()
    assert process.stdout is not None
    assert "Sending the jobs of sqlite:///" in process.stdout.readline()
    until(shop.path.exists)
    assert stat.S_IMODE(shop.path.stat().st_mode) == 0o600
    shop.defer()
    until(lambda: len(shop.fake.requests) == 1)
    process.send_signal(signal.SIGTERM)
    assert "0 waiting, 0 dead" in ended(process)


def test_draining_an_outbox_that_stays_in_trouble_ends_with_an_error(shop: Shop, worker: Worker) -> None:
    # What is no database is never mended; a directory that forbids is none to root.
    shop.path.write_bytes(b"no database" * 1000)
    process = worker("--drain")
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 1
    assert f"insider-otel: the outbox cannot be used: sqlite:///{shop.path}: " in err.splitlines()[-1]
    assert "Traceback" not in err


def test_who_has_no_credentials_to_send_with_is_told_at_the_start(shop: Shop, outbox: Callable[..., str]) -> None:
    assert "INSIDER_OTEL_CREDENTIALS_" in outbox("run", "--drain", status=2)


@pytest.mark.parametrize("number", ["0", "1000"])
def test_a_number_of_calls_at_a_time_that_makes_no_sense_is_refused(
    number: str, outbox: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSIDER_OTEL_CREDENTIALS_UNIFICATION", _OTHER_CREDENTIALS)
    assert "--concurrency" in outbox("run", "--concurrency", number, status=2)


def test_a_job_that_waits_for_credentials_says_what_to_do(
    shop: Shop, outbox: Callable[..., str], worker: Worker, served: dict[str, str]
) -> None:
    name = shop.defer()
    served["INSIDER_OTEL_CREDENTIALS_UNIFICATION"] = _OTHER_CREDENTIALS
    assert "0 sent, 0 given up. The outbox has 1 waiting" in ended(worker("--drain"))
    shown = outbox("show", name)
    assert "configuration" in shown
    assert "put them into INSIDER_OTEL_CREDENTIALS_UNIFICATION" in shown
