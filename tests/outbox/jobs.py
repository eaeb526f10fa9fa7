"""Jobs for tests, and what workers do with them."""

from __future__ import annotations

import itertools
import time
from typing import Any

from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import JobStore, Lease

NOW = time.time()
"""The present moment of a test; stores look at the clock themselves where nobody tells them the time."""

LEASE = 30.0

_numbers = itertools.count()


def job(**fields: Any) -> Job:
    """A job that is due, with invented content; ``fields`` are what a test is about."""
    return Job(
        **{
            "id": f"job-{next(_numbers)}",
            "operation": "user.upsert",
            "product": "ucd",
            "pool": "user.upsert",
            "content": b"p{}",
            "context": {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"},
            "created": NOW,
            "due": NOW,
            "expires": NOW + 86_400,
            **fields,
        }
    )


def put(store: JobStore, **fields: Any) -> Job:
    """Put a job."""
    one = job(**fields)
    store.put(one)
    return one


def unlimited(pool: str) -> float:
    """The pace of a pool that has no limit."""
    return 0.0


def take(store: JobStore, most: int = 10, now: float = NOW, lease: float = LEASE) -> list[Lease]:
    """Take jobs at no pace."""
    return list(store.take(most, now, lease=lease, pace=unlimited).leases)


def ids(leases: list[Lease]) -> list[str]:
    """The names of jobs that were taken."""
    return [lease.job.id for lease in leases]
