"""Which node of a Redis cluster is asked for what: decisions, no I/O.

All that belongs to an owner is in one slot, so that a request is one command to one node. The map of the slots is read
at first, when a node says that ours is wrong, and before a node that was lost is asked again: another may have its
place by then.
"""

from __future__ import annotations

import math
import random
import time
from binascii import crc_hqx
from bisect import bisect_right
from collections.abc import Callable, Set
from contextlib import suppress
from itertools import chain
from typing import Any, NamedTuple

from insider_otel.state.redis_commands import Command, CommandError, KeyMovedError, Node, NodeLostError, Steps

_SLOTS = 1 << 14
_MOST_MOVES = 2
"""How often an ask follows its key: who sends it on may have an old map too."""
_READ_EVERY = 0.5
"""Seconds. Many may find at once that the map is wrong; one of them reads it, the others go where they are sent."""


class Cluster:
    """The nodes of a cluster. Safe between threads, event loops and greenlets, and after a fork.

    Args:
        host: Host of the address that was given: the nodes are found from there.
        timeout: Seconds. An ask begins no other step after them; as no step takes longer, it is over in twice as many.
        forget_others: Called with the nodes that there are, the address that was given too, whenever the map was read.
        clock: Returns seconds; only differences matter.
    """

    def __init__(
        self,
        host: str,
        timeout: float,
        forget_others: Callable[[Set[Node | None]], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._host = host
        self._timeout = timeout
        self._forget_others = forget_others
        self._clock = clock
        self._map = _SlotMap([], [], ())
        self._read_at = -math.inf
        self._lost: set[Node | None] = set()

    def ask(self, tag: str, command: Command) -> Steps[Any]:
        """Have the node that keeps the keys with a tag do something.

        Args:
            tag: What stands in the braces of the keys: it says where they are kept.
            command: What is to be done.

        Raises:
            CommandError: In the course: it was not done.
        """
        deadline = self._clock() + self._timeout
        slot = crc_hqx(tag.encode(), 0) % _SLOTS
        if not self._map.nodes or self._map.owner(slot) in self._lost:
            with suppress(NodeLostError):
                yield from self._renew_map(self._another(), deadline)
        node = self._map.owner(slot)
        for _ in range(_MOST_MOVES):
            try:
                return (yield from self.send(node, command, deadline))
            except KeyMovedError as moved:
                yield from self._renew_map(node, deadline)
                node = Node(moved.host or self._host_of(node), moved.port)
        return (yield from self.send(node, command, deadline))

    def primaries(self) -> Steps[tuple[Node | None, ...]]:
        """The nodes that have all keys between them."""
        yield from self._read_map(self._another(), math.inf)
        return tuple(dict.fromkeys(self._map.owners))

    def send(self, node: Node | None, command: Command, deadline: float = math.inf) -> Steps[Any]:
        """Have a node do something, and remember whether it could be reached.

        Args:
            node: The node; None for the address that was given.
            command: What is to be done.
            deadline: The moment after which it is too late.

        Raises:
            CommandError: In the course: it was not done.
        """
        if self._clock() > deadline:
            raise CommandError(TimeoutError())
        try:
            answer = yield node, command
        except NodeLostError:
            self._lost.add(node)
            raise
        self._lost.discard(node)
        return answer

    def _renew_map(self, source: Node | None, deadline: float) -> Steps[None]:
        if self._clock() >= self._read_at + _READ_EVERY:
            yield from self._read_map(source, deadline)

    def _read_map(self, source: Node | None, deadline: float) -> Steps[None]:
        self._read_at = self._clock()
        told = yield from self.send(source, ("CLUSTER", "SLOTS"), deadline)
        self._map = _SlotMap.read(told, self._host_of(source))
        nodes = {None, *self._map.nodes}
        self._lost &= nodes
        self._forget_others(nodes)

    def _another(self) -> Node | None:
        """Any node but those that were lost, if there is one."""
        nodes = (None, *self._map.nodes)
        return random.choice([node for node in nodes if node not in self._lost] or nodes)

    def _host_of(self, node: Node | None) -> str:
        return self._host if node is None else node.host


class _SlotMap(NamedTuple):
    """Who keeps which slots.

    Attributes:
        firsts: The first slot of each range, in order.
        owners: The primary of each.
        nodes: All nodes, replicas too.
    """

    firsts: list[int]
    owners: list[Node]
    nodes: tuple[Node, ...]

    @classmethod
    def read(cls, told: list[Any], host: str) -> _SlotMap:
        """Read the answer to ``CLUSTER SLOTS``.

        Args:
            told: For each range its first and last slot, then host and port of its primary and of each replica.
            host: The host of who told: a node that does not know its own address leaves it out.
        """
        ranges = sorted(told, key=lambda each: each[0])
        nodes = [[Node((node[0] or b"").decode() or host, node[1]) for node in each[2:]] for each in ranges]
        return cls([each[0] for each in ranges], [each[0] for each in nodes], tuple(dict.fromkeys(chain(*nodes))))

    def owner(self, slot: int) -> Node | None:
        """Who is to be asked for a slot; None, which is the address that was given, while nothing is known."""
        # A slot that nobody has is in no range: whoever is asked says so.
        index = bisect_right(self.firsts, slot) - 1
        return self.owners[index] if index >= 0 else None
