"""A server of HTTP/2 with prior knowledge, on a real socket; answers every request well."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded
from h2.exceptions import ProtocolError

from .wire import UPSERTED


def _serve(listener: socket.socket) -> None:
    while True:
        try:
            connection, _ = listener.accept()
        except OSError:
            return
        with connection:
            protocol = H2Connection(H2Configuration(client_side=False))
            protocol.initiate_connection()
            connection.sendall(protocol.data_to_send())
            while data := connection.recv(65536):
                try:
                    events = protocol.receive_data(data)
                except ProtocolError:
                    break
                for event in events:
                    if isinstance(event, StreamEnded):
                        assert event.stream_id is not None
                        headers = [(":status", "200"), ("content-type", "application/json")]
                        protocol.send_headers(event.stream_id, headers)
                        protocol.send_data(event.stream_id, UPSERTED, end_stream=True)
                connection.sendall(protocol.data_to_send())


@contextmanager
def wire2() -> Iterator[str]:
    """Serve; yields ``address:port``."""
    listener = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=_serve, args=(listener,), daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        thread.join(5)
