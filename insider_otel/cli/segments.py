"""What a waterfall shows of spans: finished spans with their events, of the OpenTelemetry SDK or made by hand."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan


@dataclass(frozen=True, slots=True)
class Moment:
    """An event of a span.

    Attributes:
        name: Its name.
        time_ns: Nanoseconds since the epoch.
        attributes: What it carries.
    """

    name: str
    time_ns: int
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, slots=True)
class Segment:
    """A finished span, as far as a waterfall shows it.

    Attributes:
        name: Its name.
        start_ns: Nanoseconds since the epoch.
        end_ns: Nanoseconds since the epoch.
        span_id: Its id.
        parent_id: The parent's id; None for a root.
        attributes: What it carries.
        moments: Its events.
        failed: Whether its status is ERROR.
        kind: Its kind: ``server``, ``internal``, ``client``, ``producer`` or ``consumer``.
    """

    name: str
    start_ns: int
    end_ns: int
    span_id: int
    parent_id: int | None = None
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])
    moments: tuple[Moment, ...] = ()
    failed: bool = False
    kind: str = "internal"

    @classmethod
    def of(cls, span: ReadableSpan) -> Segment:
        """A finished span of the OpenTelemetry SDK.

        Args:
            span: The span; it has ended.

        Raises:
            ValueError: The span has not ended.
        """
        identity = span.get_span_context()
        if identity is None or span.start_time is None or span.end_time is None:
            raise ValueError(f"span {span.name!r} has not ended; only finished spans can be drawn")
        return cls(
            name=span.name,
            start_ns=span.start_time,
            end_ns=span.end_time,
            span_id=identity.span_id,
            parent_id=span.parent.span_id if span.parent else None,
            attributes=dict(span.attributes or {}),
            moments=tuple(Moment(event.name, event.timestamp, dict(event.attributes or {})) for event in span.events),
            failed=not span.status.is_ok,
            kind=span.kind.name.lower(),
        )
