"""Whether a store can be used, as far as one process knows: a store in trouble is left alone for a second."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass

from insider_otel.state.protocol import Store, StoreError

RETRY_EVERY = 1.0
"""Seconds from one try of a store in trouble to the next, which the first call after them makes."""

_log = logging.getLogger("insider_otel")


@dataclass(slots=True)
class Caller:
    """One call, as far as the store's troubles concern it: it waits for a store once in each spell of trouble.

    Attributes:
        met: The spell of trouble that it has met; -1 before the first.
    """

    met: int = -1


class Availability:
    """Whether a store is well or in trouble. Safe between threads.

    Args:
        store: The store.
        clock: Returns seconds; only differences matter.
    """

    __slots__ = ("_ask_again_at", "_clock", "_has_news", "_lock", "_spell", "_store")

    def __init__(self, store: Store, clock: Callable[[], float]) -> None:
        self._store = store
        self._clock = clock
        self._lock = threading.Lock()
        # Even while the store is well, odd while it is in trouble; one more at each change.
        self._spell = 0
        self._ask_again_at = 0.0
        self._has_news = False

    @property
    def is_away(self) -> bool:
        """Whether the store is in trouble."""
        return _is_trouble(self._spell)

    def may_ask(self, caller: Caller) -> int | None:
        """Whether the store is well, or it is this call's turn to see whether it is again.

        Args:
            caller: The call.

        Returns:
            The present spell, of which the answer will be news; None if the store is not to be asked.
        """
        if not self.is_away:
            return self._spell
        with self._lock:
            now = self._clock()
            if _is_trouble(self._spell):
                # One asks that has not waited yet; the others do not wait for a store that may be as it was.
                if now < self._ask_again_at or caller.met == self._spell:
                    return None
                self._ask_again_at = now + RETRY_EVERY
            return self._spell

    def failed(self, error: StoreError, spell: int, asked: float, caller: Caller) -> None:
        """The store could not be used: say so, if that is news.

        Args:
            error: Why.
            spell: The spell in which it was asked.
            asked: The moment at which it was asked.
            caller: The call that waited for it.
        """
        with self._lock:
            is_news = spell == self._spell and not _is_trouble(spell)
            if is_news:
                # From the ask, not from its failure: calls that come a second apart would else miss every other turn.
                self._ask_again_at = asked + RETRY_EVERY
                self._spell += 1
                self._has_news = True
            caller.met = self._spell
        # Whoever asked in an earlier spell tells of that.
        if is_news:
            _log.warning(
                "the %s store %s cannot be used (%s); this process holds its share of each limit until it is back",
                self._store.name,
                self._store.address,
                str(error).removeprefix(f"{self._store.address}: "),
            )

    def answered(self, spell: int) -> bool:
        """The store has answered: say so, if that is news.

        Args:
            spell: The spell in which it was asked.

        Returns:
            Whether it was well before, so that it has missed nothing.
        """
        if not _is_trouble(spell):
            return True
        with self._lock:
            is_news = spell == self._spell
            if is_news:
                self._spell += 1
                self._has_news = False
        if is_news:
            _log.warning("the %s store %s is back", self._store.name, self._store.address)
        return False

    def take_news(self) -> bool:
        """Whether the store was lost, and no call has said so yet."""
        with self._lock:
            news, self._has_news = self._has_news, False
            return news


def _is_trouble(spell: int) -> bool:
    return spell % 2 == 1
