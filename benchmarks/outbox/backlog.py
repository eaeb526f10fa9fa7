"""A backlog that is worked off in real time: two worker processes, and Insider on a socket that holds its limit."""

from __future__ import annotations

import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from subprocess import PIPE, Popen
from sys import executable, stdin

import httpx

from benchmarks.common.calls import UPSERT
from benchmarks.outbox.shop import LATER, Curve, curve, settings_for, users
from insider_otel.delivery.worker import Worker
from insider_otel.http.engine import Engine
from insider_otel.http.transport import EngineTransport
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.testing import FakeInsider
from insider_otel.testing._wire import Plan, Request

JOBS = 3_000
LIMIT = "3600/60s"
WORKERS = 2
_BOUND = 300.0
_WORKER = "import sys; from benchmarks.outbox.backlog import work; work(*sys.argv[1:])"


class TimedInsider(FakeInsider):
    """Notes when each request came."""

    moments: list[float]

    def handle(self, request: Request) -> Plan:
        """Decide what happens to a request."""
        self.moments.append(time.monotonic())
        return super().handle(request)


def work_off(jobs: int = JOBS) -> Curve:
    """Defer calls while nothing is sent, then start the workers.

    Args:
        jobs: How many.
    """
    pool = UPSERT.operation.pool
    fake = TimedInsider(limits={pool: LIMIT})
    fake.moments = []
    with tempfile.TemporaryDirectory() as directory, fake.serve() as served:
        path = Path(directory, "outbox.db")
        engine = Engine(settings_for(path, LIMIT, served.hosts))
        with httpx.Client(transport=EngineTransport(engine, httpx.MockTransport(_unreachable))) as client:
            for number in range(jobs):
                url = f"{served.url}{UPSERT.operation.path}"
                client.post(url, headers=UPSERT.headers, json=users(number), extensions=LATER)
        store = SQLiteOutbox(path, timeout=_BOUND)
        assert store.stats().waiting == jobs, "every call was answered with 202"
        began = time.monotonic()
        with _workers(path, served.port):
            while store.stats().waiting and time.monotonic() < began + _BOUND:
                time.sleep(0.5)
        stats = store.stats()
        store.close()
    taken = Counter(str(each.json) for each in fake.accepted("user.upsert"))
    seconds = curve([moment - fake.moments[0] for moment in fake.moments])
    return Curve(
        seconds=seconds,
        # The last second is over before it is full.
        drained=slice(0, len(seconds) - 1),
        refused=sum(each.status == 429 for each in fake.requests),
        delivered=len(taken),
        twice=sum(count > 1 for count in taken.values()),
        left=stats.waiting + stats.dead,
    )


def _unreachable(request: httpx.Request) -> httpx.Response:
    raise AssertionError("a deferred call is not sent")


@contextmanager
def _workers(path: Path, port: int) -> Iterator[None]:
    command = [executable, "-c", _WORKER, str(path), str(port)]
    processes = [Popen(command, stdin=PIPE) for _ in range(WORKERS)]
    try:
        yield
    finally:
        for process in processes:
            process.communicate(timeout=_BOUND)


def work(path: str, port: str) -> None:
    """Work until standard input ends.

    Args:
        path: The outbox.
        port: Insider's.
    """
    worker = Worker(Engine(settings_for(Path(path), LIMIT, {f"127.0.0.1:{port}": "*"})))
    worker.start()
    stdin.read()
    worker.stop()
