"""The shape of what a benchmark returns."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Measure:
    """One measured number, and the bar it has to keep to, if there is one.

    Attributes:
        what: What was measured, in a sentence.
        value: The number.
        unit: Its unit; empty for a ratio.
        at_most: The most that is allowed.
        at_least: The least that is allowed.
    """

    what: str
    value: float
    unit: str
    at_most: float | None = None
    at_least: float | None = None

    @property
    def passes(self) -> bool:
        """Whether it keeps to its bar."""
        low = self.at_least is None or self.value >= self.at_least
        return low and (self.at_most is None or self.value <= self.at_most)


@dataclass(frozen=True, slots=True)
class Table:
    """Numbers side by side.

    Attributes:
        title: What they are.
        header: The columns.
        rows: The cells, as they are printed; as many in each row as there are columns.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True, slots=True)
class Result:
    """What a benchmark found.

    Attributes:
        measures: Its numbers; a benchmark passes if all of them keep to their bars.
        tables: Its tables.
        notes: What else is good to know, a sentence each.
    """

    measures: tuple[Measure, ...]
    tables: tuple[Table, ...] = ()
    notes: tuple[str, ...] = ()
