"""A real broker, a fake Insider on a socket, and the app's Celery between them."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from insider_otel.outbox import opening
from insider_otel.outbox.celery_outbox import CeleryOutbox
from insider_otel.testing import FakeInsider
from insider_otel.testing.server import ServedFake
from tests.outbox.celery import shop
from tests.outbox.celery.broker import Broker
from tests.state.redis_server import RedisServer, redis_server, skip_without_program

ROOT = Path(__file__).parents[3]
PASSWORD = "planted-password-77aa"


@pytest.fixture(scope="package")
def redis_process() -> Iterator[RedisServer]:
    skip_without_program()
    with redis_server("--requirepass", PASSWORD, tcp=True) as server:
        yield server


@pytest.fixture(scope="package")
def served_fake() -> Iterator[tuple[FakeInsider, ServedFake]]:
    fake = FakeInsider(credentials={"X-REQUEST-TOKEN": shop.TOKEN, "X-INS-AUTH-KEY": shop.TOKEN})
    with fake.serve() as served:
        yield fake, served


@pytest.fixture
def fake(served_fake: tuple[FakeInsider, ServedFake]) -> FakeInsider:
    served_fake[0].reset()
    return served_fake[0]


@pytest.fixture
def url(served_fake: tuple[FakeInsider, ServedFake]) -> str:
    """Where the fake is served."""
    return served_fake[1].url


@pytest.fixture
def broker(redis_process: RedisServer) -> Iterator[Broker]:
    """An empty broker."""
    broker = Broker(redis_process.url_as(f":{PASSWORD}"))
    broker.clear()
    yield broker
    broker.close()


@pytest.fixture
def environment(
    broker: Broker, served_fake: tuple[FakeInsider, ServedFake], monkeypatch: pytest.MonkeyPatch
) -> dict[str, str]:
    """The variables of the app's processes, of which this one is one."""
    variables = shop.variables(broker.url, served_fake[1].hosts)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    return variables


@pytest.fixture(autouse=True)
def without_django(monkeypatch: pytest.MonkeyPatch) -> None:
    """The app is no Django project, but Celery takes it for the one that this variable of the adapter's tests names."""
    monkeypatch.delenv("DJANGO_SETTINGS_MODULE", raising=False)


@pytest.fixture(autouse=True)
def forget_apps() -> Iterator[None]:
    """The current app is the process's, and so are the outboxes that found one."""
    opening._outboxes.clear()
    yield
    for outbox in opening.all_outboxes():
        assert isinstance(outbox, CeleryOutbox)
        outbox.close()
    opening._outboxes.clear()
    shop.app.set_current()


@pytest.fixture
def client(environment: dict[str, str], broker: Broker) -> Iterator[httpx.Client]:
    """A client as a web process has it."""
    shop.make_app(broker.url)
    with shop.open_client() as client:
        yield client


@pytest.fixture
def start_worker(environment: dict[str, str], tmp_path: Path) -> Iterator[Callable[..., Path]]:
    """Starts a worker in a process of its own, with other variables if need be; returns the path of its log."""
    started: list[subprocess.Popen[bytes]] = []

    def start(**others: str) -> Path:
        log = tmp_path / "worker.log"
        command = ("-A", "tests.outbox.celery.shop", "worker", "--queues", shop.QUEUE, "--concurrency", "2")
        with log.open("wb") as out:
            process = subprocess.Popen(
                [sys.executable, "-m", "celery", *command, "--loglevel", "INFO"],
                cwd=ROOT,
                env={**os.environ, **environment, "SHOP_SPANS": str(tmp_path / "spans"), **others},
                stdout=out,
                stderr=out,
            )
        started.append(process)
        return log

    yield start
    for process in started:
        process.terminate()
    for process in started:
        process.wait(30)


@pytest.fixture
def outbox(broker: Broker) -> Iterator[CeleryOutbox]:
    shop.make_app(broker.url)
    outbox = CeleryOutbox(shop.QUEUE)
    yield outbox
    outbox.close()


@pytest.fixture
def eventually() -> Callable[..., None]:
    """Waits until something is so."""

    def wait(holds: Callable[[], bool], seconds: float = 60.0) -> None:
        deadline = time.monotonic() + seconds
        while not holds():
            assert time.monotonic() < deadline, "it never came to be"
            time.sleep(0.02)

    return wait
