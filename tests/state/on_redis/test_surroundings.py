"""Clocks that jump, event loops that end, processes that fork, greenlets."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import time
from typing import Any

import pytest

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimAsk,
    ClaimState,
    ListPools,
    PastUse,
    PoolKey,
    Report,
    StoreError,
)
from insider_otel.state.redis_store import RedisStore
from tests.state.on_redis.words import LIMIT, POOL, record, use_all, wait_until
from tests.state.redis_server import RedisServer

HOUR = 3600 * MICROSECONDS


class TestClock:
    """Time is the server's; if that is set back, a pool's time goes on from where it was."""

    def test_nobody_waits_an_hour_because_the_clock_was_set_back(self, admin: Any, store: RedisStore) -> None:
        limit = Limit(3, 600)
        store.perform(Admit(POOL, limit))
        admin.hset(record(), "skew", HOUR)
        use_all(store, limit=limit)
        admin.hset(record(), "skew", 0)
        waits = [store.perform(Admit(POOL, limit, longest_wait=9999)).wait for _ in range(4)]
        assert all(500 < wait <= 600 for wait in waits[:3])
        assert 1100 < waits[3] <= 1200

    def test_a_closed_pool_opens_when_it_was_to(self, admin: Any, store: RedisStore) -> None:
        store.perform(Report(POOL))
        admin.hset(record(), "skew", HOUR)
        store.perform(Report(POOL, closed_for=600))
        admin.hset(record(), "skew", 0)
        assert 500 < store.perform(Admit(POOL, LIMIT)).wait <= 600

    def test_a_claim_lasts_as_long_as_it_was_to(self, admin: Any, store: RedisStore) -> None:
        store.perform(Report(POOL))
        admin.hset(record(), "skew", HOUR)
        long, short = ClaimAsk(b"l" * 16, 600), ClaimAsk(b"s" * 16, 0.3)
        for claim in (long, short):
            assert store.perform(Admit(POOL, None, claim=claim)).claim is ClaimState.CLAIMED
        admin.hset(record(), "skew", 0)
        assert store.perform(Admit(POOL, None, claim=long)).claim is ClaimState.IN_FLIGHT
        wait_until(lambda: store.perform(Admit(POOL, None, claim=short)).claim is ClaimState.CLAIMED)

    def test_what_was_missed_is_told_by_its_age(self, store: RedisStore) -> None:
        past = (PastUse(9 * MICROSECONDS, 2), PastUse(20 * MICROSECONDS, 5))
        admission = store.perform(Admit(POOL, LIMIT, cost=2, longest_wait=9, past=past))
        assert 0.9 < admission.wait <= 1


class TestEventLoops:
    def test_a_loop_closes_its_connections_and_another_opens_its_own(self, admin: Any, store: RedisStore) -> None:
        async def ask_many() -> list[Admission]:
            asked = [store.perform_async(Admit(POOL, Limit(99, 60))) for _ in range(20)]
            return list(await asyncio.gather(*asked))

        before = len(admin.client_list())
        for loop in range(1, 4):
            assert max(admission.used for admission in asyncio.run(ask_many())) == 20 * loop
            wait_until(lambda: len(admin.client_list()) == before)

    def test_however_many_ask_at_once_none_fails_for_the_others_sake(self, admin: Any, server: RedisServer) -> None:
        """They share one connection, and each gets its own answer."""
        store = RedisStore(server.url, timeout=5)
        before = len(admin.client_list())

        async def ask_many() -> tuple[list[Admission], int]:
            asked = [store.perform_async(Admit(POOL, Limit(9999, 60))) for _ in range(3000)]
            answers = list(await asyncio.gather(*asked))
            return answers, len(await asyncio.to_thread(admin.client_list))

        answers, connections = asyncio.run(ask_many())
        assert sorted(admission.used for admission in answers) == list(range(1, 3001))
        assert connections == before + 1

    def test_however_many_ask_a_server_that_hangs_all_know_in_time(self, server: RedisServer) -> None:
        store = RedisStore(server.url, timeout=1.0)

        async def ask_many() -> list[object]:
            await store.perform_async(Admit(POOL, LIMIT))
            server.pause()
            asked = [store.perform_async(Admit(POOL, LIMIT)) for _ in range(500)]
            return list(await asyncio.gather(*asked, return_exceptions=True))

        began = time.monotonic()
        try:
            answers = asyncio.run(ask_many())
        finally:
            server.resume()
        assert {type(answer) for answer in answers} == {StoreError}
        # Not one timeout after the other, which would be minutes.
        assert time.monotonic() - began < 30

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.anyio
    async def test_a_cancelled_request_leaves_no_answer_behind(self, store: RedisStore, anyio_backend: str) -> None:
        """Wherever it is cancelled, the next one to use its connection gets the answer to its own question."""
        await store.perform_async(Report(POOL))
        for steps in range(25):
            task = asyncio.create_task(store.perform_async(ListPools()))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            other = PoolKey(f"pool{steps}", POOL.owner)
            assert (await store.perform_async(Admit(other, LIMIT, cost=2))).used == 2

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.anyio
    async def test_a_loop_that_was_held_up_takes_the_store_for_no_worse(
        self, server: RedisServer, anyio_backend: str
    ) -> None:
        store = RedisStore(server.url, timeout=0.5)
        await store.perform_async(Report(POOL))
        task = asyncio.create_task(store.perform_async(Admit(POOL, LIMIT)))
        await asyncio.sleep(0.0)
        hold_up = time.sleep
        hold_up(0.7)
        assert (await task).used == 1
        store.close()

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.anyio
    async def test_a_closed_store_lets_go_of_the_loops_connections(
        self, admin: Any, store: RedisStore, anyio_backend: str
    ) -> None:
        before = len(admin.client_list())
        await store.perform_async(Admit(POOL, LIMIT))
        assert len(admin.client_list()) == before + 1
        store.close()
        await asyncio.to_thread(wait_until, lambda: len(admin.client_list()) == before)
        assert (await store.perform_async(Admit(POOL, LIMIT))).used == 2


class TestProcesses:
    def run(self, program: str, *arguments: str) -> Any:
        """Run a program on its own; it prints JSON."""
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert not ended.stderr
        return json.loads(ended.stdout)

    def test_a_fork_uses_connections_of_its_own(self, server: RedisServer, store: RedisStore) -> None:
        """Both ask at the same time and each gets its own answers; and the parent's connection stays whole."""
        told = self.run(
            """
            import json, os, sys
            from insider_otel.api.operations import Limit
            from insider_otel.state.protocol import Admit, PoolKey
            from insider_otel.state.redis_store import RedisStore

            store = RedisStore(sys.argv[1], timeout=5)
            limit = Limit(1000, 60)
            store.perform(Admit(PoolKey("before", b"o"), limit))
            def used(pool):
                return [store.perform(Admit(PoolKey(pool, b"o"), limit)).used for _ in range(100)]
            reading, writing = os.pipe()
            if os.fork() == 0:
                os.write(writing, json.dumps(used("child")).encode())
                os._exit(0)
            parent = used("parent")
            os.wait()
            print(json.dumps({"child": json.loads(os.read(reading, 10000)), "parent": parent, "after": used("after")}))
            store.close()
            """,
            server.url,
        )
        assert told == {who: list(range(1, 101)) for who in ("child", "parent", "after")}

    def test_greenlets_share_it(self, server: RedisServer, store: RedisStore) -> None:
        pytest.importorskip("gevent", reason="gevent is not installed")
        told = self.run(
            """
            from gevent import monkey
            monkey.patch_all()
            import json, sys
            import gevent
            from insider_otel.api.operations import Limit
            from insider_otel.state.protocol import Admit, PoolKey
            from insider_otel.state.redis_store import RedisStore

            store = RedisStore(sys.argv[1], timeout=5)
            ask = Admit(PoolKey("pool", b"o"), Limit(1000, 60))
            jobs = [gevent.spawn(lambda: [store.perform(ask).used for _ in range(5)]) for _ in range(100)]
            gevent.joinall(jobs, raise_error=True)
            print(json.dumps(sorted(used for job in jobs for used in job.value)))
            store.close()
            """,
            server.url,
        )
        assert told == list(range(1, 501))
