"""A store, a process that shares it, and a clock that stands still."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from insider_otel.testing import FakeClock

from .help import FakeStore, Process


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def store(clock: FakeClock) -> FakeStore:
    return FakeStore(lambda: clock() + 1000)


@pytest.fixture
def process(store: FakeStore, clock: FakeClock) -> Process:
    return Process(store, clock)


@pytest.fixture
def warnings() -> Iterator[list[str]]:
    """What is logged as a warning."""
    messages: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            messages.append(record.getMessage())

    handler = Keep(logging.WARNING)
    logging.getLogger("insider_otel").addHandler(handler)
    yield messages
    logging.getLogger("insider_otel").removeHandler(handler)
