"""A real Redis cluster for tests: servers of their own that know each other."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from itertools import count
from typing import Any

from insider_otel.state.protocol import PoolKey

from .redis_server import RedisServer, redis_server

_SLOTS = 1 << 14
_FORMS_WITHIN = 60.0
# A node that is killed takes none of the others' slots with it.
_OPTIONS = ("--cluster-enabled", "yes", "--cluster-require-full-coverage", "no", "--cluster-node-timeout", "1000")

_WORDS = ("evalsha", "eval", "scan", "cluster|slots")


class RedisCluster:
    """A cluster whose primaries have equal shares of the slots.

    Args:
        nodes: The primaries, which do not know each other yet.
        replica: A copy of the first of them, which takes its place when it vanishes.
    """

    def __init__(self, nodes: list[RedisServer], replica: RedisServer | None = None) -> None:
        self.nodes = nodes
        self._all = [*nodes, *filter(None, [replica])]
        share = -(-_SLOTS // len(nodes))
        for number, node in enumerate(self._all):
            self.tell(node, "CLUSTER SET-CONFIG-EPOCH", number + 1)
            if node is not replica:
                first, last = share * number, min(share * (number + 1), _SLOTS) - 1
                self.tell(node, "CLUSTER ADDSLOTSRANGE", first, last)
            self.tell(node, "CLUSTER MEET", "127.0.0.1", nodes[0].port)
        self.wait_until_well()
        if replica is not None:
            self.tell(replica, "CLUSTER REPLICATE", self.tell(nodes[0], "CLUSTER MYID"))
            self._wait_until(lambda: self.tell(nodes[0], "WAIT", 1, 100) == 1)

    @property
    def url(self) -> str:
        """The address of its first node."""
        return self.nodes[0].url

    def tell(self, node: RedisServer, command: str, *arguments: object) -> Any:
        """Have one node do something."""
        import redis

        with redis.Redis.from_url(node.url, decode_responses=True) as client:
            return client.execute_command(*command.split(), *arguments)

    def wait_until_well(self) -> None:
        """Wait until each node knows that all the others have their slots."""
        self._wait_until(lambda: all(map(self._is_well, self._all)))

    def node_of(self, pool: PoolKey) -> RedisServer:
        """The node that has a pool, as the others know it."""
        slot = self.slot_of(pool)
        living = next(node for node in self._all if node.is_running)
        ranges = self.tell(living, "CLUSTER SLOTS")
        port = next(primary[1] for first, last, primary, *_ in ranges if first <= slot <= last)
        return next(node for node in self._all if node.port == port)

    def slot_of(self, pool: PoolKey) -> int:
        """The slot that the nodes find for the keys of a pool."""
        living = next(node for node in self._all if node.is_running)
        slot: int = self.tell(living, "CLUSTER KEYSLOT", f"{{insider-otel:{pool.owner.hex()}}}:pool:{pool.pool}")
        return slot

    def pool_on(self, node: RedisServer, name: str = "catalog.ingest") -> PoolKey:
        """A pool whose owner is one of those that a node has."""
        pools = (PoolKey(name, b"%016d" % number) for number in count())
        return next(pool for pool in pools if self.node_of(pool) is node)

    @contextmanager
    def moving(self, pool: PoolKey, new: RedisServer) -> Iterator[None]:
        """While this lasts, the slot of a pool is on its way to another node, and has not got there."""
        old, slot = self.node_of(pool), self.slot_of(pool)
        self.tell(new, "CLUSTER SETSLOT", slot, "IMPORTING", self.tell(old, "CLUSTER MYID"))
        self.tell(old, "CLUSTER SETSLOT", slot, "MIGRATING", self.tell(new, "CLUSTER MYID"))
        yield
        for node in (new, old):
            self.tell(node, "CLUSTER SETSLOT", slot, "STABLE")

    def move(self, pool: PoolKey, new: RedisServer) -> None:
        """Move the slot of a pool to another node, with all that is in it."""
        old, slot = self.node_of(pool), self.slot_of(pool)
        with self.moving(pool, new):
            if keys := self.tell(old, "CLUSTER GETKEYSINSLOT", slot, 1000):
                self.tell(old, "MIGRATE 127.0.0.1", new.port, "", 0, 5000, "KEYS", *keys)
            for node in (new, old, *self.nodes):
                self.tell(node, "CLUSTER SETSLOT", slot, "NODE", self.tell(new, "CLUSTER MYID"))

    def empty(self) -> None:
        """Have all nodes forget everything but each other."""
        for node in self.nodes:
            self.tell(node, "FLUSHALL")
            self.tell(node, "SCRIPT FLUSH")
        self.forget_calls()

    def calls(self) -> dict[str, int]:
        """The commands that the nodes were given since ``forget_calls``, of those that a store has words for."""
        import redis

        heard: Counter[str] = Counter()
        for node in self.nodes:
            with redis.Redis.from_url(node.url) as client:
                for name, told in client.info("commandstats").items():
                    heard[name.removeprefix("cmdstat_")] += told["calls"]
        return {name: heard[name] for name in _WORDS if heard[name]}

    def asked(self, node: RedisServer) -> int:
        """How often a node was given the script since ``forget_calls``."""
        import redis

        with redis.Redis.from_url(node.url) as client:
            told: int = client.info("commandstats").get("cmdstat_evalsha", {"calls": 0})["calls"]
            return told

    def forget_calls(self) -> None:
        """Count ``calls`` from now on."""
        for node in self.nodes:
            self.tell(node, "CONFIG RESETSTAT")

    def _is_well(self, node: RedisServer) -> bool:
        said = dict(line.split(":") for line in self.tell(node, "CLUSTER INFO").split())
        found = said["cluster_state"], int(said["cluster_known_nodes"]), int(said["cluster_slots_ok"])
        return found == ("ok", len(self._all), _SLOTS)

    @staticmethod
    def _wait_until(holds: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _FORMS_WITHIN
        while not holds():
            assert time.monotonic() < deadline, "the nodes do not find each other"
            time.sleep(0.05)


@contextmanager
def redis_cluster(*, size: int = 3, replica: bool = False) -> Iterator[RedisCluster]:
    """A cluster of one's own.

    Args:
        size: How many primaries it has.
        replica: Whether the first of them has a copy.
    """
    with ExitStack() as stack:
        servers = [stack.enter_context(redis_server(*_OPTIONS, tcp=True)) for _ in range(size + replica)]
        yield RedisCluster(servers[:size], servers[size] if replica else None)
