"""Nodes of a cluster that leave it, as pods do: others come at other addresses."""

from __future__ import annotations

import asyncio
import gc
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from socketserver import StreamRequestHandler, ThreadingTCPServer

import pytest

from insider_otel.state.protocol import Report, StoreError
from insider_otel.state.redis_store import RedisStore
from tests.state.on_redis.words import POOL, wait_until

THREADS = 8


class Node(ThreadingTCPServer):
    """A node of a cluster in which one has all slots, as a store sees it."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(("127.0.0.1", 0), Connection)
        self.cluster = cluster
        self.port: int = self.server_address[1]
        self.connections: set[socket.socket] = set()
        self.asked = threading.Semaphore(0)
        self.answers = threading.Event()
        self.answers.set()

    def answer(self, words: list[bytes]) -> bytes:
        """What it says to a command."""
        owner = self.cluster.owner.port
        if words[0] == b"CLUSTER":
            return b"*1\r\n*3\r\n:0\r\n:16383\r\n*2\r\n$9\r\n127.0.0.1\r\n:%d\r\n" % owner
        if self.port != owner:
            return b"-MOVED 0 127.0.0.1:%d\r\n" % owner
        self.asked.release()
        self.answers.wait()
        return b"+OK\r\n"

    def vanish(self) -> None:
        """End, as a process does that is killed; but see which of its connections the others still keep."""
        self.shutdown()
        self.server_close()
        for connection in list(self.connections):
            with suppress(OSError):
                connection.shutdown(socket.SHUT_WR)


class Connection(StreamRequestHandler):
    server: Node

    def handle(self) -> None:
        self.server.connections.add(self.connection)
        try:
            while line := self.rfile.readline():
                words = [self._word() for _ in range(int(line[1:]))]
                self.wfile.write(self.server.answer(words))
        except OSError:
            self.rfile.read()
        finally:
            self.server.connections.discard(self.connection)

    def _word(self) -> bytes:
        length = int(self.rfile.readline()[1:])
        return self.rfile.read(length + 2)[:-2]


class Cluster:
    """One node that stays, whose address everybody has, and another one that has all slots."""

    def __init__(self, stack: ExitStack) -> None:
        self._stack = stack
        self.owner = self.first = self._started()
        self.replace()

    def replace(self) -> Node:
        """Have a new node take the place of the one that has all slots, which is returned."""
        old, self.owner = self.owner, self._started()
        return old

    def _started(self) -> Node:
        node = Node(self)
        threading.Thread(target=node.serve_forever, args=(0.01,), daemon=True).start()
        self._stack.callback(node.vanish)
        return node


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    with ExitStack() as stack:
        yield Cluster(stack)


@pytest.fixture
def store(cluster: Cluster) -> Iterator[RedisStore]:
    store = RedisStore(f"redis://127.0.0.1:{cluster.first.port}", timeout=10, cluster=True)
    yield store
    store.close()


@contextmanager
def nothing_is_collected() -> Iterator[None]:
    """What is closed here was closed by who had it."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def is_answered(store: RedisStore) -> bool:
    try:
        store.perform(Report(POOL))
    except StoreError:
        return False
    return True


def test_threads_keep_no_connection_to_a_node_that_is_gone(cluster: Cluster, store: RedisStore) -> None:
    def leave_an_idle_connection_for_each() -> Node:
        node = cluster.owner
        node.answers.clear()
        asks = [threads.submit(store.perform, Report(POOL)) for _ in range(THREADS)]
        wait_until(lambda: len(node.connections) == THREADS)
        node.answers.set()
        for ask in asks:
            ask.result(60)
        return node

    gone: list[Node] = []
    with nothing_is_collected(), ThreadPoolExecutor(THREADS) as threads:
        for _ in range(2):
            wait_until(lambda: is_answered(store))
            gone.append(leave_an_idle_connection_for_each())
            cluster.replace().vanish()
            wait_until(lambda: any(list(threads.map(is_answered, [store] * THREADS))))
            wait_until(lambda: not any(node.connections for node in gone))


@pytest.mark.parametrize("who", ["the loop", "a thread"])
def test_a_loop_keeps_no_connection_to_a_node_that_has_left(who: str, cluster: Cluster, store: RedisStore) -> None:
    """Whoever finds out first."""

    async def work() -> None:
        await store.perform_async(Report(POOL))
        node = cluster.replace()
        assert len(node.connections) == 1
        async with asyncio.timeout(60):
            while node.connections:
                if who == "the loop":
                    await store.perform_async(Report(POOL))
                else:
                    await asyncio.to_thread(store.perform, Report(POOL))
                await asyncio.sleep(0.01)

    with nothing_is_collected():
        asyncio.run(work())


@pytest.mark.parametrize("way", ["threads", "a loop"])
def test_a_call_that_awaits_a_node_while_that_leaves_is_answered(way: str, cluster: Cluster, store: RedisStore) -> None:
    def ask() -> None:
        if way == "threads":
            store.perform(Report(POOL))
        else:
            asyncio.run(store.perform_async(Report(POOL)))

    wait_until(lambda: is_answered(store))
    node = cluster.owner
    node.answers.clear()
    while node.asked.acquire(blocking=False):
        pass
    with ThreadPoolExecutor(1) as threads:
        asked = threads.submit(ask)
        assert node.asked.acquire(timeout=60)
        cluster.replace()
        # Who asks next is sent on, and reads who is there now.
        wait_until(lambda: is_answered(store) and ("127.0.0.1", node.port) not in store._clients)
        node.answers.set()
        asked.result(60)
    wait_until(lambda: not node.connections)
