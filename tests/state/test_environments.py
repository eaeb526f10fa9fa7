"""Wherever calls are made from: loops that come and go, forks, greenlets, crowds of cancelled waiters, odd clocks."""

from __future__ import annotations

import asyncio
import gc
import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
import redis

from insider_otel import AsyncInsiderTransport, Settings, call_of
from insider_otel.api.operations import Limit
from insider_otel.policy.state_url import StateURL
from insider_otel.state import opening
from insider_otel.state.memory import MemoryStore
from insider_otel.state.protocol import MICROSECONDS, Admit, ListPools, PoolKey, Store
from insider_otel.state.redis_store import RedisStore
from insider_otel.state.sqlite_store import SQLiteStore
from insider_otel.testing import FakeInsider, sample_request

from .redis_server import RedisServer, redis_server, skip_without_program

POOL = "catalog.ingest"
HOUR = 3600.0


@pytest.fixture(scope="module")
def server() -> Iterator[RedisServer]:
    skip_without_program()
    with redis_server() as server:
        yield server


@pytest.fixture
def admin(server: RedisServer) -> Iterator[Any]:
    with redis.Redis.from_url(server.url) as client:
        client.flushall()
        yield client


@pytest.fixture(params=["memory", "sqlite", "redis"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """Each of the three stores, empty, with time enough for crowded cores."""
    opening.PROCESS_STATE.forget()
    match request.param:
        case "memory":
            yield "memory://"
        case "sqlite":
            yield f"sqlite:///{tmp_path / 'state.db'}?timeout=30"
        case _:
            request.getfixturevalue("admin")
            yield f"{request.getfixturevalue('server').url}?timeout=30"
    for state in opening._states.values():
        assert state.store is not None
        state.store.close()
    opening._states.clear()
    opening.PROCESS_STATE.forget()


shared_only = pytest.mark.parametrize("address", ["sqlite", "redis"], indirect=True)


def settings(address: str, limit: str) -> Settings:
    return Settings(limits={POOL: limit}, state=address, quick_retries=0, spread_retries=0)


def request() -> dict[str, Any]:
    sample = sample_request(POOL)
    return {"method": sample.method, "url": sample.url, "headers": sample.headers, "content": sample.content}


def used(address: str) -> int:
    """What is used of the pool, as far as the store knows."""
    store = opening.shared_state(address).store
    assert store is not None
    return sum(use.used for use in store.perform(ListPools()))


async def call_many(address: str, number: int, limit: str = "1000/60s") -> list[int]:
    """The status of each of some calls made at once."""
    transport = AsyncInsiderTransport(FakeInsider().transport(), settings=settings(address, limit))
    async with httpx.AsyncClient(transport=transport) as client:
        statuses: list[int] = []

        async def call() -> None:
            statuses.append((await client.request(**request())).status_code)

        async with anyio.create_task_group() as group:
            for _ in range(number):
                group.start_soon(call)
        return statuses


def wait_until(holds: Callable[[], bool], within: float = 10.0) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class TestEventLoops:
    @shared_only
    def test_a_loop_ends_and_another_goes_on(self, address: str) -> None:
        """Without a warning, which would be an error here; what is left of a loop would be found by the collector."""
        for loop in range(1, 4):
            assert asyncio.run(call_many(address, 10)) == [200] * 10
            gc.collect()
            assert used(address) == 10 * loop

    @pytest.mark.parametrize("address", ["redis"], indirect=True)
    def test_connections_do_not_pile_up(self, admin: Any, address: str) -> None:
        before = len(admin.client_list())
        for _ in range(10):
            asyncio.run(call_many(address, 10))
        wait_until(lambda: len(admin.client_list()) == before)

    def test_several_loops_at_once(self, address: str) -> None:
        answers: list[list[int]] = []
        threads = [
            threading.Thread(target=lambda: answers.append(asyncio.run(call_many(address, 10)))) for _ in range(5)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert answers == [[200] * 10] * 5
        assert address == "memory://" or used(address) == 50

    def test_trio_after_asyncio_and_back(self, address: str) -> None:
        for backend in ("asyncio", "trio", "asyncio"):
            assert anyio.run(call_many, address, 5, backend=backend) == [200] * 5
        assert address == "memory://" or used(address) == 15


def run(program: str, *arguments: str) -> Any:
    """Run a program on its own; it prints JSON, and no warning."""
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not ended.stderr, ended.stderr
    return json.loads(ended.stdout)


class TestFork:
    def test_parent_and_child_go_on_each_with_a_name_of_its_own(self, address: str) -> None:
        told = run(
            """
            import json, os, sys
            import httpx
            from insider_otel import InsiderTransport, Settings
            from insider_otel.state.opening import shared_state
            from insider_otel.testing import FakeInsider, sample_request

            address = sys.argv[1]
            settings = Settings(limits={"catalog.ingest": "1000/60s"}, state=address)
            client = httpx.Client(transport=InsiderTransport(FakeInsider().transport(), settings=settings))
            sample = sample_request("catalog.ingest")
            state = shared_state(address)

            sent = {"headers": sample.headers, "content": sample.content}

            def call():
                statuses = {client.request(sample.method, sample.url, **sent).status_code for _ in range(20)}
                return {"statuses": sorted(statuses), "worker": state._worker.hex(), "away": state.is_away,
                        "utilization": dict(state.utilization()).get("catalog.ingest")}

            before = call()
            reading, writing = os.pipe()
            child = os.fork()
            if not child:
                os.write(writing, json.dumps(call()).encode())
                os._exit(0)
            parent = call()
            os.waitpid(child, 0)
            told = {"before": before, "parent": parent, "child": json.loads(os.read(reading, 10000)), "after": call()}
            print(json.dumps(told))
            client.close()
            if state.store is not None:
                state.store.close()
            """,
            address,
        )
        assert all(each["statuses"] == [200] and not each["away"] for each in told.values())
        assert told["before"]["worker"] == told["parent"]["worker"] == told["after"]["worker"]
        assert told["child"]["worker"] != told["parent"]["worker"]
        if address == "memory://":
            assert (told["child"]["utilization"], told["after"]["utilization"]) == (0.02, 0.06)
        else:
            assert told["after"]["utilization"] == 0.08


class TestGreenlets:
    def test_fifty_of_them_hold_the_limit_and_do_not_block_others(self, address: str) -> None:
        pytest.importorskip("gevent", reason="gevent is not installed")
        told = run(
            """
            from gevent import monkey
            monkey.patch_all()
            import json, sys, time
            import gevent, httpx
            from insider_otel import InsiderTransport, Settings
            from insider_otel.state.opening import shared_state
            from insider_otel.testing import FakeInsider, sample_request

            address, limit = sys.argv[1], "20/0.5s"
            fake = FakeInsider(clock=time.monotonic, limits={"catalog.ingest": limit})
            settings = Settings(limits={"catalog.ingest": limit}, state=address, quick_retries=0, spread_retries=0)
            transport = InsiderTransport(fake.transport(), settings=settings)
            sample = sample_request("catalog.ingest")
            ticks = []

            def tick():
                while True:
                    ticks.append(time.monotonic())
                    gevent.sleep(0.01)

            def call():
                with httpx.Client(transport=transport) as client:
                    return client.request(
                        sample.method, sample.url, headers=sample.headers, content=sample.content
                    ).status_code

            ticker = gevent.spawn(tick)
            began = time.monotonic()
            jobs = [gevent.spawn(call) for _ in range(50)]
            gevent.joinall(jobs, timeout=20, raise_error=True)
            took = time.monotonic() - began
            ticker.kill()
            print(json.dumps({"answers": [job.value for job in jobs], "took": took, "ticks": len(ticks)}))
            state = shared_state(address)
            if state.store is not None:
                state.store.close()
            """,
            address,
        )
        assert told["answers"] == [200] * 50
        # Two windows' wait: a hundred ticks, if the waiting blocks nobody, or next to none.
        assert told["took"] >= 1.0
        assert told["ticks"] >= 10


class TestCancelledWaiters:
    @pytest.mark.parametrize("backend", ["asyncio", "trio"])
    def test_a_thousand_are_as_if_they_had_never_been(
        self, request: pytest.FixtureRequest, address: str, backend: str
    ) -> None:
        """They leave no slot in the store, neither to come nor given back: the next one has the slot that the first of
        them had. No task and no connection is left over.
        """
        waiters, limit = 1000, 250
        admin = request.getfixturevalue("admin") if "redis" in address else None
        connections = 0 if admin is None else len(admin.client_list())
        sleeping, over = 0, False
        all_sleep = anyio.Event()

        async def sleep(seconds: float) -> None:
            nonlocal sleeping
            sleeping += 1
            if sleeping == waiters:
                all_sleep.set()
            if not over:
                await anyio.sleep_forever()

        def holds_only_what_is_used() -> None:
            # Asked on a connection of its own: how many the calls leave is looked at below.
            store = opening.open_store(StateURL.parse(address)) or opening.PROCESS_STATE._local
            (use,) = store.perform(ListPools())
            assert use.used == limit
            # Who needs all of the limit at once needs the window after the last slot that anybody has.
            admission = store.perform(Admit(use.pool, use.limit, cost=limit))
            assert (admission.slot, admission.used) == (None, limit)
            assert 0 < admission.wait <= 60
            store.close()

        async def cancel_many() -> float:
            nonlocal over
            transport = AsyncInsiderTransport(
                httpx.MockTransport(lambda sent: httpx.Response(200)),
                settings=settings(address, f"{limit}/60s"),
                sleep=sleep,
            )
            sample = sample_request(POOL)
            async with httpx.AsyncClient(transport=transport, headers=sample.headers) as client:
                for _ in range(limit):
                    await client.post(sample.url, json=[])
                async with anyio.create_task_group() as group:
                    for _ in range(waiters):
                        group.start_soon(client.post, sample.url)
                    with anyio.fail_after(60):
                        await all_sleep.wait()
                    group.cancel_scope.cancel()
                over = True
                assert backend == "trio" or len(asyncio.all_tasks()) == 1
                holds_only_what_is_used()
                return call_of(await client.post(sample.url, json=[])).waited

        assert 0 < anyio.run(cancel_many, backend=backend) <= 60
        state = opening.shared_state(address)
        assert not state.is_away
        # Only the one that came after them is left beside those that went before.
        assert sum(state._local.uses(pool).total() for pool, _ in list(state._local._pools.items())) == limit + 1
        if admin is not None:
            # Trio asks in threads, whose connections are kept for the next.
            most = connections if backend == "asyncio" else connections + 50
            wait_until(lambda: len(admin.client_list()) <= most)


class TestWallClock:
    """It is set an hour on or back; nobody waits any longer or shorter for that."""

    key = PoolKey(POOL, b"o" * 16)
    limit = Limit(2, 600.0)

    def jump(self, store: Store, jump: Callable[[], None]) -> None:
        for _ in range(self.limit.count):
            assert store.perform(Admit(self.key, self.limit)).wait == 0
        jump()
        assert 500 < store.perform(Admit(self.key, self.limit, longest_wait=9999)).wait <= 600

    @pytest.mark.parametrize("hours", [1, -1])
    @pytest.mark.parametrize("kind", ["memory", "sqlite"])
    def test_where_time_is_the_machines(self, kind: str, hours: int, tmp_path: Path) -> None:
        wall = [time.time()]

        def wall_clock() -> float:
            return wall[0]

        def jump() -> None:
            wall[0] += hours * HOUR

        store: Store = (
            MemoryStore(wall_clock=wall_clock)
            if kind == "memory"
            else SQLiteStore(tmp_path / "state.db", timeout=5, wall_clock=wall_clock)
        )
        self.jump(store, jump)
        store.close()

    def test_where_time_is_the_servers_and_is_set_back(self, server: RedisServer, admin: Any) -> None:
        """Set on, it looks like time that has passed: that cannot be told, and closes nobody's way."""
        store = RedisStore(server.url, timeout=5)
        record = f"{{insider-otel:{self.key.owner.hex()}}}:pool:{self.key.pool}"
        # The pool's time is the server's and its skew. An hour on before, it is an hour back after.
        store.perform(Admit(self.key, self.limit))
        admin.hset(record, "skew", int(HOUR * MICROSECONDS))
        self.jump(store, lambda: admin.hset(record, "skew", 0))
        store.close()
