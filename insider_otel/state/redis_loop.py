"""How an event loop asks a Redis server: over one connection, all that is asked meanwhile sent together."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncGenerator
from typing import Any

from insider_otel.state.redis_commands import Command

MOST_AT_ONCE = 30
"""Commands that an event loop sends at once: a server answers them in a few milliseconds."""


class LoopClient:
    """The connection of one event loop; the loop closes it when it ends.

    What is asked while an answer is awaited is sent together, as soon as that has come: however many ask at once, they
    wait for each other no longer than it takes the server to answer them. If it does not, all of them know.

    Args:
        client: The driver's client for event loops, with a pool of its own.
        timeout: Seconds within which the server answers what it is sent at once.
    """

    def __init__(self, client: Any, timeout: float) -> None:
        self._client = client
        self._timeout = timeout
        self._waiting: deque[tuple[Command, asyncio.Future[Any]]] = deque()
        self._sender: asyncio.Future[None] | None = None
        self._closing: asyncio.Future[None] | None = None
        self._life = self._live()

    async def start(self) -> None:
        """Have the loop close the connection: whoever ends a loop ends its asynchronous generators first."""
        await anext(self._life)

    def disconnect(self) -> None:
        """Begin to close the connection, unless it is in use. Called in the loop."""
        if self._closing is None or self._closing.done():
            self._closing = asyncio.ensure_future(self._client.connection_pool.disconnect(inuse_connections=False))

    async def execute(self, command: Command) -> Any:
        """Send a command and await its answer.

        Args:
            command: The command.

        Raises:
            TimeoutError: There was none in time.
            Exception: It cannot be done: what the driver raises.
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
                trouble = error if isinstance(error, Exception) else ConnectionError("the event loop ends")
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
            await self._client.connection_pool.disconnect()


def _settle(answer: asyncio.Future[Any], told: object) -> None:
    if answer.done():
        return  # who asked was cancelled
    if isinstance(told, Exception):
        answer.set_exception(told)
    else:
        answer.set_result(told)
