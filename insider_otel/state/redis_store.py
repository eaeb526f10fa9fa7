"""Limits and claims in Redis or Valkey: shared by all who reach the server, one round trip for each request."""

from __future__ import annotations

import asyncio
import inspect
from collections import deque
from collections.abc import AsyncGenerator, Callable
from typing import Any

from insider_otel.state.protocol import Request, StoreError
from insider_otel.state.redis_commands import Command, Commands, ScriptMissingError

try:
    import redis
    import redis.asyncio
except ImportError as error:
    raise ImportError('state redis://… needs redis-py: pip install "insider-otel[redis]"') from error

import redis.asyncio.connection
import redis.connection
from redis.asyncio.retry import Retry as AsyncRetry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, RedisError
from redis.exceptions import TimeoutError as RedisTimeoutError
from redis.retry import Retry

# redis-py has types for most of what it exports, not for all.
_blocking_pool: Callable[..., Any] = redis.BlockingConnectionPool

MOST_CONNECTIONS = 50
"""Connections for the threads of a process; who finds none free waits. An event loop has one."""

MOST_AT_ONCE = 30
"""Commands that an event loop sends at once: a server answers them in a few milliseconds."""

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

    Raises:
        ValueError: The address or the prefix is not one that can be used.
    """

    name = "redis"

    def __init__(self, url: str, *, timeout: float = 0.05, prefix: str = "insider-otel") -> None:
        self._commands = Commands(prefix)
        self._timeout = timeout
        options = _read_url(url, redis.connection)
        self.address = _address(options)
        self._password: str | None = options.get("password")
        bounds: dict[str, Any] = {"socket_connect_timeout": timeout, "socket_timeout": timeout}
        pool = _blocking_pool(**options, **bounds, retry=Retry(NoBackoff(), 0), timeout=timeout)
        try:
            pool.make_connection()
        except TypeError as error:
            raise ValueError(f"state: an option of {self.address} is not one that redis-py knows: {error}") from None
        pool.reset()
        self._client: Any = redis.Redis(connection_pool=pool)
        # An event loop bounds what it sends as a whole, so that its parts need not be.
        bounds["socket_timeout"] = None
        self._loop_options = {**_read_url(url, redis.asyncio.connection), **bounds, "retry": AsyncRetry(NoBackoff(), 0)}
        self._loops: dict[asyncio.AbstractEventLoop, _LoopClient] = {}

    def __repr__(self) -> str:
        return f"RedisStore({self.address!r})"

    def perform(self, request: Request) -> Any:
        """Do what is asked, in one step of the server."""
        course = self._commands.course(request)
        try:
            command = next(course)
            while True:
                try:
                    answer = self._client.execute_command(*command)
                except NoScriptError:
                    command = course.throw(ScriptMissingError())
                else:
                    command = course.send(answer)
        except StopIteration as end:
            return end.value
        except (RedisError, OSError) as error:
            raise self._trouble(error) from error

    async def perform_async(self, request: Request) -> Any:
        """``perform``, without holding up the event loop."""
        loop = _asyncio_loop()
        if loop is None:
            from anyio.to_thread import run_sync  # noqa: PLC0415  (only trio needs it)

            return await run_sync(self.perform, request)
        client = self._loops.get(loop) or await self._open(loop)
        course = self._commands.course(request)
        try:
            command = next(course)
            while True:
                try:
                    answer = await client.execute(command)
                except NoScriptError:
                    command = course.throw(ScriptMissingError())
                else:
                    command = course.send(answer)
        except StopIteration as end:
            return end.value
        except (RedisError, OSError) as error:
            raise self._trouble(error) from error

    def server(self) -> str:
        """The server's kind and version, such as ``Redis 7.0.15``.

        Raises:
            StoreError: It does not say.
        """
        try:
            told = self._client.info("server")
        except (RedisError, OSError) as error:
            raise self._trouble(error) from error
        valkey = told.get("valkey_version")
        return f"Valkey {valkey}" if valkey else f"Redis {told.get('redis_version', 'of no known version')}"

    def close(self) -> None:
        """Let go of all connections; those of an event loop are closed by that loop, a moment later or when it ends."""
        self._client.connection_pool.disconnect()
        for loop, client in list(self._loops.items()):
            if loop.is_running():
                loop.call_soon_threadsafe(client.disconnect)

    async def _open(self, loop: asyncio.AbstractEventLoop) -> _LoopClient:
        for other in list(self._loops):
            if other.is_closed():
                self._loops.pop(other, None)
        client = self._loops[loop] = _LoopClient(self._loop_options, self._timeout)
        await client.start()
        return client

    def _trouble(self, error: Exception) -> StoreError:
        if isinstance(error, (TimeoutError, RedisTimeoutError)):
            return StoreError(f"{self.address}: no answer within {self._timeout:g} s")
        text = str(error)
        if self._password:
            text = text.replace(self._password, "***")
        return StoreError(f"{self.address}: {type(error).__name__}: {text}")


class _LoopClient:
    """The connection of one event loop; the loop closes it when it ends.

    What is asked while an answer is awaited is sent together, as soon as that has come: however many ask at once, they
    wait for each other no longer than it takes the server to answer them. If it does not, all of them know.

    Args:
        options: Of the connection.
        timeout: Seconds within which the server answers what it is sent at once.
    """

    def __init__(self, options: dict[str, Any], timeout: float) -> None:
        self._timeout = timeout
        self._pool = redis.asyncio.ConnectionPool(**options)
        self._client: Any = redis.asyncio.Redis(connection_pool=self._pool)
        self._waiting: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._sender: asyncio.Future[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._life = self._live()

    async def start(self) -> None:
        """Have the loop close the connection: whoever ends a loop ends its asynchronous generators first."""
        await anext(self._life)

    def disconnect(self) -> None:
        """Begin to close the connection, unless it is in use. Called in the loop."""
        self._closing = asyncio.ensure_future(self._pool.disconnect(inuse_connections=False))

    async def execute(self, command: Command) -> Any:
        """Send a command and await its answer.

        Args:
            command: The command.

        Raises:
            TimeoutError: There was none in time.
            RedisError: It cannot be done.
        """
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting.append((command, answer))
        if self._sender is None or self._sender.done():
            # A task of its own: who is cancelled while waiting takes nobody's answer along.
            self._sender = asyncio.ensure_future(self._send())
        return await answer

    async def _send(self) -> None:
        while self._waiting:
            batch = [self._waiting.popleft() for _ in range(min(len(self._waiting), MOST_AT_ONCE))]
            try:
                answers = await self._send_batch([command for command, _ in batch])
            except BaseException as error:
                trouble = error if isinstance(error, Exception) else redis.ConnectionError("the event loop ends")
                for _, answer in (*batch, *self._waiting):
                    _settle(answer, trouble)
                self._waiting.clear()
                if trouble is not error:
                    raise
            else:
                for (_, answer), told in zip(batch, answers, strict=True):
                    _settle(answer, told)

    async def _send_batch(self, commands: list[Command]) -> list[Any]:
        loop = asyncio.get_running_loop()
        async with asyncio.timeout(None) as bound:
            # By way of a callback: if the loop itself was held up, it reads first what has come meanwhile.
            timer = loop.call_later(self._timeout, lambda: bound.reschedule(loop.time()))
            try:
                if self._closing is not None:
                    # Else it could take a connection that is about to be closed.
                    await asyncio.wait([self._closing])
                pipeline = self._client.pipeline(transaction=False)
                for command in commands:
                    pipeline.execute_command(*command)
                answers: list[Any] = await pipeline.execute(raise_on_error=False)
                return answers
            finally:
                timer.cancel()

    async def _live(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self._pool.disconnect()


def _settle(answer: asyncio.Future[Any], told: object) -> None:
    if answer.done():
        return  # who asked was cancelled
    if isinstance(told, Exception):
        answer.set_exception(told)
    else:
        answer.set_result(told)


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
    host = options.get("host", "localhost")
    return f"{scheme}://{f'[{host}]' if ':' in host else host}:{options.get('port', 6379)}/{options.get('db', 0)}"


def _asyncio_loop() -> asyncio.AbstractEventLoop | None:
    try:
        return asyncio.get_running_loop()
    except RuntimeError:
        return None
