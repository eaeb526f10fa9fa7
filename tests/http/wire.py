"""A scripted HTTP/1.1 server on a real socket, that can misbehave below HTTP: reset, stall, cut a body short."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import h11

UPSERTED = b'{"data": {"successful": {"count": 1}, "fail": {}}}'


@dataclass
class Seen:
    """One request as it came over the wire."""

    method: str
    target: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Reply:
    """What the server answers.

    Attributes:
        status: HTTP status.
        body: Body.
        headers: More headers.
        claim: Content-Length to claim, if not the true one; the connection closes after ``body``.
        reset: Reset the connection instead of answering.
        stall: Answer nothing, until the client goes away.
        wait_for: Wait for this event before answering.
        arrived: Set once the request is here.
    """

    status: int = 200
    body: bytes = UPSERTED
    headers: dict[str, str] = field(default_factory=dict)
    claim: int | None = None
    reset: bool = False
    stall: bool = False
    wait_for: threading.Event | None = None
    arrived: threading.Event | None = None


class Wire:
    """The server. ``script`` holds the replies to come; when it is empty, every request is answered well."""

    def __init__(self) -> None:
        self.script: list[Reply] = []
        self.seen: list[Seen] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.address = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.address}"
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._serve, args=(connection,), daemon=True)
            thread.start()
            self._threads.append(thread)

    def _serve(self, connection: socket.socket) -> None:
        with connection:
            protocol = h11.Connection(h11.SERVER)
            try:
                while self._serve_one(connection, protocol):
                    protocol.start_next_cycle()
            except (OSError, h11.ProtocolError):
                return

    def _serve_one(self, connection: socket.socket, protocol: h11.Connection) -> bool:
        seen, body = None, b""
        while True:
            event = protocol.next_event()
            if event is h11.NEED_DATA:
                protocol.receive_data(connection.recv(65536))
            elif isinstance(event, h11.Request):
                headers = {name.decode(): value.decode() for name, value in event.headers}
                seen = Seen(event.method.decode(), event.target.decode(), headers, b"")
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
            elif isinstance(event, h11.EndOfMessage):
                break
            else:
                return False
        assert seen is not None
        seen.body = body
        self.seen.append(seen)
        return self._answer(connection, protocol, self.script.pop(0) if self.script else Reply())

    def _answer(self, connection: socket.socket, protocol: h11.Connection, reply: Reply) -> bool:
        if reply.arrived is not None:
            reply.arrived.set()
        if reply.wait_for is not None:
            reply.wait_for.wait(10)
        if reply.stall:
            connection.recv(1)
            return False
        if reply.reset:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return False
        length = str(len(reply.body) if reply.claim is None else reply.claim)
        headers = {"content-type": "application/json", "content-length": length, **reply.headers}
        head = f"HTTP/1.1 {reply.status} Status\r\n" + "".join(f"{k}: {v}\r\n" for k, v in headers.items()) + "\r\n"
        connection.sendall(head.encode() + reply.body)
        if reply.claim is not None:
            return False
        protocol.send(h11.Response(status_code=reply.status, headers=[("content-length", str(len(reply.body)))]))
        protocol.send(h11.Data(data=reply.body))
        protocol.send(h11.EndOfMessage())
        return protocol.our_state is h11.DONE

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            connection.close()
        for thread in [self._accepting, *self._threads]:
            thread.join(5)


@contextmanager
def wire() -> Iterator[Wire]:
    server = Wire()
    try:
        yield server
    finally:
        server.close()
