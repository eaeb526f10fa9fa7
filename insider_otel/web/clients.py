"""Clients at hand: one for a process, one for each event loop; closed with them, and made anew after a fork."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import AsyncGenerator, Callable
from types import ModuleType
from typing import Any

import httpx

from insider_otel.http.engine import Engine
from insider_otel.http.instrumentor import cover_client
from insider_otel.http.transport import AsyncEngineTransport, EngineTransport
from insider_otel.state.event_loops import running_loop
from insider_otel.web.per_process import PerProcess


class Clients:
    """The clients of one app. Safe between threads and event loops.

    Args:
        engine: What their calls share.
        module: ``httpx`` or ``httpx2``.
        transport: What sends in place of the network: a fake Insider's transport, in tests.
        prepare_async: What is done with each async client before it is used.
    """

    def __init__(
        self,
        engine: Engine,
        module: ModuleType = httpx,
        *,
        transport: Any = None,
        prepare_async: Callable[[Any], None] | None = None,
    ) -> None:
        self._engine = engine
        self._module: Any = module
        self._transport = transport
        self._prepare_async = prepare_async
        self._opened = PerProcess(_Opened)
        if transport is None and "gevent" in sys.modules:
            # What httpx loads with its first client starts a program (trio looks for a library). Under gevent other
            # greenlets run on in the child before that, and read what visitors have sent: better before any are there.
            self._module.HTTPTransport(verify=False).close()

    def client(self) -> Any:
        """The client of this process: ``httpx.Client``, or ``httpx2.Client``. Opened at its first use."""
        opened = self._opened.get()
        client = opened.client
        if _is_gone(client):
            with opened.lock:
                client = opened.client
                if _is_gone(client):
                    client = opened.client = self._make(is_async=False)
        return client

    async def async_client(self) -> Any:
        """The client of the running event loop: ``httpx.AsyncClient``, or ``httpx2.AsyncClient``.

        Opened at its first use, and closed by ``aclose`` or else by the loop itself when it ends.

        Raises:
            RuntimeError: No asyncio loop runs here.
        """
        loop = running_loop()
        if loop is None:
            raise RuntimeError(
                "an app's async client is that of a running asyncio loop, and none runs here; under trio, open a "
                "client of your own with AsyncInsiderTransport"
            )
        loops = self._opened.get().loops
        mine = loops.get(loop)
        if mine is None or _is_gone(mine.client):
            for other in [each for each in list(loops) if each.is_closed()]:
                loops.pop(other, None)
            mine = loops[loop] = _LoopClient(self._make(is_async=True))
            await mine.start()
        return mine.client

    def close(self) -> None:
        """Close the process's client. The next call of ``client`` opens another."""
        opened = self._opened.get()
        with opened.lock:
            client, opened.client = opened.client, None
        if client is not None:
            client.close()

    async def aclose(self) -> None:
        """Close the running loop's client, if it has one; no other loop than asyncio's has."""
        loop = running_loop()
        mine = None if loop is None else self._opened.get().loops.pop(loop, None)
        if mine is not None:
            await mine.close()

    def _make(self, *, is_async: bool) -> Any:
        client_class = self._module.AsyncClient if is_async else self._module.Client
        if self._transport is None:
            client = client_class()
            cover_client(client, self._engine)
        else:
            transport_class: Any = AsyncEngineTransport if is_async else EngineTransport
            client = client_class(transport=transport_class(self._engine, self._transport))
        if is_async and self._prepare_async is not None:
            self._prepare_async(client)
        return client


def _is_gone(client: Any) -> bool:
    # Whoever got it may have closed it, as in `with client() as mine:`.
    return client is None or client.is_closed


class _Opened:
    """What a process has opened. A child's own is empty: its parent's connections are not to be closed in it either."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.client: Any = None
        self.loops: dict[asyncio.AbstractEventLoop, _LoopClient] = {}


class _LoopClient:
    """A client that its event loop closes when it ends."""

    def __init__(self, client: Any) -> None:
        self.client = client
        self._life = self._live()

    async def start(self) -> None:
        """Have the loop close the client: whoever ends a loop ends its asynchronous generators first."""
        await anext(self._life)

    async def close(self) -> None:
        """Close the client now."""
        await self._life.aclose()

    async def _live(self) -> AsyncGenerator[None]:
        try:
            yield
        finally:
            await self.client.aclose()
