"""The app whose calls are deferred."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.common.calls import UPSERT
from insider_otel import Settings

LATER: dict[str, Any] = {"insider": {"defer": True}}


@dataclass(frozen=True, slots=True)
class Curve:
    """When requests reached Insider, and what became of the jobs.

    Attributes:
        seconds: Requests in each second.
        drained: Of those, the seconds in which the pool's limit was what held them back.
        refused: Requests that Insider found one too many.
        delivered: Calls that Insider took.
        twice: Calls that it took more than once.
        left: Jobs that nobody delivered: waiting or dead.
    """

    seconds: Sequence[int]
    drained: slice
    refused: int
    delivered: int
    twice: int
    left: int

    @property
    def peak_over_mean(self) -> float:
        """The fullest of those seconds, to their mean."""
        at_limit = self.seconds[self.drained]
        return max(at_limit) * len(at_limit) / sum(at_limit)


def settings_for(path: Path, limit: str, hosts: dict[str, str] | None = None, sync: str = "normal") -> Settings:
    """An app's settings.

    Args:
        path: The outbox.
        limit: That of upserts.
        hosts: Insider's, where it is not at its own.
        sync: When a stored call is on the disk.
    """
    return Settings(
        outbox=f"sqlite:///{path}?sync={sync}",
        credentials=lambda operation, account: UPSERT.headers,
        limits={UPSERT.operation.pool: limit},
        hosts=hosts or {},
        deadline=2.0,
    )


def users(number: int) -> dict[str, Any]:
    """A body that no other call has."""
    return {"users": [{"identifiers": {"email": f"jane{number}@example.com"}, "attributes": {"name": "Jane"}}]}


def curve(moments: Sequence[float]) -> list[int]:
    """Requests in each second.

    Args:
        moments: When they came, in seconds.
    """
    counts = [0] * (int(max(moments)) + 1)
    for moment in moments:
        counts[int(moment)] += 1
    return counts
