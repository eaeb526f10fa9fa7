"""Whether what a call is sent through is still open."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any


class Closing:
    """Says of a client, or of a transport, whether it is closed.

    Clients may share a transport, one after the other or at the same time: it is closed once the last of those that
    entered it has left, or when it is told to close, until it is used again. Of several that never entered it, it
    cannot tell whose end that is.

    Args:
        client: The client; None for a transport.
    """

    __slots__ = ("_client", "_inside", "_was_closed", "_was_left")

    def __init__(self, client: Any = None) -> None:
        self._client = client
        # One for each client. No number: threads may append and pop at once.
        self._inside: list[None] = []
        # Since it was last used.
        self._was_left = self._was_closed = False

    def enter(self) -> None:
        """A client enters the transport."""
        self._inside.append(None)

    def leave(self) -> None:
        """A client leaves the transport."""
        with suppress(IndexError):
            self._inside.pop()
        self._was_left = True

    def close(self) -> None:
        """The transport is closed; of several clients inside nobody says which one did it, and the others go on."""
        if len(self._inside) <= 1:
            self._inside.clear()
        self._was_closed = True

    def begin(self) -> Callable[[], bool]:
        """A call begins; returns what says whether its client is closed."""
        client = self._client
        if client is not None:
            return lambda: bool(client.is_closed)
        self._was_left = self._was_closed = False
        # With nobody inside, its client never entered, and is none of those that leave.
        entered = bool(self._inside)
        return lambda: (self._was_closed or (self._was_left and entered)) and not self._inside
