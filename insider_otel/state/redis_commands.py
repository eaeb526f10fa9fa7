"""What is said to Redis, and what its answers mean: commands, no I/O.

A request is one call of one script, which reads and writes all that belongs to it. A course of commands is a generator:
whoever drives it sends each command that it yields to the node that comes with it, and hands back the answer or raises
a ``CommandError`` in it.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Generator
from dataclasses import astuple
from functools import lru_cache
from importlib.resources import files
from typing import Any, NamedTuple, Protocol, TypeVar, cast

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimAsk,
    ClaimReport,
    ClaimState,
    ListPools,
    PoolKey,
    PoolUse,
    Reply,
    Report,
    Request,
)

SCRIPT = "".join(files("insider_otel.state").joinpath(name).read_text() for name in ("window.lua", "store.lua"))
"""The script: what reads and writes the record of a pool, as one step."""

_SCRIPT_NAME = hashlib.sha1(SCRIPT.encode(), usedforsecurity=False).hexdigest()

_LONGEST = 1 << 51
"""Microseconds, 71 years: moments stay whole numbers in the script's floating point arithmetic."""

_KEYS_PER_SCAN = 1000

T = TypeVar("T")

Command = tuple[str | bytes | int, ...]


class Node(NamedTuple):
    """A node of a cluster.

    Attributes:
        host: Its host.
        port: Its port.
    """

    host: str
    port: int


Steps = Generator[tuple[Node | None, Command], Any, T]
"""A course of commands that ends with a ``T``. Each comes with the node that it is for; None is the address given."""


class ServerInfo(NamedTuple):
    """What a server says of itself.

    Attributes:
        version: Its kind and version, such as ``Redis 7.0.15``.
        is_cluster: Whether it is a node of a cluster.
    """

    version: str
    is_cluster: bool

    @classmethod
    def read(cls, told: dict[str, Any]) -> ServerInfo:
        """Read the answer to ``INFO server``."""
        valkey = told.get("valkey_version")
        version = f"Valkey {valkey}" if valkey else f"Redis {told.get('redis_version', 'of no known version')}"
        return cls(version, told.get("redis_mode", told.get("server_mode")) == "cluster")


class CommandError(Exception):
    """Raised in a course of commands: a command was not done.

    Args:
        cause: What the driver says.
    """

    def __init__(self, cause: Exception) -> None:
        super().__init__(cause)
        self.cause = cause


class ScriptMissingError(CommandError):
    """The node has forgotten the script, or never had it."""


class KeyMovedError(CommandError):
    """Another node of the cluster has the key.

    Args:
        cause: What the driver says.
        host: The node's host; empty for the host that was asked.
        port: Its port.
    """

    def __init__(self, cause: Exception, host: str, port: int) -> None:
        super().__init__(cause)
        self.host = host
        self.port = port


class NodeLostError(CommandError):
    """The node cannot be reached, or knows nothing of the rest of the cluster."""


class Nodes(Protocol):
    """Who is asked for what."""

    def ask(self, tag: str, command: Command) -> Steps[Any]:
        """Have the node that keeps the keys with a tag do something."""
        ...

    def send(self, node: Node | None, command: Command) -> Steps[Any]:
        """Have a node do something."""
        ...

    def primaries(self) -> Steps[tuple[Node | None, ...]]:
        """The nodes that have all keys between them."""
        ...


class OneServer:
    """A server that has all keys."""

    def ask(self, tag: str, command: Command) -> Steps[Any]:
        """Have it do something; the tag says nothing here."""
        return (yield None, command)

    def send(self, node: Node | None, command: Command) -> Steps[Any]:
        """Have it do something."""
        return (yield node, command)

    def primaries(self) -> Steps[tuple[Node | None, ...]]:
        """The server alone."""
        yield from ()
        return (None,)


class Commands:
    """The commands for requests.

    Args:
        prefix: What all keys begin with.
        nodes: Who is asked for what.

    Raises:
        ValueError: The prefix has characters that mean something in a key or a pattern.
    """

    def __init__(self, prefix: str, nodes: Nodes) -> None:
        if re.fullmatch(r"[A-Za-z0-9_.:-]+", prefix) is None:
            raise ValueError(
                f"state: prefix {prefix!r} of the redis keys may have letters, digits and the characters _ . : - only"
            )
        self._prefix = prefix
        # Another app's prefix may be ours, and more.
        self._pool_key = re.compile(rb"\{%b:((?:[0-9a-f]{2})*)\}:pool:(.*)" % re.escape(prefix).encode(), re.DOTALL)
        self._nodes = nodes

    def course(self, request: Request) -> Steps[Reply]:
        """The course of commands for a request; it ends with the reply."""
        match request:
            case Admit():
                claim = None if request.claim is None else request.claim.key
                answer = yield from self._run("admit", request.pool, _admit(request), claim, request.worker)
                return _admission(answer)
            case Report():
                claim = None if request.claim is None else request.claim.key
                yield from self._run("report", request.pool, _report(request), claim)
                return None
            case ListPools():
                return (yield from self._list())

    def _list(self) -> Steps[tuple[PoolUse, ...]]:
        # The keys themselves are the index: another one could disagree with them once some have expired.
        found: set[bytes] = set()
        for node in (yield from self._nodes.primaries()):
            cursor: Any = 0
            while True:
                scan: Command = ("SCAN", cursor, "MATCH", f"{{{self._prefix}:*}}:pool:*", "COUNT", _KEYS_PER_SCAN)
                cursor, keys = yield from self._nodes.send(node, scan)
                found.update(keys)
                if int(cursor) == 0:
                    break
        uses: list[PoolUse] = []
        for key in filter(None, map(self._pool_key.fullmatch, sorted(found))):
            pool = PoolKey(key[2].decode(), bytes.fromhex(key[1].decode()))
            answer = yield from self._run("list", pool, {})
            # It may have expired meanwhile.
            if answer is not None:
                uses.append(_pool_use(pool, answer))
        return tuple(uses)

    def _run(
        self, what: str, pool: PoolKey, ask: dict[str, Any], claim: bytes | None = None, worker: bytes = b""
    ) -> Steps[Any]:
        # The braces keep all that belongs to an owner in one slot of a cluster.
        tag = f"{self._prefix}:{pool.owner.hex()}"
        keys = [f"{{{tag}}}:{kind}:{pool.pool}" for kind in ("pool", "uses", "workers")]
        if claim is not None:
            keys.append(f"{{{tag}}}:claim:{claim.hex()}")
        words: Command = (len(keys), *keys, what, json.dumps(ask), worker)
        try:
            return (yield from self._nodes.ask(tag, ("EVALSHA", _SCRIPT_NAME, *words)))
        except ScriptMissingError:
            return (yield from self._nodes.ask(tag, ("EVAL", SCRIPT, *words)))


def _admit(request: Admit) -> dict[str, Any]:
    return _without_none(
        limit=_write_limit(request.limit),
        cost=request.cost,
        longest=_microseconds(request.longest_wait),
        holding=request.holding,
        corrections=request.corrections,
        past=request.past,
        claim=None if request.claim is None else _ask_claim(request.claim),
        born=request.born or None,
    )


def _report(request: Report) -> dict[str, Any]:
    return _without_none(
        corrections=request.corrections,
        closed_for=None if request.closed_for is None else _microseconds(request.closed_for),
        learned=_write_limit(request.learned),
        claim=None if request.claim is None else _report_claim(request.claim),
    )


def _ask_claim(claim: ClaimAsk) -> dict[str, Any]:
    return _without_none(lease=_microseconds(claim.lease), token=claim.token)


def _report_claim(claim: ClaimReport) -> dict[str, Any]:
    return _without_none(lasts=_microseconds(claim.lasts), token=claim.token, becomes=claim.end.value)


def _admission(answer: list[Any]) -> Admission:
    wait, slot, closed, used, workers, born, learned, claim, age, token = answer
    return Admission(
        wait=wait / MICROSECONDS,
        slot=slot,
        closed=bool(closed),
        used=used,
        workers=workers,
        born=born,
        learned=_read_limit(learned),
        claim=None if claim is None else ClaimState(claim.decode()),
        claim_age=age / MICROSECONDS,
        token=token,
    )


def _pool_use(pool: PoolKey, answer: list[Any]) -> PoolUse:
    limit, used, closed_for, workers, learned = answer
    return PoolUse(pool, _read_limit(limit), used, closed_for / MICROSECONDS, workers, _read_limit(learned))


# An app has few, and asks with one for each call: 0.4 µs in place of 12.
@lru_cache(maxsize=256)
def _write_limit(limit: Limit | None) -> str | None:
    # Its text is what the record of a pool keeps, so that it comes back exactly as it was given.
    return None if limit is None else json.dumps(astuple(limit))


def _read_limit(text: bytes | None) -> Limit | None:
    return None if text is None else Limit(*cast("list[Any]", json.loads(text)))


def _microseconds(seconds: float) -> int:
    return round(min(seconds, _LONGEST / MICROSECONDS) * MICROSECONDS)


def _without_none(**fields: Any) -> dict[str, Any]:
    # A null is no nil in Lua: what is not there is left out.
    return {name: value for name, value in fields.items() if value is not None}
