"""Whether what a call is sent through is still open."""

from __future__ import annotations

from contextlib import suppress
from typing import Any


class Closing:
    """Says of a client, or of a transport, whether it is closed.

    Clients may share a transport, one after the other or at the same time: it is closed once the last of those that
    entered it has left, or when it is told to close, until it is used again.

    Args:
        client: The client; None for a transport.
    """

    __slots__ = ("_client", "_inside", "ended")

    def __init__(self, client: Any = None) -> None:
        self._client = client
        # One for each client. No number: threads may append and pop at once.
        self._inside: list[None] = []
        self.ended = False
        """Whether a client has left it since it was last used."""

    def enter(self) -> None:
        """A client enters the transport."""
        self._inside.append(None)

    def leave(self) -> None:
        """A client leaves the transport."""
        with suppress(IndexError):
            self._inside.pop()
        self.ended = True

    def close(self) -> None:
        """The transport is closed, whoever is still inside."""
        self._inside.clear()
        self.ended = True

    @property
    def is_closed(self) -> bool:
        """Whether it is closed at present."""
        if self._client is not None:
            return bool(self._client.is_closed)
        return self.ended and not self._inside
