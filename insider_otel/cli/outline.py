"""A trace as an outline: its spans and events in the order in which they are told, each in its place in the tree."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from insider_otel.api.verdict import Category
from insider_otel.cli.segments import Moment, Segment
from insider_otel.telemetry import attributes as names


class Turn(StrEnum):
    """Whose turn it is after an answer: what colours stand for."""

    DONE = "Insider has it"
    CALLER = "yours to mend"
    LIMIT = "too fast"
    VISITOR = "a shopper's slip"
    OTHERS = "Insider's or the network's"


_TURNS: dict[str, Turn] = {
    Category.SUCCESS: Turn.DONE,
    Category.ACCEPTED: Turn.DONE,
    Category.DUPLICATE: Turn.DONE,
    Category.VERIFICATION: Turn.VISITOR,
    Category.RATE_LIMIT: Turn.LIMIT,
    Category.DEPENDENCY: Turn.OTHERS,
    Category.SERVER_ERROR: Turn.OTHERS,
    Category.UNAVAILABLE: Turn.OTHERS,
    Category.TIMEOUT: Turn.OTHERS,
    Category.NETWORK: Turn.OTHERS,
    Category.UNEXPECTED: Turn.OTHERS,
}


def turn_after(category: str) -> Turn:
    """Whose turn it is after an answer of a category.

    Args:
        category: The category.
    """
    return _TURNS.get(category, Turn.CALLER)


@dataclass(frozen=True, slots=True)
class Line:
    """A span or an event in its place.

    Attributes:
        item: The span or the event.
        owner: The span itself, or the one that the event belongs to.
        lasts: From the first level below the root down to its own: whether the last of its siblings stands there.
    """

    item: Segment | Moment
    owner: Segment
    lasts: tuple[bool, ...]

    @property
    def start_ns(self) -> int:
        """When it begins, in nanoseconds since the epoch."""
        return _start(self.item)

    @property
    def end_ns(self) -> int:
        """When it ends; an event ends when it begins."""
        return self.item.time_ns if isinstance(self.item, Moment) else self.item.end_ns

    @property
    def turn(self) -> Turn | None:
        """Whose turn it is after it; None if it says nothing of that."""
        category = self.item.attributes.get(names.STATUS_CATEGORY)
        return turn_after(str(category)) if category else None

    @property
    def is_wait(self) -> bool:
        """Whether it is the span of a wait."""
        return isinstance(self.item, Segment) and names.WAIT_REASON in self.item.attributes

    @property
    def name(self) -> str:
        """Its name; that of an event without the namespace."""
        return self.item.name.removeprefix("insider.") if isinstance(self.item, Moment) else self.item.name

    @property
    def label(self) -> str:
        """How it ended, in a few words; empty if there is nothing to say."""
        if isinstance(self.item, Moment):
            return str(self.item.attributes.get(names.STATUS_CATEGORY) or "")
        return _label(self.item)


def outline(segments: Sequence[Segment]) -> list[Line]:
    """The spans and events of a trace, a child below its parent, children and events in the order of time.

    Args:
        segments: Finished spans of one trace. One whose parent is not among them is a root.
    """
    known = {segment.span_id for segment in segments}
    children: defaultdict[int | None, list[Segment]] = defaultdict(list)
    for segment in segments:
        children[segment.parent_id if segment.parent_id in known else None].append(segment)

    lines: list[Line] = []
    drawn: set[int] = set()

    def add(segment: Segment, lasts: tuple[bool, ...]) -> None:
        drawn.add(segment.span_id)
        lines.append(Line(segment, segment, lasts))
        below: list[Moment | Segment] = [
            *segment.moments,
            *(child for child in children[segment.span_id] if child.span_id not in drawn),
        ]
        below.sort(key=_start)
        for position, item in enumerate(below, start=1):
            here = (*lasts, position == len(below))
            if isinstance(item, Moment):
                lines.append(Line(item, segment, here))
            else:
                add(item, here)

    # Roots first. Spans that are each other's parents hang on none of them: the first of those is drawn as one.
    for root in (*sorted(children[None], key=_start), *sorted(segments, key=_start)):
        if root.span_id not in drawn:
            add(root, ())
    return lines


def _start(item: Moment | Segment) -> int:
    return item.time_ns if isinstance(item, Moment) else item.start_ns


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
