"""What the commands have in common: errors in the request, JSON, and tables."""

from __future__ import annotations

import codecs
import importlib.util
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, TextIO

Row = Sequence[object]


class UsageError(Exception):
    """What was asked for cannot be done; the text says why and what would work."""


def print_json(value: Any) -> None:
    """Print a value as JSON, in the order it has; with JSON's own escapes where standard output is not UTF-8."""
    is_utf8 = codecs.lookup(sys.stdout.encoding or "ascii").name == "utf-8"
    print(json.dumps(value, indent=2, ensure_ascii=not is_utf8))


def discard_output() -> None:
    """Send standard output nowhere from now on: it cannot be written, nor can its rest when the process ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def wants_colour(stream: TextIO) -> bool:
    """Whether to write colours to a stream: a terminal that has them, and nobody said no (https://no-color.org)."""
    return stream.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"


def painted(text: str, code: str) -> str:
    """A text in a colour; an empty one stays empty.

    Args:
        text: The text.
        code: The colour's ANSI code, such as ``31``.
    """
    return f"\x1b[{code}m{text}\x1b[0m" if text else ""


def print_table(header: Sequence[str], rows: Sequence[Row]) -> None:
    """Print a table: with rich on a terminal if it is installed, else in plain aligned columns.

    What goes to a pipe or a file is always plain and never cut, so that it can be searched.

    Args:
        header: The columns' names.
        rows: As many cells each; None is an empty one.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    if sys.stdout.isatty() and importlib.util.find_spec("rich"):
        _print_rich(header, cells)
    else:
        for line in aligned([header, *cells]):
            print(line)


def aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    """Rows as lines with the columns aligned, two spaces apart.

    Args:
        rows: As many cells each.
    """
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _print_rich(header: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console  # noqa: PLC0415  (an extra)
    from rich.table import Table  # noqa: PLC0415  (an extra)
    from rich.text import Text  # noqa: PLC0415  (an extra)

    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in header:
        table.add_column(name, overflow="fold")
    for row in rows:
        # As Text, because "[…]" in a cell is no markup.
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table)
