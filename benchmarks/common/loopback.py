"""A server on a socket, in a process of its own, that says yes to everything as fast as Python can.

It reads a request's length and sends the same bytes back: what is measured is the client. ``python -m
benchmarks.common.loopback SECONDS`` prints its port, answers each request after so many seconds, and ends with its
standard input.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager

from benchmarks.common.calls import REPLY

_HEAD_END = b"\r\n\r\n"
_LENGTH = b"content-length:"
_ANSWER = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncf-ray: 8f00000000000000-IST\r\n"
    b"content-length: " + str(len(REPLY)).encode() + _HEAD_END + REPLY
)


class _Connection(asyncio.Protocol):
    def __init__(self, delay: float) -> None:
        self._delay = delay
        self._received = b""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._received += data
        head, end, rest = self._received.partition(_HEAD_END)
        if not end:
            return
        head = head.lower()
        start = head.find(_LENGTH)
        length = int(head[start + len(_LENGTH) :].split(b"\r\n", 1)[0]) if start >= 0 else 0
        if len(rest) < length:
            return
        self._received = rest[length:]
        if self._delay:
            asyncio.get_running_loop().call_later(self._delay, self._answer)
        else:
            self._answer()

    def _answer(self) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(_ANSWER)


async def _serve(delay: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(delay), "127.0.0.1", 0, backlog=2048)
    print(server.sockets[0].getsockname()[1], flush=True)
    await asyncio.to_thread(sys.stdin.read)
    server.close()


@contextmanager
def loopback(delay: float = 0.0) -> Generator[int]:
    """Serve for the length of a ``with`` block.

    Args:
        delay: Seconds from a request to its answer.

    Yields:
        The port on 127.0.0.1.
    """
    command = [sys.executable, "-m", "benchmarks.common.loopback", str(delay)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stdin is not None
        try:
            yield int(server.stdout.readline())
        finally:
            server.stdin.close()


if __name__ == "__main__":
    asyncio.run(_serve(float(sys.argv[1])))
