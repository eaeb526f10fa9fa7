"""Nothing that an app changes in the process is left to the next test."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from insider_otel import InsiderInstrumentor
from insider_otel.http import health
from insider_otel.state.opening import PROCESS_STATE
from insider_otel.testing import FakeInsider
from insider_otel.testing.server import ServedFake


@pytest.fixture
def anyio_backend() -> str:
    """The clients of an app are those of asyncio's loops."""
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_is_left() -> Iterator[None]:
    PROCESS_STATE.forget()
    health.forget()
    yield
    if InsiderInstrumentor().is_instrumented_by_opentelemetry:
        InsiderInstrumentor().uninstrument()


@pytest.fixture
def served_fake() -> Iterator[ServedFake]:
    """A fake Insider on a socket."""
    with FakeInsider().serve() as served:
        yield served


@pytest.fixture
def fake_url(served_fake: ServedFake) -> str:
    return served_fake.url


@pytest.fixture
def fake_hosts(served_fake: ServedFake) -> dict[str, str]:
    return served_fake.hosts
