"""The fake on a real socket: uvicorn in a thread, and connections that can be reset."""

from __future__ import annotations

import os
import socket
import struct
import threading
from collections.abc import Generator, MutableMapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from insider_otel.api.operations import ANY_HOST
from insider_otel.testing.asgi import RESET, ASGIApp, Receive, Send

try:
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
except ImportError as error:
    raise ImportError('serving the fake needs uvicorn: pip install "insider-otel[testing]"') from error

if TYPE_CHECKING:
    import asyncio


_ADDRESS = "127.0.0.1"
_PATIENCE = 10.0
_SEND_RST_ON_CLOSE = struct.pack("ii", 1, 0)  # SO_LINGER on, for no time


@dataclass(frozen=True, slots=True)
class ServedFake:
    """Where a fake is served.

    Attributes:
        port: Its port.
    """

    port: int

    @property
    def url(self) -> str:
        """Its base URL, without a slash at the end."""
        return f"http://{_ADDRESS}:{self.port}"

    @property
    def hosts(self) -> dict[str, str]:
        """What ``Settings.hosts`` has to be for its address to count as Insider."""
        return {f"{_ADDRESS}:{self.port}": ANY_HOST}


@contextmanager
def serve(app: ASGIApp, port: int = 0) -> Generator[ServedFake]:
    """Serve an ASGI app on 127.0.0.1 for the length of a ``with`` block.

    Args:
        app: The app.
        port: The port; 0 for any that is free.

    Yields:
        Where it is served.

    Raises:
        OSError: The port is taken.
        TimeoutError: The server did not start or stop in time.
    """
    with _listener(port) as listener:
        config = uvicorn.Config(
            app,
            http=ResettableProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
        )
        server = _Server(config)
        thread = threading.Thread(target=server.run, args=([listener],), name="insider-otel-fake", daemon=True)
        thread.start()
        try:
            if not server.ready.wait(_PATIENCE):
                raise TimeoutError(f"the fake did not start within {_PATIENCE:g} s")
            yield ServedFake(listener.getsockname()[1])
        finally:
            server.should_exit = True
            thread.join(_PATIENCE)
    if thread.is_alive():
        raise TimeoutError(f"the fake did not stop within {_PATIENCE:g} s")


def _listener(port: int) -> socket.socket:
    # With the protocol named, asyncio turns Nagle's algorithm off: an answer is two writes and would take 40 ms more.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((_ADDRESS, port))
        listener.listen()
    except OSError:
        listener.close()
        raise
    return listener


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = threading.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        # A client that waits for an answer that never comes is part of the plan: do not wait for it.
        for connection in list(self.server_state.connections):
            connection.transport.abort()
        await super().shutdown(sockets)


class ResettableProtocol(H11Protocol):
    """uvicorn's protocol with the ASGI extension by which the app ends its connection in the middle of things."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has connected."""
        super().connection_made(transport)
        app = self.app

        def reset() -> None:
            transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _SEND_RST_ON_CLOSE)
            transport.abort()

        async def extended(scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
            scope.setdefault("extensions", {})[RESET] = {"reset": reset, "close": transport.close}
            await app(scope, receive, send)

        self.app = extended
