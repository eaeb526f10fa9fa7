"""Results as text, Markdown that reads well in a terminal too."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.result import Measure, Result, Table


def lines(name: str, result: Result) -> Iterator[str]:
    """What is printed of a result.

    Args:
        name: The benchmark's name.
        result: What it found.
    """
    yield f"## {name}"
    if result.measures:
        yield ""
        yield from _table(Table("", ("measured", "value", "bar", ""), tuple(_row(each) for each in result.measures)))
    for table in result.tables:
        yield ""
        yield f"**{table.title}**"
        yield ""
        yield from _table(table)
    if result.notes:
        yield ""
    for note in result.notes:
        yield f"* {note}"


def _row(measure: Measure) -> tuple[str, ...]:
    bars = ((sign, bar) for sign, bar in (("≤", measure.at_most), ("≥", measure.at_least)) if bar is not None)
    bar = " and ".join(f"{sign} {bar:g} {measure.unit}".rstrip() for sign, bar in bars)
    verdict = "" if not bar else "kept" if measure.passes else "**missed**"
    return measure.what, f"{measure.value:.4g} {measure.unit}".rstrip(), bar, verdict


def _table(table: Table) -> Iterator[str]:
    widths = [max(len(cell) for cell in column) for column in zip(table.header, *table.rows, strict=True)]
    for row in (table.header, tuple("-" * width for width in widths), *table.rows):
        yield "| " + " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) + " |"
