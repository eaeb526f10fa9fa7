"""Durations as people read them."""

from __future__ import annotations


def duration_text(nanoseconds: int) -> str:
    """A duration in the unit that suits it: ``1.2 ms``, ``12 ms``, ``1.25 s``, ``4.5 min``, ``30.0 h``.

    Args:
        nanoseconds: The duration.
    """
    milliseconds = nanoseconds / 1e6
    if milliseconds < 9.95:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    seconds = milliseconds / 1e3
    if seconds < 99.995:
        return f"{seconds:.2f} s"
    minutes = seconds / 60
    if minutes < 99.95:
        return f"{minutes:.1f} min"
    return f"{minutes / 60:.1f} h"


def seconds_text(seconds: float) -> str:
    """The same of a duration in seconds.

    Args:
        seconds: The duration.
    """
    return duration_text(round(seconds * 1e9))
