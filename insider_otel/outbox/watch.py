"""How full the outboxes of this process are, for whoever looks often: gauges and health pages."""

from __future__ import annotations

import logging
import time
import weakref
from collections.abc import Callable
from typing import Protocol, cast

from insider_otel.outbox.protocol import JobStore, Outbox, OutboxError, Stats

_KEPT_FOR = 1.0
"""Seconds for which what an outbox said is repeated instead of asking it again."""

_log = logging.getLogger("insider_otel.outbox")


class Works(Protocol):
    """A worker, as far as others want to know of it."""

    @property
    def is_alive(self) -> bool:
        """Whether it works."""
        ...


class Watch:
    """Looks at one outbox, and asks it once a second at most.

    Args:
        outbox: The outbox.
        clock: Returns seconds; only differences matter.

    Attributes:
        outbox: The outbox.
        workers: The workers of this process that send its jobs.
    """

    def __init__(self, outbox: Outbox, clock: Callable[[], float] = time.monotonic) -> None:
        self.outbox = outbox
        self.workers: weakref.WeakSet[Works] = weakref.WeakSet()
        self._clock = clock
        self._last: tuple[float, Stats | None] | None = None

    @property
    def can_tell(self) -> bool:
        """Whether the outbox knows how full it is: what its jobs wait in may be a broker that others ask."""
        return hasattr(self.outbox, "stats")

    def stats(self) -> Stats | None:
        """How full it is; None if it cannot be asked."""
        now = self._clock()
        if self._last is None or not 0 <= now - self._last[0] < _KEPT_FOR:
            self._last = now, self._ask()
        return self._last[1]

    def forget(self) -> None:
        """Ask again at the next look."""
        self._last = None

    def _ask(self) -> Stats | None:
        try:
            return cast("JobStore", self.outbox).stats()
        except OutboxError as error:
            _log.debug("the outbox cannot be asked how full it is: %s", error)
            return None


# By what cannot be another's while the watch lives, for it holds the outbox.
_watches: weakref.WeakValueDictionary[int, Watch] = weakref.WeakValueDictionary()


def watch(outbox: Outbox) -> Watch:
    """What looks at an outbox: the same one each time, as long as somebody holds it.

    Args:
        outbox: The outbox.
    """
    return _watches.setdefault(id(outbox), Watch(outbox))


def all_watches() -> tuple[Watch, ...]:
    """What looks at the outboxes that this process uses."""
    return tuple(_watches.values())
