"""A trace as a text waterfall: the tree of its spans, each with a bar on one time scale."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TextIO

from insider_otel.api.verdict import Category
from insider_otel.cli.output import painted
from insider_otel.cli.segments import Moment, Segment
from insider_otel.telemetry import attributes as names

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

_RED, _GREEN, _YELLOW, _MAGENTA, _CYAN, _BOLD, _FAINT = "31", "32", "33", "35", "36", "1", "2"
_COLOURS: dict[str, str] = {
    Category.SUCCESS: _GREEN,
    Category.ACCEPTED: _GREEN,
    Category.DUPLICATE: _GREEN,
    Category.VERIFICATION: _CYAN,
    Category.RATE_LIMIT: _MAGENTA,
    Category.DEPENDENCY: _RED,
    Category.SERVER_ERROR: _RED,
    Category.UNAVAILABLE: _RED,
    Category.TIMEOUT: _RED,
    Category.NETWORK: _RED,
    Category.UNEXPECTED: _RED,
}

LEGEND = (
    ("Insider has it", _GREEN),
    ("yours to mend", _YELLOW),
    ("too fast", _MAGENTA),
    ("a shopper's slip", _CYAN),
    ("Insider's or the network's", _RED),
)
"""What the colours mean: words and ANSI code."""


def colour_of(category: str) -> str:
    """The ANSI code of a category's colour: it tells whose turn it is.

    Args:
        category: The category.
    """
    return _COLOURS.get(category, _YELLOW)


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
    rows = _rows(segments, glyphs)

    columns = _columns(rows, max(width, _LEAST_WIDTH))
    scale = _scale(segments, columns.bar)
    return [_line(row, glyphs, scale, columns, colour=colour) for row in rows]


def _columns(rows: Sequence[_Row], width: int) -> _Columns:
    """Names and labels get what they need, within bounds; the bars get the rest, and something at least."""
    name = min(max(len(row.tree) + len(row.name) for row in rows), int(width * _NAME_SHARE))
    duration = max(len(row.duration) for row in rows)
    label = min(max(len(row.label) for row in rows), _WIDEST_LABEL)
    rest = width - name - duration - len("   ")
    label = min(label, rest - _NARROWEST_BAR)
    return _Columns(name, rest - label, duration, label)


def _rows(segments: Sequence[Segment], glyphs: _Glyphs) -> list[_Row]:
    known = {segment.span_id for segment in segments}
    children: defaultdict[int | None, list[Segment]] = defaultdict(list)
    for segment in segments:
        children[segment.parent_id if segment.parent_id in known else None].append(segment)

    rows: list[_Row] = []
    drawn: set[int] = set()

    def add(segment: Segment, first: str, rest: str) -> None:
        drawn.add(segment.span_id)
        rows.append(
            _Row(
                first,
                segment.name,
                segment.start_ns,
                segment.end_ns,
                duration_text(segment.end_ns - segment.start_ns),
                _label(segment),
                _colour(segment),
                moment=False,
            )
        )
        below: list[Moment | Segment] = [
            *segment.moments,
            *(child for child in children[segment.span_id] if child.span_id not in drawn),
        ]
        below.sort(key=_start)
        for position, item in enumerate(below, start=1):
            last = position == len(below)
            branch = rest + (glyphs.last if last else glyphs.branch)
            if isinstance(item, Moment):
                rows.append(_moment_row(item, branch, glyphs, segment.start_ns))
            else:
                add(item, branch, rest + (" " * len(glyphs.trunk) if last else glyphs.trunk))

    # Roots first. Spans that are each other's parents hang on none of them: the first of those is drawn as one.
    for root in (*sorted(children[None], key=_start), *sorted(segments, key=_start)):
        if root.span_id not in drawn:
            add(root, "", "")
    return rows


def _start(item: Moment | Segment) -> int:
    return item.time_ns if isinstance(item, Moment) else item.start_ns


def _moment_row(moment: Moment, branch: str, glyphs: _Glyphs, start_ns: int) -> _Row:
    category = moment.attributes.get(names.STATUS_CATEGORY)
    return _Row(
        branch,
        f"{glyphs.moment} {moment.name.removeprefix('insider.')}",
        moment.time_ns,
        moment.time_ns,
        f"+{duration_text(moment.time_ns - start_ns)}",
        str(category or ""),
        colour_of(str(category)) if category else _FAINT,
        moment=True,
    )


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


def _label(segment: Segment) -> str:
    found = segment.attributes
    category = found.get(names.STATUS_CATEGORY)
    parts: list[object] = []
    if names.OUTCOME in found:
        outcome = found[names.OUTCOME]
        parts.append(outcome)
        lost = found.get(names.RECORDS_FAILED)
        if lost:
            parts.append(f"{lost} {'record' if lost == 1 else 'records'} lost")
        elif segment.failed and category:
            parts.append(category)
        if found.get(names.RETRY_STOPPED):
            parts.append(f"stopped: {found[names.RETRY_STOPPED]}")
    elif names.WAIT_REASON in found:
        source = found.get(names.WAIT_SOURCE)
        parts += [found[names.WAIT_REASON], source and f"({source})"]
    else:
        parts += [found.get(names.HTTP_RESPONSE_STATUS_CODE), category or found.get(names.ERROR_TYPE)]
        if not any(parts) and segment.failed:
            parts.append("error")
        if found.get(names.HTTP_REQUEST_RESEND_COUNT):
            parts.append(f"resend {found[names.HTTP_REQUEST_RESEND_COUNT]}")
    return " ".join(str(part) for part in parts if part)


def _colour(segment: Segment) -> str | None:
    category = segment.attributes.get(names.STATUS_CATEGORY)
    if category:
        return colour_of(category)
    if names.WAIT_REASON in segment.attributes:
        return _FAINT
    # Not Insider's span, so no colour says whose turn it is.
    return _BOLD if segment.failed else None


def _scale(segments: Sequence[Segment], bar_width: int) -> Callable[[int], int]:
    start = min(segment.start_ns for segment in segments)
    length = max(max(segment.end_ns for segment in segments) - start, 1)

    def column(time_ns: int) -> int:
        """The column, from 0 to ``bar_width``, of a moment; one outside of the trace is put on its edge."""
        return min(max(round((time_ns - start) * bar_width / length), 0), bar_width)

    return column


def _line(row: _Row, glyphs: _Glyphs, scale: Callable[[int], int], columns: _Columns, *, colour: bool) -> str:
    first = min(scale(row.start_ns), columns.bar - 1)
    length = 1 if row.moment else max(scale(row.end_ns) - first, 1)
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
