"""Clients at hand: one for a process, one for each loop; closed with them, new after a fork; a fake in their place."""

from __future__ import annotations

import asyncio
import gc
import os
import subprocess
import sys
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor
from textwrap import dedent
from types import ModuleType
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from insider_otel import InsiderInstrumentor, Settings, call_of
from insider_otel.http.engine import Engine
from insider_otel.testing import CapturedSpans, FakeInsider, sample_request
from insider_otel.web import Clients

UPSERT = sample_request("user.upsert")


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def module(request: pytest.FixtureRequest) -> ModuleType:
    family: ModuleType = request.param
    return family


@pytest.fixture
def clients(module: ModuleType) -> Clients:
    return Clients(Engine(Settings()), module)


def post(client: Any, sample: Any = UPSERT) -> Any:
    return client.post(sample.url, headers=sample.headers, content=sample.content)


def test_a_process_has_one_client_for_all_its_threads(clients: Clients, module: ModuleType) -> None:
    together = threading.Barrier(8)

    def use() -> Any:
        together.wait()
        return clients.client()

    with ThreadPoolExecutor(8) as pool:
        used = [future.result() for future in [pool.submit(use) for _ in range(8)]]
    assert len(set(map(id, used))) == 1
    assert isinstance(used[0], module.Client)
    clients.close()
    assert used[0].is_closed


def test_a_closed_client_is_followed_by_another(clients: Clients) -> None:
    first = clients.client()
    clients.close()
    clients.close()
    second = clients.client()
    assert second is not first
    assert not second.is_closed
    clients.close()


def test_a_client_that_its_user_closed_is_followed_by_another(module: ModuleType) -> None:
    clients = Clients(Engine(Settings()), module, transport=FakeInsider().transport())

    async def use() -> list[int]:
        statuses = list[int]()
        for _ in range(2):
            async with await clients.async_client() as client:
                response = await post(client)
                statuses.append(response.status_code)
        return statuses

    for _ in range(2):
        with clients.client() as client:
            assert post(client).status_code == 200
    assert asyncio.run(use()) == [200, 200]


def test_each_loop_has_one_client_and_closes_it_when_it_ends(clients: Clients, module: ModuleType) -> None:
    async def use() -> Any:
        used = await asyncio.gather(*(clients.async_client() for _ in range(5)))
        assert len(set(map(id, used))) == 1
        assert not used[0].is_closed
        return used[0]

    first, second = asyncio.run(use()), asyncio.run(use())
    assert isinstance(first, module.AsyncClient)
    assert first is not second
    assert first.is_closed
    assert second.is_closed


def test_a_loop_closes_the_connections_of_its_client(fake_url: str, fake_hosts: dict[str, str]) -> None:
    """An open one would be a ResourceWarning, which is an error here."""
    clients = Clients(Engine(Settings(hosts=fake_hosts)))

    async def use() -> int:
        response = await post(await clients.async_client(), sample_request("user.upsert", base_url=fake_url))
        status: int = response.status_code
        return status

    assert asyncio.run(use()) == 200
    gc.collect()


def test_loops_that_have_ended_are_forgotten(clients: Clients) -> None:
    async def use() -> Any:
        return weakref.ref(await clients.async_client())

    used = [asyncio.run(use()) for _ in range(3)]
    gc.collect()
    assert [reference() is None for reference in used] == [True, True, False]


@pytest.mark.anyio
async def test_a_loops_client_can_be_closed_before_the_loop(clients: Clients) -> None:
    first = await clients.async_client()
    await clients.aclose()
    await clients.aclose()
    assert first.is_closed
    assert await clients.async_client() is not first


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_opens_clients_of_its_own_and_leaves_its_parents_open(clients: Clients) -> None:
    parents = clients.client()
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        own = clients.client()
        clients.close()
        os.write(writing, bytes([own is not parents, not parents.is_closed, own.is_closed]))
        os._exit(0)
    os.close(writing)
    said = os.read(reading, 3)
    os.close(reading)
    os.waitpid(child, 0)
    assert list(said) == [True, True, True]
    assert clients.client() is parents
    assert not parents.is_closed
    clients.close()


def test_threads_of_a_child_that_come_first_together_share_one_client_which_is_not_the_parents(
    clients: Clients, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second comes while the first one makes the child its lock."""
    parents, seconds = clients.client(), list[Any]()
    make_lock, is_first = threading.Lock, iter([True])

    def lock() -> Any:
        if next(is_first, False):
            second = threading.Thread(target=lambda: seconds.append(clients.client()))
            second.start()
            second.join()
        return make_lock()

    child = os.getpid() + 1
    with monkeypatch.context() as forked:
        forked.setattr("os.getpid", lambda: child)
        forked.setattr("threading.Lock", lock)
        first = clients.client()
        assert seconds == [first]
        assert first is not parents
        clients.close()
    parents.close()


def test_calls_are_traced_without_the_instrumentor(insider_spans: CapturedSpans, module: ModuleType) -> None:
    engine = Engine(Settings(), tracer_provider=insider_spans.tracer_provider)
    clients = Clients(engine, module, transport=FakeInsider().transport())
    assert call_of(post(clients.client())).outcome == "succeeded"
    clients.close()
    assert insider_spans.tree() == ["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]


def test_async_clients_are_prepared_before_they_are_used(module: ModuleType) -> None:
    prepared: list[Any] = []
    clients = Clients(Engine(Settings()), module, prepare_async=prepared.append)

    async def use() -> Any:
        return await clients.async_client()

    clients.client()
    clients.close()
    assert [asyncio.run(use())] == prepared


def test_beside_the_instrumentor_a_call_is_still_one_call(
    insider_spans: CapturedSpans, fake_url: str, fake_hosts: dict[str, str], module: ModuleType
) -> None:
    """The settings are those of the app, not of the instrumentor."""
    InsiderInstrumentor().instrument(settings=Settings(hosts=fake_hosts))
    clients = Clients(Engine(Settings(hosts=fake_hosts), tracer_provider=insider_spans.tracer_provider), module)
    post(clients.client(), sample_request("user.upsert", base_url=fake_url))
    clients.close()
    assert insider_spans.tree() == ["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]


def test_the_proxies_of_the_environment_are_kept(
    clients: Clients, module: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    client = clients.client()
    to_insider = client._transport_for_url(module.URL(UPSERT.url))
    assert "Proxy" in type(to_insider.inner._pool).__name__
    clients.close()


def test_asyncio_is_named_where_another_loop_runs(clients: Clients) -> None:
    with pytest.raises(RuntimeError, match="asyncio"):
        anyio.run(clients.async_client, backend="trio")


def test_where_no_loop_of_asyncio_runs_there_is_none_to_close(clients: Clients) -> None:
    anyio.run(clients.aclose, backend="trio")


def test_under_gevent_nothing_is_started_when_visitors_are_there() -> None:
    """A program that is started forks, and other greenlets would run on in the child and read what visitors sent."""
    script = """
        import gevent.monkey; gevent.monkey.patch_all()
        import subprocess
        from insider_otel.web.app import WebApp
        from insider_otel.web.options import WebOptions

        app = WebApp(WebOptions(instrument=False))
        started = []
        subprocess.Popen.__init__ = lambda self, *arguments, **options: started.append(arguments)
        app.clients().client()
        print(started)
    """
    done = subprocess.run(
        [sys.executable, "-c", dedent(script)], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout == "[]\n"
