"""Limits and claims in Redis or Valkey: shared by all who reach the server, one round trip for each request."""

from __future__ import annotations

import asyncio
import inspect
import ssl
import sys
import traceback
from collections.abc import Callable, Set
from contextlib import suppress
from typing import Any

from insider_otel.state.event_loops import running_loop
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
    ServerInfo,
)
from insider_otel.state.redis_loop import LoopClient
from insider_otel.state.redis_tls import TLS

try:
    import redis
    import redis.asyncio
except ImportError as error:
    raise ImportError('state redis://… needs redis-py: pip install "insider-otel[redis]"') from error

import redis.asyncio.connection
import redis.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import ClusterDownError, MovedError, NoScriptError, ReadOnlyError, RedisError
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

# A host that no name can be, which a node of a cluster may tell too, is a UnicodeError.
_TROUBLE = (RedisError, OSError, UnicodeError)

# redis-py introduces itself to a server; each word of that would be a round trip before the first answer.
_SILENT: dict[str, Any] = (
    {"driver_info": None}
    if "driver_info" in inspect.signature(redis.connection.AbstractConnection.__init__).parameters
    else {"lib_name": None, "lib_version": None}
)


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
        StoreError: A certificate that the address names is missing, or is none.
    """

    name = "redis"

    def __init__(self, url: str, *, timeout: float = 0.05, prefix: str = "insider-otel", cluster: bool = False) -> None:
        options = _read_url(url, redis.connection)
        host = options.get("host", "localhost")
        self._commands = Commands(prefix, Cluster(host, timeout, self._forget_others) if cluster else OneServer())
        self._timeout = timeout
        self._is_cluster = cluster
        self.address = _address(options)
        self._password: str | None = options.get("password")
        bounds: dict[str, Any] = {"socket_connect_timeout": timeout, "socket_timeout": timeout}
        self._options = {**options, **bounds, "retry": Retry(NoBackoff(), 0), "timeout": timeout}
        # An event loop bounds what it sends as a whole, so that its parts need not be.
        bounds["socket_timeout"] = None
        self._loop_options = {**_read_url(url, redis.asyncio.connection), **bounds, "retry": AsyncRetry(NoBackoff(), 0)}
        self._clients: dict[Node | None, Any] = {}
        self._loops: dict[asyncio.AbstractEventLoop, dict[Node | None, LoopClient]] = {}
        try:
            if _has_tls(options):
                tls = TLS(self._loop_options)
                self._options |= {"tls": tls, "connection_class": _TLSConnection}
                self._loop_options |= {"tls": tls, "connection_class": _AsyncTLSConnection}
            self._client(None).connection_pool.make_connection()
        except TypeError as error:
            raise ValueError(f"state: an option of {self.address} is not one that redis-py knows: {error}") from None
        except (RedisError, OSError) as error:
            raise StoreError(f"{self.address}: its options ssl_… cannot be used: {error}") from error
        self._client(None).connection_pool.reset()

    def __repr__(self) -> str:
        return f"RedisStore({self.address!r})"

    def perform(self, request: Request) -> Any:
        """Do what is asked, in one step of the server."""
        course, node = self._commands.course(request), None
        # The app may be dealing with an exception of its own.
        handled = sys.exception()
        try:
            node, command = next(course)
            while True:
                try:
                    answer = self._client(node).execute_command(*command)
                except _TROUBLE as error:
                    _clear_frames(error, handled)
                    if _is_demoted(error):
                        # Others may be using its connections: they go with the last who does.
                        self._clients.pop(node, None)
                    node, command = course.throw(_command_error(error))
                else:
                    node, command = course.send(answer)
        except StopIteration as end:
            return end.value
        except CommandError as failed:
            raise self._trouble(failed.cause, node) from failed.cause

    async def perform_async(self, request: Request) -> Any:
        """``perform``, without holding up the event loop."""
        loop = running_loop()
        if loop is None:
            from anyio.to_thread import run_sync  # noqa: PLC0415  (only trio needs it)

            return await run_sync(self.perform, request)
        clients = self._loops.get(loop) or self._clients_of(loop)
        course, node = self._commands.course(request), None
        try:
            node, command = next(course)
            while True:
                client = clients.get(node) or await self._open(clients, node)
                try:
                    answer = await client.execute(command)
                except _TROUBLE as error:
                    if _is_demoted(error):
                        client.disconnect()
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
            return ServerInfo.read(self._client(None).info("server"))
        except _TROUBLE as error:
            raise self._trouble(error) from error

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

    def _forget_others(self, nodes: Set[Node | None]) -> None:
        # What others are using goes with the last who does.
        for node in set(self._clients) - nodes:
            self._clients.pop(node, None)
        for loop, clients in list(self._loops.items()):
            for node in set(clients) - nodes:
                client = clients.pop(node, None)
                # A loop that has ended has closed it.
                with suppress(RuntimeError):
                    if client is not None:
                        loop.call_soon_threadsafe(client.disconnect)

    def _trouble(self, error: Exception, node: Node | None = None) -> StoreError:
        where = self.address if node is None else f"{self.address}: node {_host_and_port(*node)}"
        if isinstance(error, (TimeoutError, RedisTimeoutError)):
            return StoreError(f"{where}: no answer within {self._timeout:g} s")
        if _says(error, "MOVED", MovedError) and not self._is_cluster:
            return StoreError(
                f"{where}: it is one node of a cluster, and others have a part of the keys: {ADD_CLUSTER}"
            )
        text = str(error)
        if self._password:
            text = text.replace(self._password, "***")
        return StoreError(f"{where}: {type(error).__name__}: {text}")


class _TLSConnection(redis.SSLConnection):
    """A connection with a TLS context that was made before."""

    def __init__(self, *, tls: TLS, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]
        self._tls = tls

    def _wrap_socket_with_ssl(self, sock: Any) -> ssl.SSLSocket:
        if self._tls.is_outdated:
            self._tls.renew()
        return self._tls.context.wrap_socket(sock, server_hostname=self.host)


class _AsyncTLSConnection(redis.asyncio.SSLConnection):
    """The same for an event loop."""

    def __init__(self, *, tls: TLS, **options: Any) -> None:
        super().__init__(**options)  # pyright: ignore[reportUnknownMemberType]
        self._tls = tls

    async def _connect(self) -> None:
        if self._tls.is_outdated:
            # Reading the files would hold up the event loop.
            await asyncio.to_thread(self._tls.renew)
        self.ssl_context.context = self._tls.context
        await super()._connect()  # type: ignore[no-untyped-call]


def _has_tls(options: dict[str, Any]) -> bool:
    return issubclass(options.get("connection_class", redis.Connection), redis.SSLConnection)


def _clear_frames(error: BaseException | None, handled: BaseException | None) -> None:
    # Its frames hold the connections that it met, and those of the driver hold each other until they are collected.
    while error is not None and error is not handled:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _command_error(error: Exception) -> CommandError:
    if isinstance(error, NoScriptError):
        return ScriptMissingError(error)
    if _says(error, "MOVED", MovedError):
        host, _, port = str(error).rpartition(" ")[2].rpartition(":")
        return KeyMovedError(error, host, int(port))
    if isinstance(error, (redis.ConnectionError, RedisTimeoutError, OSError, UnicodeError)) or _says(
        error, "CLUSTERDOWN", ClusterDownError
    ):
        return NodeLostError(error)
    return CommandError(error)


def _is_demoted(error: Exception) -> bool:
    """Whether another server is the primary now: who connects anew may be led there."""
    # Redis 6.2 says so inside an error of the script.
    return isinstance(error, ReadOnlyError) or "-READONLY " in str(error)


def _says(error: Exception, word: str, kind: type[Exception]) -> bool:
    # Not every redis-py has a class for it outside its own client for clusters.
    return isinstance(error, kind) or str(error).startswith(f"{word} ")


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
    scheme = "rediss" if _has_tls(options) else "redis"
    at = _host_and_port(options.get("host", "localhost"), options.get("port", 6379))
    return f"{scheme}://{at}/{options.get('db', 0)}"


def _host_and_port(host: str, port: int) -> str:
    return f"{f'[{host}]' if ':' in host else host}:{port}"
