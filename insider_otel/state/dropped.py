"""What is left to do for a call that was dropped in the middle, or a response that nobody has closed.

The garbage collector finds them: when an event loop is closed with calls in it, for instance. It may do so in the
middle of anything, in a thread that holds any lock, one of ours or of the SDK's. So nothing is done then but to say
what is to be done, and whoever comes next does it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable

_log = logging.getLogger("insider_otel")
_dropped: deque[Callable[[], object]] = deque()


def finish_later(finish: Callable[[], object]) -> None:
    """Have something done by whoever comes next. Takes no lock.

    Args:
        finish: Does it.
    """
    _dropped.append(finish)


def finish_dropped() -> None:
    """Do what was left to do. Whoever does it has a call of its own to make, which nothing here stops."""
    while _dropped:
        try:
            finish = _dropped.popleft()
        except IndexError:
            return  # another thread does it
        try:
            finish()
        except Exception as error:  # noqa: BLE001  (whatever a span processor raises)
            _log.error("a dropped call could not be tidied up after: %s", type(error).__name__)


def forget_dropped() -> None:
    """Start anew, in a forked child: its parent does what is left to do."""
    _dropped.clear()
