"""Limits and claims in Redis or Valkey: shared by all who reach the server, one round trip for each request."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple, cast

from insider_otel.state.protocol import Request, StoreError
from insider_otel.state.redis_cluster import Cluster
from insider_otel.state.redis_commands import (
    CommandError,
    Commands,
    KeyMovedError,
    Node,
    NodeLostError,
    OneServer,
    ScriptMissingError,
)
from insider_otel.state.redis_loop import LoopClient

try:
    import redis
    import redis.asyncio
except ImportError as error:
    raise ImportError('state redis://… needs redis-py: pip install "insider-otel[redis]"') from error

import redis.asyncio.connection
import redis.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, MovedError, NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

# redis-py has types for most of what it exports, not for all.
_blocking_pool: Callable[..., Any] = redis.BlockingConnectionPool

MOST_CONNECTIONS = 50
"""Connections for the threads of a process; who finds none free waits. An event loop has one.

Of a cluster, so many to each node.
"""

ADD_CLUSTER = "add cluster=true to the address (redis://host:6379?cluster=true)"
"""What to do where the server is one node of a cluster, and the address does not say so."""

# redis-py introduces itself to a server; each word of that would be a round trip before the first answer.
_SILENT: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(redis.connection.AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)


class ServerInfo(NamedTuple):
    """What a server says of itself.

    Attributes:
        version: Its kind and version, such as ``Redis 7.0.15``.
        is_cluster: Whether it is a node of a cluster.
    """

    version: str
    is_cluster: bool


class RedisStore:
    """Limits and claims on a Redis (6.2 or later) or Valkey server. Safe to use from any thread, event loop and
    greenlet, and after a fork.

    Args:
        url: The server: ``redis://``, ``rediss://`` or ``unix://``, with the options of redis-py.
        timeout: Seconds after which a request is given up. From threads, a new connection has as long for being made,
            and as long for logging in.
        prefix: What all keys begin with; who shares it shares limits and claims.
        cluster: Whether the address is that of a cluster, or of one of its nodes, which names the others.

    Raises:
        ValueError: The address or the prefix is not one that can be used.
    """

    name = "redis"

    def __init__(self, url: str, *, timeout: float = 0.05, prefix: str = "insider-otel", cluster: bool = False) -> None:
        options = _read_url(url, redis.connection)
        self._commands = Commands(
            prefix, Cluster(options.get("host", "localhost"), timeout) if cluster else OneServer()
        )
        self._timeout = timeout
        self._is_cluster = cluster
        self.address = _address(options)
        self._password: str | None = options.get("password")
        bounds: dict[str, Any] = {"socket_connect_timeout": timeout, "socket_timeout": timeout}
        self._options = {**options, **bounds, "retry": Retry(NoBackoff(), 0), "timeout": timeout}
        self._clients: dict[Node | None, Any] = {}
        try:
            self._client(None).connection_pool.make_connection()
        except TypeError as error:
            raise ValueError(f"state: an option of {self.address} is not one that redis-py knows: {error}") from None
        self._client(None).connection_pool.reset()
        # An event loop bounds what it sends as a whole, so that its parts need not be.
        bounds["socket_timeout"] = None
        self._loop_options = {**_read_url(url, redis.asyncio.connection), **bounds, "retry": AsyncRetry(NoBackoff(), 0)}
        self._loops: dict[asyncio.AbstractEventLoop, dict[Node | None, LoopClient]] = {}

    def __repr__(self) -> str:
        return f"RedisStore({self.address!r})"

    def perform(self, request: Request) -> Any:
        """Do what is asked, in one step of the server."""
        course, node = self._commands.course(request), None
        try:
            node, command = next(course)
            while True:
                try:
                    answer = self._client(node).execute_command(*command)
                except (RedisError, OSError) as error:
                    node, command = course.throw(_command_error(error))
                else:
                    node, command = course.send(answer)
        except StopIteration as end:
            return end.value
        except CommandError as failed:
            raise self._trouble(failed.cause, node) from failed.cause

    async def perform_async(self, request: Request) -> Any:
        """``perform``, without holding up the event loop."""
        loop = _asyncio_loop()
        if loop is None:
            from anyio.to_thread import run_sync  # noqa: PLC0415  (only trio needs it)

            return await run_sync(self.perform, request)
        clients = self._loops.get(loop) or self._clients_of(loop)
        course, node = self._commands.course(request), None
        try:
            node, command = next(course)
            while True:
                try:
                    client = clients.get(node) or await self._open(clients, node)
                    answer = await client.execute(command)
                except (RedisError, OSError) as error:
                    node, command = course.throw(_command_error(error))
                else:
                    node, command = course.send(answer)
        except StopIteration as end:
            return end.value
        except CommandError as failed:
            raise self._trouble(failed.cause, node) from failed.cause

    def server(self) -> ServerInfo:
        """What the server says of itself.

        Raises:
            StoreError: It says nothing.
        """
        try:
            told = self._client(None).info("server")
        except (RedisError, OSError) as error:
            raise self._trouble(error) from error
        valkey = told.get("valkey_version")
        version = f"Valkey {valkey}" if valkey else f"Redis {told.get('redis_version', 'of no known version')}"
        return ServerInfo(version, told.get("redis_mode", told.get("server_mode")) == "cluster")

    def close(self) -> None:
        """Let go of all connections; those of an event loop are closed by that loop, a moment later or when it ends."""
        for client in list(self._clients.values()):
            client.connection_pool.disconnect()
        for loop, clients in list(self._loops.items()):
            if loop.is_running():
                for client in list(clients.values()):
                    loop.call_soon_threadsafe(client.disconnect)

    def _client(self, node: Node | None) -> Any:
        client = self._clients.get(node)
        if client is None:
            pool = _blocking_pool(**_at(node, self._options))
            client = self._clients.setdefault(node, redis.Redis(connection_pool=pool))
        return client

    def _clients_of(self, loop: asyncio.AbstractEventLoop) -> dict[Node | None, LoopClient]:
        for other in list(self._loops):
            if other.is_closed():
                self._loops.pop(other, None)
        return self._loops.setdefault(loop, {})

    async def _open(self, clients: dict[Node | None, LoopClient], node: Node | None) -> LoopClient:
        pool = redis.asyncio.ConnectionPool(**_at(node, self._loop_options))
        client = clients[node] = LoopClient(redis.asyncio.Redis(connection_pool=pool), self._timeout)
        await client.start()
        return client

    def _trouble(self, error: Exception, node: Node | None = None) -> StoreError:
        where = self.address if node is None else f"{self.address}: node {_host_and_port(*node)}"
        if isinstance(error, (TimeoutError, RedisTimeoutError)):
            return StoreError(f"{where}: no answer within {self._timeout:g} s")
        if isinstance(error, MovedError) and not self._is_cluster:
            return StoreError(
                f"{where}: it is one node of a cluster, and others have a part of the keys: {ADD_CLUSTER}"
            )
        text = str(error)
        if self._password:
            text = text.replace(self._password, "***")
        return StoreError(f"{where}: {type(error).__name__}: {text}")


def _command_error(error: Exception) -> CommandError:
    match error:
        case NoScriptError():
            return ScriptMissingError(error)
        case MovedError():
            moved = cast("Any", error)  # the driver has no types for it
            return KeyMovedError(error, moved.host, moved.port)
        case redis.ConnectionError() | RedisTimeoutError() | OSError() | ClusterDownError():
            return NodeLostError(error)
        case _:
            return CommandError(error)


def _at(node: Node | None, options: dict[str, Any]) -> dict[str, Any]:
    return options if node is None else {**options, **node._asdict()}


def _read_url(url: str, driver: Any) -> dict[str, Any]:
    try:
        options: dict[str, Any] = driver.parse_url(url)
    except ValueError:
        # Its text may hold a part of the password.
        raise ValueError(
            "state: the redis address cannot be read; it is of the form redis://user:password@host:6379/0, "
            "with / @ : and % in user and password percent-encoded"
        ) from None
    # Answers are bytes, a failure is told at once, and a new connection does no more than it must.
    ours = {"decode_responses": False, "retry_on_timeout": False, "protocol": 2, **_SILENT}
    return {"max_connections": MOST_CONNECTIONS, **options, **ours}


def _address(options: dict[str, Any]) -> str:
    if "path" in options:
        return f"unix://{options['path']}"
    scheme = "rediss" if issubclass(options.get("connection_class", redis.Connection), redis.SSLConnection) else "redis"
    at = _host_and_port(options.get("host", "localhost"), options.get("port", 6379))
    return f"{scheme}://{at}/{options.get('db', 0)}"


def _host_and_port(host: str, port: int) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{port}"


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
