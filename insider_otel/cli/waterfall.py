"""A trace as a text waterfall: the tree of its spans, each with a bar on one time scale."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from insider_otel.cli.durations import duration_text
from insider_otel.cli.outline import Line, Turn, outline, turn_after
from insider_otel.cli.output import painted
from insider_otel.cli.segments import Moment, Segment
from insider_otel.cli.timescale import Scale

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

_LEAST_WIDTH = 60
_NAME_SHARE = 0.42
_WIDEST_LABEL = 34
_NARROWEST_BAR = 10


@dataclass(frozen=True, slots=True)
class _Glyphs:
    bar: str
    moment: str
    branch: str
    last: str
    trunk: str
    ellipsis: str

    def __str__(self) -> str:
        return self.bar + self.moment + self.branch + self.last + self.trunk + self.ellipsis


_BOXES = _Glyphs("█", "◆", "├─ ", "└─ ", "│  ", "…")
_ASCII = _Glyphs("=", "*", "|- ", "`- ", "|  ", "~")

_BOLD, _FAINT = "1", "2"
_COLOURS = {Turn.DONE: "32", Turn.CALLER: "33", Turn.LIMIT: "35", Turn.VISITOR: "36", Turn.OTHERS: "31"}

LEGEND = tuple((turn.value, code) for turn, code in _COLOURS.items())
"""What the colours mean: words and ANSI code."""


def colour_of(category: str) -> str:
    """The ANSI code of a category's colour: it tells whose turn it is.

    Args:
        category: The category.
    """
    return _COLOURS[turn_after(category)]


@dataclass(frozen=True, slots=True)
class _Row:
    tree: str
    name: str
    start_ns: int
    end_ns: int
    duration: str
    label: str
    colour: str | None
    moment: bool


@dataclass(frozen=True, slots=True)
class _Columns:
    name: int
    bar: int
    duration: int
    label: int


def can_draw(stream: TextIO) -> bool:
    """Whether a stream's encoding has the box-drawing characters; if not, draw with ``ascii_only``."""
    try:
        str(_BOXES).encode(stream.encoding or "ascii")
    except (LookupError, UnicodeEncodeError):
        return False
    return True


def waterfall(
    spans: Iterable[Segment | ReadableSpan], *, width: int = 80, colour: bool = False, ascii_only: bool = False
) -> list[str]:
    """Draw spans as a tree with bars on one time scale.

    A child stands below its parent, children and events in the order of time. A span whose parent is not among the
    spans is drawn as a root.

    Args:
        spans: Finished spans of one trace.
        width: Columns to fill; below 60 it is taken as 60.
        colour: Whether to colour by category, with ANSI escape sequences.
        ascii_only: Whether to draw without box characters.

    Returns:
        Lines without line ends, none longer than ``width`` columns; none at all for no spans.
    """
    segments = [span if isinstance(span, Segment) else Segment.of(span) for span in spans]
    if not segments:
        return []
    glyphs = _ASCII if ascii_only else _BOXES
    rows = [_row(line, glyphs) for line in outline(segments)]
    columns = _columns(rows, max(width, _LEAST_WIDTH))
    scale = Scale.of(segments)
    return [_line(row, glyphs, scale, columns, colour=colour) for row in rows]


def _columns(rows: Sequence[_Row], width: int) -> _Columns:
    """Names and labels get what they need, within bounds; the bars get the rest, and something at least."""
    name = min(max(len(row.tree) + len(row.name) for row in rows), int(width * _NAME_SHARE))
    duration = max(len(row.duration) for row in rows)
    label = min(max(len(row.label) for row in rows), _WIDEST_LABEL)
    rest = width - name - duration - len("   ")
    label = min(label, rest - _NARROWEST_BAR)
    return _Columns(name, rest - label, duration, label)


def _row(line: Line, glyphs: _Glyphs) -> _Row:
    item = line.item
    moment = isinstance(item, Moment)
    return _Row(
        _tree(line.lasts, glyphs),
        f"{glyphs.moment} {line.name}" if moment else line.name,
        line.start_ns,
        line.end_ns,
        time_text(line),
        line.label,
        _colour(line),
        moment,
    )


def _tree(lasts: Sequence[bool], glyphs: _Glyphs) -> str:
    if not lasts:
        return ""
    *above, own = lasts
    trunks = (" " * len(glyphs.trunk) if last else glyphs.trunk for last in above)
    return "".join(trunks) + (glyphs.last if own else glyphs.branch)


def time_text(line: Line) -> str:
    """How long a span took, or how long after the beginning of its span an event was: ``+52 ms``.

    Args:
        line: The span or the event.
    """
    if isinstance(line.item, Moment):
        return f"+{duration_text(line.start_ns - line.owner.start_ns)}"
    return duration_text(line.end_ns - line.start_ns)


def _colour(line: Line) -> str | None:
    if line.turn:
        return _COLOURS[line.turn]
    if line.is_wait or isinstance(line.item, Moment):
        return _FAINT
    # Not Insider's span, so no colour says whose turn it is.
    return _BOLD if line.item.failed else None


def _line(row: _Row, glyphs: _Glyphs, scale: Scale, columns: _Columns, *, colour: bool) -> str:
    first = min(round(scale.place(row.start_ns, columns.bar)), columns.bar - 1)
    length = 1 if row.moment else max(round(scale.place(row.end_ns, columns.bar)) - first, 1)
    bar = (glyphs.moment if row.moment else glyphs.bar) * length
    # However deep the tree is, something of the name stays.
    tree = row.tree[: max(columns.name - _NARROWEST_BAR, 0)]
    name = _cut(row.name, columns.name - len(tree), glyphs.ellipsis)
    label = _cut(row.label, columns.label, glyphs.ellipsis)
    if colour and row.colour:
        bar, label = painted(bar, row.colour), painted(label, row.colour)
    left = f"{tree}{name}".ljust(columns.name)
    right = " " * (columns.bar - first - length)
    return f"{left} {' ' * first}{bar}{right} {row.duration:>{columns.duration}} {label}".rstrip()


def _cut(text: str, width: int, ellipsis: str) -> str:
    return text if len(text) <= width else text[: max(width - len(ellipsis), 0)] + ellipsis
