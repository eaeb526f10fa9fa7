"""What an app deferred is sent by a thread of the processes that serve; in tests, when a test wants it."""

from __future__ import annotations

import gc
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from insider_otel import InsiderTransport, Settings, SettingsError, defer
from insider_otel.http.engine import Engine
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.testing import FakeClock, FakeInsider, deliver_outbox, sample_request, set_testing
from insider_otel.testing.server import ServedFake
from insider_otel.web import WebApp, WebOptions
from insider_otel.web.delivering import PAUSE, OutboxWorker

PATIENCE = 60.0
THREAD = "insider-otel outbox"
UPSERT = sample_request("user.upsert")

Make = Callable[..., WebApp]


def credentials(operation: Any, account: str | None) -> dict[str, str]:
    return sample_request(operation.name).headers


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes apps with an outbox, and closes them."""
    apps: list[WebApp] = []

    def make(module: ModuleType = httpx, *, outbox_worker: bool = True, **settings: Any) -> WebApp:
        chosen = Settings(outbox=f"sqlite:///{tmp_path}/outbox.db", credentials=credentials, **settings)
        options = WebOptions(settings=chosen, instrument=False, outbox_worker=outbox_worker)
        apps.append(WebApp(options, module=module))
        return apps[-1]

    yield make
    for app in apps:
        app.close()


def put(app: WebApp, base_url: str | None = None) -> None:
    """Have a call sent later, as a view would."""
    sample = sample_request("user.upsert", base_url=base_url)
    client = app.clients().client()
    request = client.build_request(sample.method, sample.url, headers=sample.headers, content=sample.content)
    assert defer(client, request).status_code == 202


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def works(app: WebApp) -> bool:
    app.open_scope().close()
    return any(thread.name == THREAD for thread in threading.enumerate())


@pytest.mark.parametrize("module", [httpx, httpx2], ids=["httpx", "httpx2"])
def test_what_a_request_deferred_is_sent_by_the_apps_own_client(module: ModuleType, make: Make) -> None:
    app, fake = make(module), FakeInsider()
    with app.override(fake):
        app.open_scope().close()
        put(app)
        until(lambda: len(fake.requests) == 1)
        assert fake.requests[0].status == 200
    assert not any(thread.name == THREAD for thread in threading.enumerate())


def test_one_worker_serves_all_requests_of_a_process(make: Make) -> None:
    app = make()
    begun = [threading.Thread(target=app.open_scope) for _ in range(8)]
    for thread in begun:
        thread.start()
    for thread in begun:
        thread.join()
    assert sum(thread.name == THREAD for thread in threading.enumerate()) == 1


def test_no_thread_is_started_before_a_request(make: Make) -> None:
    app = make()
    with app.override(FakeInsider()):
        put(app)
        assert not any(thread.name == THREAD for thread in threading.enumerate())


def test_nothing_is_sent_by_who_only_observes_or_has_another_process_for_it(make: Make) -> None:
    assert not works(make(mode="observe"))
    assert not works(make(outbox_worker=False))
    assert works(make())


def test_an_app_without_an_outbox_has_no_worker() -> None:
    assert not works(WebApp(WebOptions(instrument=False)))


def test_a_test_sends_what_was_deferred_when_it_wants(make: Make) -> None:
    app, fake = make(), FakeInsider()
    with set_testing(hold=True), app.override(fake):
        assert not works(app)
        put(app)
        put(app)
        assert fake.requests == []
        assert deliver_outbox(app.clients().client()) == 2
        assert len(fake.requests) == 2
        assert deliver_outbox(app.clients().client()) == 0


def test_what_fails_in_a_test_goes_back_and_can_be_sent_ahead_of_its_time(make: Make) -> None:
    app, fake = make(quick_retries=0), FakeInsider()
    fake.script("user.upsert", "503")
    with set_testing(hold=True), app.override(fake):
        put(app)
        client = app.clients().client()
        assert deliver_outbox(client) == 1
        assert deliver_outbox(client, ahead=3600.0) == 1
        assert [request.status for request in fake.requests] == [503, 200]


def test_calls_of_a_line_are_sent_in_their_order_in_one_go(make: Make) -> None:
    app, fake = make(), FakeInsider()
    with set_testing(hold=True), app.override(fake):
        client = app.clients().client()
        for name in ("Jane", "Janet", "June"):
            body = {"users": [{"identifiers": {"email": "jane@example.com"}, "attributes": {"name": name}}]}
            request = client.build_request("POST", UPSERT.url, headers=UPSERT.headers, json=body)
            defer(client, request, ordering_key="jane@example.com")
        assert deliver_outbox(client) == 3
    sent = [request.json["users"][0]["attributes"]["name"] for request in fake.requests]
    assert sent == ["Jane", "Janet", "June"]


def test_a_test_whose_client_cannot_deliver_is_told_why() -> None:
    with httpx.Client() as plain, pytest.raises(ValueError, match="adapter's client"):
        deliver_outbox(plain)
    with pytest.raises(ValueError, match="sync client"):
        deliver_outbox(httpx.AsyncClient())
    transport = InsiderTransport(FakeInsider().transport(), settings=Settings())
    with httpx.Client(transport=transport) as client, pytest.raises(SettingsError, match="INSIDER_OTEL_OUTBOX"):
        deliver_outbox(client)


@pytest.mark.parametrize("given", [0, 1, 16])
def test_a_system_without_more_threads_breaks_no_request_and_the_worker_starts_when_it_has_some(
    given: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """It is said once, and not tried with each request; whichever of its threads the system does not give."""
    clock = FakeClock()
    settings = Settings(outbox=f"sqlite:///{tmp_path}/outbox.db", credentials=credentials)
    client = httpx.Client()
    worker = OutboxWorker(Engine(settings, clock=clock), lambda: client, wanted=True)
    start_thread, tried = threading.Thread.start, list[str]()

    def start(thread: threading.Thread) -> None:
        tried.append(thread.name)
        if len(tried) > given:
            raise RuntimeError("can't start new thread")
        start_thread(thread)

    def starts_after(seconds: float) -> bool:
        clock.advance(seconds)
        worker.start()
        return worker.is_alive

    with monkeypatch.context() as at_the_limit:
        at_the_limit.setattr(threading.Thread, "start", start)
        assert [starts_after(seconds) for seconds in (0.0, 0.0, PAUSE)] == [False] * 3
    assert len(tried) == given + 2
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "can't start new thread" in caplog.text
    assert [starts_after(seconds) for seconds in (0.0, PAUSE)] == [False, True]
    worker.stop()
    client.close()


def test_an_app_that_is_closed_or_forgotten_has_no_worker_any_more(make: Make, tmp_path: Path) -> None:
    app = make()
    assert works(app)
    app.close()
    assert not any(thread.name == THREAD for thread in threading.enumerate())
    settings = Settings(outbox=f"sqlite:///{tmp_path}/other.db", credentials=credentials)
    forgotten = WebApp(WebOptions(settings=settings, instrument=False))
    assert works(forgotten)
    del forgotten
    gc.collect()
    # Its thread knows the app for as long as it opens a client.
    until(lambda: not any(thread.name == THREAD for thread in threading.enumerate()))


@pytest.mark.anyio
async def test_the_worker_ends_with_the_lifespan_of_an_app_and_comes_back_with_the_next_request(make: Make) -> None:
    app = make()
    assert works(app)
    await app.close_clients()
    assert not any(thread.name == THREAD for thread in threading.enumerate())
    assert works(app)


@pytest.fixture
def fake() -> FakeInsider:
    return FakeInsider()


@pytest.fixture
def served(fake: FakeInsider) -> Iterator[ServedFake]:
    with fake.serve() as served:
        yield served


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_worker_of_its_own(make: Make, fake: FakeInsider, served: ServedFake) -> None:
    app = make(hosts=served.hosts)
    assert works(app)
    app.clients().client()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            before = [thread.name for thread in threading.enumerate()]
            status = 0 if THREAD not in before and works(app) else 2
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    put(app, served.url)
    until(lambda: len(fake.requests) == 1)


PROCESS = """
import json, os, sys
import httpx
from insider_otel import Settings, defer
from insider_otel.testing import sample_request
from insider_otel.web import WebApp, WebOptions

app = WebApp(WebOptions(settings=Settings.from_env(), instrument=False))
app.open_scope().close()
client = app.clients().client()
sample = sample_request("user.upsert", base_url=sys.argv[1])
for _ in range(20):
    request = client.build_request(sample.method, sample.url, headers=sample.headers, content=sample.content)
    assert defer(client, request).status_code == 202
print("served")
"""


def test_a_process_that_ends_sees_through_what_is_being_sent_and_leaves_the_rest(
    tmp_path: Path, fake: FakeInsider, served: ServedFake
) -> None:
    fake.script("user.upsert", "delay:0.2", repeat=True)
    environment = {
        **os.environ,
        "INSIDER_OTEL_OUTBOX": f"sqlite:///{tmp_path}/outbox.db",
        "INSIDER_OTEL_HOSTS": json.dumps(served.hosts),
        "INSIDER_OTEL_CREDENTIALS_UNIFICATION": json.dumps(UPSERT.headers),
    }
    process = subprocess.run(
        [sys.executable, "-c", PROCESS, served.url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=True,
    )
    assert (process.stdout, process.stderr) == ("served\n", "")
    stats = SQLiteOutbox(tmp_path / "outbox.db").stats()
    assert (stats.leased, stats.dead) == (0, 0)
    assert stats.waiting + len(fake.requests) == 20
