"""The time scale that the bars of a trace share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count

from insider_otel.cli.segments import Segment

_ROUND = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Scale:
    """A stretch of time.

    Attributes:
        start_ns: Its beginning, in nanoseconds since the epoch.
        length_ns: Its length in nanoseconds, 1 at least.
    """

    start_ns: int
    length_ns: int

    @classmethod
    def of(cls, segments: Sequence[Segment]) -> Scale:
        """The scale from the first beginning to the last end.

        Args:
            segments: One span at least.
        """
        start = min(segment.start_ns for segment in segments)
        return cls(start, max(max(segment.end_ns for segment in segments) - start, 1))

    def place(self, time_ns: int, length: float) -> float:
        """Where a moment is on a line; one outside of the trace is put on its edge.

        Args:
            time_ns: The moment, in nanoseconds since the epoch.
            length: The length of the line.
        """
        return min(max((time_ns - self.start_ns) * length / self.length_ns, 0.0), length)

    def ticks(self, most: int) -> list[int]:
        """Round times to write below the scale, in nanoseconds after its beginning; 0 is the first of them.

        Args:
            most: How many there may be after the first.
        """
        steps = (unit * 10**power for power in count() for unit in _ROUND)
        step = next(step for step in steps if step * most >= self.length_ns)
        return list(range(0, self.length_ns + 1, step))
