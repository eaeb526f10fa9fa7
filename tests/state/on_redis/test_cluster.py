"""A real cluster: pools spread over its nodes, nodes that vanish, slots that move."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from itertools import count

import httpx
import pytest

from insider_otel import InsiderTransport, Settings
from insider_otel.api.operations import Limit
from insider_otel.cli import main
from insider_otel.state import opening
from insider_otel.state.credential import NOBODY, Credentials
from insider_otel.state.protocol import (
    Admission,
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    ListPools,
    PoolKey,
    Report,
    StoreError,
)
from insider_otel.state.redis_store import RedisStore
from insider_otel.testing import FakeInsider, sample_request
from tests.state.on_redis.words import CLAIM, LIMIT, wait_until
from tests.state.redis_cluster import RedisCluster, redis_cluster
from tests.state.redis_server import RedisServer, skip_without_program

ROOMY = Limit(9999, 60.0)


@pytest.fixture(scope="module")
def running_cluster() -> Iterator[RedisCluster]:
    skip_without_program()
    with redis_cluster() as cluster:
        yield cluster


@pytest.fixture
def cluster(running_cluster: RedisCluster) -> RedisCluster:
    """Three nodes that are empty, and that a test leaves running."""
    for node in running_cluster.nodes:
        if not node.is_running:
            node.start()
    running_cluster.wait_until_well()
    running_cluster.empty()
    return running_cluster


@pytest.fixture
def store(cluster: RedisCluster) -> Iterator[RedisStore]:
    store = RedisStore(cluster.url, timeout=5, cluster=True)
    yield store
    store.close()


@pytest.fixture
def pools(cluster: RedisCluster) -> list[PoolKey]:
    """A pool on each node."""
    return [cluster.pool_on(node) for node in cluster.nodes]


class TestEveryNode:
    """A pool is where its owner's keys are; whoever asks need not know."""

    def test_limits_and_claims_are_held_on_all_nodes(self, store: RedisStore, pools: list[PoolKey]) -> None:
        for pool in pools:
            granted = store.perform(Admit(pool, LIMIT, claim=ClaimAsk(CLAIM, 30), worker=b"w"))
            assert (granted.used, granted.claim) == (1, ClaimState.CLAIMED)
            store.perform(Report(pool, claim=ClaimReport(CLAIM, granted.token, ClaimEnd.DONE, 30)))
            assert store.perform(Admit(pool, LIMIT, claim=ClaimAsk(CLAIM, 30))).claim is ClaimState.DONE
            assert [store.perform(Admit(pool, LIMIT)).slot is None for _ in range(3)] == [False, False, True]

    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    @pytest.mark.anyio
    async def test_in_an_event_loop_too(self, store: RedisStore, pools: list[PoolKey], anyio_backend: str) -> None:
        for pool in pools:
            granted = await store.perform_async(Admit(pool, LIMIT, claim=ClaimAsk(CLAIM, 30), worker=b"w"))
            assert (granted.used, granted.claim) == (1, ClaimState.CLAIMED)
            await store.perform_async(Report(pool, claim=ClaimReport(CLAIM, granted.token, ClaimEnd.DONE, 30)))
            again = await store.perform_async(Admit(pool, LIMIT, claim=ClaimAsk(CLAIM, 30)))
            assert again.claim is ClaimState.DONE

    def test_an_ask_is_one_command_once_the_nodes_are_known(
        self, cluster: RedisCluster, store: RedisStore, pools: list[PoolKey]
    ) -> None:
        for pool in pools:
            store.perform(Report(pool))
        cluster.forget_calls()
        for pool in pools:
            store.perform(Admit(pool, LIMIT))
        assert cluster.calls() == {"evalsha": 3}

    def test_a_crowd_of_tasks_reads_the_map_no_more_than_every_half_second(
        self, cluster: RedisCluster, store: RedisStore, pools: list[PoolKey]
    ) -> None:
        cluster.forget_calls()
        begun = time.monotonic()

        async def ask_many() -> list[Admission]:
            return list(await asyncio.gather(*(store.perform_async(Admit(pools[1], ROOMY)) for _ in range(500))))

        assert sorted(admission.used for admission in asyncio.run(ask_many())) == list(range(1, 501))
        assert 1 <= cluster.calls()["cluster|slots"] <= 1 + (time.monotonic() - begun) / 0.5

    def test_all_pools_of_all_nodes_are_listed(self, store: RedisStore, pools: list[PoolKey]) -> None:
        for pool in pools:
            store.perform(Admit(pool, LIMIT))
        assert sorted(use.pool for use in store.perform(ListPools())) == sorted(pools)
        assert sorted(use.pool for use in asyncio.run(store.perform_async(ListPools()))) == sorted(pools)

    def test_the_command_limits_shows_them(
        self, cluster: RedisCluster, store: RedisStore, pools: list[PoolKey], capsys: pytest.CaptureFixture[str]
    ) -> None:
        for used, pool in enumerate(pools, 1):
            for _ in range(used):
                store.perform(Admit(pool, LIMIT))
        assert main(["limits", "--json", "--used", "--state", f"{cluster.url}?cluster=true&timeout=5"]) == 0
        assert sorted(row["used"] for row in json.loads(capsys.readouterr().out)["pools"]) == [1, 2, 3]

    def test_any_node_will_do_as_the_address(self, cluster: RedisCluster, pools: list[PoolKey]) -> None:
        for used, node in enumerate(cluster.nodes, 1):
            store = RedisStore(node.url, timeout=5, cluster=True)
            assert [store.perform(Admit(pool, LIMIT)).used for pool in pools] == [used] * 3
            store.close()


def test_threads_and_forks_each_get_their_own_answers(cluster: RedisCluster, pools: list[PoolKey]) -> None:
    program = """
        import json, os, sys
        from concurrent.futures import ThreadPoolExecutor
        from insider_otel.api.operations import Limit
        from insider_otel.state.protocol import Admit, PoolKey
        from insider_otel.state.redis_store import RedisStore

        store = RedisStore(sys.argv[1], timeout=5, cluster=True)
        owners = [bytes.fromhex(owner) for owner in sys.argv[2:]]

        def use(pool):
            asks = [Admit(PoolKey(pool, owner), Limit(1000, 60.0)) for owner in owners] * 50
            with ThreadPoolExecutor(6) as threads:
                used = [admission.used for admission in threads.map(store.perform, asks)]
            return [sorted(used[number::3]) for number in range(3)]

        use("before")
        reading, writing = os.pipe()
        if os.fork() == 0:
            os.write(writing, json.dumps(use("child")).encode())
            os._exit(0)
        parent = use("parent")
        os.wait()
        print(json.dumps([json.loads(os.read(reading, 10000)), parent, use("after")]))
        store.close()
    """
    ended = subprocess.run(
        [sys.executable, "-W", "error", "-c", textwrap.dedent(program), cluster.url, *(o.hex() for _, o in pools)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert not ended.stderr
    assert json.loads(ended.stdout) == [[list(range(1, 51))] * 3] * 3


class TestNodesThatVanish:
    """What the others have goes on; what it had is in trouble, in time, until it is back or another has it."""

    @pytest.mark.parametrize("is_first", [True, False], ids=["the node of the address", "another node"])
    def test_the_others_go_on_and_it_returns(
        self, cluster: RedisCluster, store: RedisStore, pools: list[PoolKey], is_first: bool
    ) -> None:
        before = [store.perform(Admit(pool, ROOMY)).born for pool in pools]
        lost = 0 if is_first else 1
        cluster.nodes[lost].stop()
        for _ in range(3):
            for number, pool in enumerate(pools):
                if number == lost:
                    with pytest.raises(StoreError, match=f"127.0.0.1:{cluster.nodes[lost].port}"):
                        store.perform(Admit(pool, ROOMY))
                else:
                    assert store.perform(Admit(pool, ROOMY)).born == before[number]
        cluster.nodes[lost].start()
        cluster.wait_until_well()
        assert store.perform(Admit(pools[lost], ROOMY)).used == 1
        assert [use.used for use in store.perform(ListPools()) if use.pool != pools[lost]] == [4, 4]

    def test_a_node_that_hangs_holds_up_nobody_elses_calls(self, cluster: RedisCluster, pools: list[PoolKey]) -> None:
        store = RedisStore(cluster.url, timeout=1.0, cluster=True)

        async def ask_all() -> list[object]:
            await asyncio.gather(*(store.perform_async(Report(pool)) for pool in pools))
            cluster.nodes[1].pause()
            asked = [store.perform_async(Admit(pool, ROOMY)) for pool in pools * 50]
            return list(await asyncio.gather(*asked, return_exceptions=True))

        try:
            answers = asyncio.run(ask_all())
            with pytest.raises(StoreError, match="no answer within 1 s"):
                store.perform(Admit(pools[1], ROOMY))
            assert store.perform(Admit(pools[2], ROOMY)).used == 51
        finally:
            cluster.nodes[1].resume()
        assert {type(answer) for answer in answers[1::3]} == {StoreError}
        assert {type(answer) for answer in answers[0::3] + answers[2::3]} == {Admission}
        store.close()

    @pytest.mark.once
    def test_another_has_taken_its_place(self) -> None:
        with redis_cluster(replica=True) as cluster:
            pool = cluster.pool_on(cluster.nodes[0])
            store = RedisStore(cluster.url, timeout=5, cluster=True)
            before = store.perform(Admit(pool, ROOMY)).born
            assert cluster.tell(cluster.nodes[0], "WAIT", 1, 5000) == 1
            cluster.nodes[0].stop()
            answers: list[Admission] = []

            def is_back() -> bool:
                try:
                    answers.append(store.perform(Admit(pool, ROOMY)))
                except StoreError:
                    return False
                return True

            wait_until(is_back, within=30)
            assert (answers[0].born, answers[0].used) == (before, 2)
            store.close()


class TestCalls:
    def test_calls_on_other_nodes_go_on_while_one_is_lost(
        self, cluster: RedisCluster, caplog: pytest.LogCaptureFixture
    ) -> None:
        """No call fails, and the log has one line at the beginning and one at the end."""
        lost = cluster.nodes[1]
        url = f"{cluster.url}?cluster=true&timeout=5"
        fake = FakeInsider(limits={"catalog.ingest": "9999/60s"})
        transport = InsiderTransport(
            fake.transport(), settings=Settings(state=url, limits={"catalog.ingest": "9999/60s"})
        )
        state = opening.shared_state(url)
        with httpx.Client(transport=transport) as client:

            def call(key: str) -> int:
                sample = sample_request("catalog.ingest")
                headers = {**sample.headers, "X-REQUEST-TOKEN": key}
                return client.post(sample.url, headers=headers, content=sample.content).status_code

            keys = [key_on(cluster, node) for node in cluster.nodes]
            assert [call(key) for key in keys] == [200] * 3
            lost.stop()
            for node in (cluster.nodes[0], cluster.nodes[2]):
                cluster.tell(node, "CONFIG RESETSTAT")
            assert [call(key) for key in keys * 5] == [200] * 15
            assert state.is_away
            assert [cluster.asked(node) for node in (cluster.nodes[0], cluster.nodes[2])] == [5, 5]
            lost.start()
            cluster.wait_until_well()
            wait_until(lambda: [call(key) for key in keys] == [200] * 3 and not state.is_away, within=30)
        lines = [record.getMessage() for record in caplog.records if record.name == "insider_otel"]
        assert len(lines) == 2
        assert f"cannot be used (node 127.0.0.1:{lost.port}: " in lines[0]
        assert lines[-1] == f"the redis store {cluster.url} is back"
        assert state.store is not None
        state.store.close()
        opening._states.clear()


def key_on(cluster: RedisCluster, node: RedisServer) -> str:
    """A key for Insider whose limits are on a node."""
    sample = sample_request("catalog.ingest")

    def owner(key: str) -> bytes:
        headers = httpx.Headers({**sample.headers, "X-REQUEST-TOKEN": key})
        return Credentials(sample.operation, headers, sample.content).owner() or NOBODY

    keys = (f"fake-key-{number}" for number in count())
    return next(key for key in keys if cluster.node_of(PoolKey("catalog.ingest", owner(key))) is node)


class TestSlotsThatMove:
    def test_a_pool_is_found_at_the_node_that_has_it_now(
        self, cluster: RedisCluster, store: RedisStore, pools: list[PoolKey]
    ) -> None:
        pool, old, new = pools[0], cluster.nodes[0], cluster.nodes[1]
        before = [store.perform(Admit(pool, LIMIT)), store.perform(Admit(pool, LIMIT))]
        cluster.move(pool, new)
        try:
            after = store.perform(Admit(pool, LIMIT))
            assert (after.used, after.born) == (3, before[0].born)
            cluster.forget_calls()
            assert store.perform(Admit(pool, LIMIT)).slot is None
            assert cluster.calls() == {"evalsha": 1}
        finally:
            cluster.move(pool, old)

    def test_while_it_moves_the_store_is_in_trouble(
        self, cluster: RedisCluster, store: RedisStore, pools: list[PoolKey]
    ) -> None:
        """It is whole again a moment later; what was asked meanwhile was not done by halves."""
        pool, new = pools[0], cluster.nodes[1]
        store.perform(Report(pool))
        other = PoolKey("mail.send", pool.owner)
        with cluster.moving(pool, new), pytest.raises(StoreError, match=r"Ask|ASK|TryAgain|TRYAGAIN"):
            store.perform(Admit(other, LIMIT))
        assert [use.pool for use in store.perform(ListPools())] == [pool]


class TestAnAddressThatDoesNotSayCluster:
    def test_one_node_is_seen_to_be_a_part_and_the_remedy_is_named(
        self, cluster: RedisCluster, pools: list[PoolKey]
    ) -> None:
        store = RedisStore(cluster.url, timeout=5)
        assert store.perform(Admit(pools[0], LIMIT)).used == 1
        with pytest.raises(StoreError, match=r"one node of a cluster.*add cluster=true to the address"):
            store.perform(Admit(pools[1], LIMIT))
        store.close()


def test_a_server_in_no_cluster_says_so(server: RedisServer) -> None:
    store = RedisStore(server.url, timeout=5, cluster=True)
    with pytest.raises(StoreError, match="cluster support disabled"):
        store.perform(Admit(PoolKey("mail.send", b"o"), LIMIT))
    store.close()
