"""Which limit a pool is held to: the documented one, the app's own, or what Insider says at run time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from insider_otel.api.operations import Limit, Operation
from insider_otel.api.verdict import RateLimit

UNDOCUMENTED_WINDOW = 60.0
"""Seconds to wait after "too many requests" where neither the reply nor the documentation names a window."""

MIDNIGHT_GUARD = 2.0
"""Seconds. What is this close to midnight belongs to the days on both sides of it: Insider's clock may be a little
ahead of ours, or behind."""


def limit_of(operation: Operation, limits: Mapping[str, Limit | None], learned: Limit | None) -> Limit | None:
    """The limit that the calls of an operation are held to.

    Insider's own word at run time beats its documentation: what its headers name may raise a limit or lower it, what a
    message names may lower it, and raise it as far as documented (``told_by``). A limit from the settings may be a
    share of the real one, so Insider's word can only lower it.

    Args:
        operation: The operation.
        limits: The app's limits, by pool; None lifts one.
        learned: What Insider said at run time.

    Returns:
        The limit; None if there is none, or the app lifted it.
    """
    if operation.pool not in limits:
        return learned or operation.limit
    own = limits[operation.pool]
    if own is None or learned is None:
        return own
    return min(own, learned, key=_rate)


def told_by(said: RateLimit | None, believed: Limit | None, documented: Limit | None) -> Limit | None:
    """The limit that a reply names, where it differs from the one believed in.

    A message is written for people: whoever is refused under one limit and reads of a higher one has met another. So
    words lower a limit, and raise it no higher than the documents do. Nor does a rolling window that allows more take
    the place of a day: both may hold at once.

    Args:
        said: What the reply says of the limit.
        believed: The limit the pool is held to.
        documented: The limit of the documentation; None if there is none.

    Returns:
        The limit that Insider names; None if it names none, or the one believed in.
    """
    if said is None or not said.limit:
        return None
    if believed is not None and said.window in {None, believed.window}:
        told = replace(believed, count=said.limit)
    elif said.window:
        told = Limit(said.limit, said.window)
    else:
        return None  # a number without a window
    if believed is not None and (said.in_words or told.calendar is not believed.calendar):
        if _rate(told) < _rate(believed):
            return told
        # What words have lowered they may raise again.
        is_back = documented is not None and told.calendar is documented.calendar and _rate(told) <= _rate(documented)
        return told if is_back and told != believed else None
    return None if told == believed else told


def opens_in(limit: Limit | None, wall_time: float) -> float:
    """Seconds after which a limit that is used up certainly allows a request again.

    Args:
        limit: The limit; None if none is known.
        wall_time: Seconds since 1970: limits of a UTC day end with it.
    """
    if limit is None:
        return UNDOCUMENTED_WINDOW
    # Of a rolling window only the oldest request's age could tell the rest; this one is sure. A day is not over before
    # it is by Insider's clock.
    return limit.window - (wall_time - MIDNIGHT_GUARD) % limit.window if limit.calendar else limit.window


def share_of(limit: Limit, workers: int) -> Limit:
    """One worker's share of a limit, for as long as the workers cannot ask each other.

    Args:
        limit: The limit of all of them.
        workers: How many there are.
    """
    count = limit.count // workers
    if count or limit.calendar:
        return replace(limit, count=max(count, 1))
    # Fewer slots than workers: each takes one in its turn.
    return replace(limit, count=1, window=limit.window * workers / limit.count)


def _rate(limit: Limit) -> float:
    return limit.count / limit.window
