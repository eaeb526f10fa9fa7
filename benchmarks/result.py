"""The shape of what a benchmark returns."""

from __future__ import annotations

from typing import TypedDict


class Result(TypedDict):
    """One measured number and the bar it has to stay under.

    Attributes:
        what: What was measured, in a sentence.
        value: The number.
        unit: Its unit.
        bar: The most that is allowed.
        details: What else is good to know, such as the spread.
    """

    what: str
    value: float
    unit: str
    bar: float
    details: dict[str, str]
