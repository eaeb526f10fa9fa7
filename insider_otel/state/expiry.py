"""When a use of a limit no longer counts, and so where the next ones fit: arithmetic on moments, no record of any."""

from __future__ import annotations

from itertools import groupby
from operator import itemgetter

from insider_otel.api.operations import Limit
from insider_otel.policy.limits import MIDNIGHT_GUARD
from insider_otel.state.moments import Moments
from insider_otel.state.protocol import MICROSECONDS

DAY = 86_400 * MICROSECONDS

GUARD = round(MIDNIGHT_GUARD * MICROSECONDS)


def window_end(moment: int, limit: Limit) -> int:
    """When a use no longer counts.

    Args:
        moment: The moment of use; since 1970 if the limit is one of calendar days.
        limit: The limit.
    """
    if limit.calendar:
        return ((moment + GUARD) // DAY + 1) * DAY + GUARD
    return moment + window_length(limit)


def last_expired(now: int, limit: Limit) -> int:
    """The latest moment whose use no longer counts.

    Args:
        now: The present moment.
        limit: The limit.
    """
    if limit.calendar:
        return (now - GUARD) // DAY * DAY - GUARD - 1
    return now - window_length(limit)


def window_length(limit: Limit) -> int:
    """Microseconds from one use to the first that may take its place; for calendar days, about the most."""
    return round(limit.window * MICROSECONDS)


def line_up(moments: Moments, limit: Limit, opens: int, line: list[tuple[int, int]]) -> list[int]:
    """The moments of so many uses, one after the other, behind all others.

    Args:
        moments: The others; none of them is free.
        limit: The limit.
        opens: The moment from which the pool is open.
        line: For each use the earliest moment, and the slot of who makes it: all that one makes are made at once.
    """
    # The use a window before the first of them, by its number; no use has a number below 0.
    number = len(moments) - limit.count
    start = max(number, 0)
    past = moments.part(start, max(min(number + len(line), len(moments)), start))
    place = max(opens, moments[-1] if moments else 0) - 1
    places: list[int] = []
    slots = {slot for _, slot in line}
    for slot, uses in groupby(line, itemgetter(1)):
        *others, (earliest, _) = uses
        cost = len(others) + 1
        number += cost
        place = max(place + 1, earliest)
        if (before := number - max(cost - limit.count, 0) - 1) >= 0:
            place = max(place, window_end(past[before - start], limit))
        # It will be told as a slot.
        while place in slots and place != slot:
            place += 1
        places += [place] * cost
        past += [place] * cost
    return places
