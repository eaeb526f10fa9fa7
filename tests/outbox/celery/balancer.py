"""A load balancer in front of a broker."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress


class Balancer:
    """Passes bytes on between clients and a server, and can close the connections of both.

    Args:
        port: The server's, on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._server_port = port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._sockets: list[socket.socket] = []
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self._server_port))
                self._sockets += [client, server]
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=_pass_on, args=ends, daemon=True).start()

    def drop(self) -> None:
        """Close every connection, as after a time in which nothing was said."""
        while self._sockets:
            with self._sockets.pop() as end, suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Be gone."""
        with suppress(OSError):
            # Whoever accepts is woken.
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.drop()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65_536):
            target.sendall(chunk)


@contextmanager
def balancer(port: int) -> Iterator[Balancer]:
    """A load balancer for the length of a test."""
    made = Balancer(port)
    try:
        yield made
    finally:
        made.close()
