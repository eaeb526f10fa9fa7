"""pytest fixtures: ``insider_fake``, ``insider_clock``, ``insider_spans``; and tests know nothing of each other."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from insider_otel.http import health
from insider_otel.state.opening import forget_states

# pytest loads this module at the start of every run, needed or not: what is large is imported by the fixtures.
if TYPE_CHECKING:
    from insider_otel.testing.clock import FakeClock
    from insider_otel.testing.fake import FakeInsider
    from insider_otel.testing.spans import CapturedSpans


@pytest.fixture(autouse=True)
def insider_forgets() -> None:
    """What one test has sent does not bear on the next: used limits, closed pools, sent mails, budgets, health."""
    forget_states()
    health.forget()


@pytest.fixture
def insider_clock() -> FakeClock:
    """The clock of ``insider_fake``: it moves only when it is told to, or slept on."""
    from insider_otel.testing.clock import FakeClock  # noqa: PLC0415

    return FakeClock()


@pytest.fixture
def insider_fake(insider_clock: FakeClock) -> FakeInsider:
    """A fake Insider in process: ``insider_fake.transport()``."""
    from insider_otel.testing.fake import FakeInsider  # noqa: PLC0415

    return FakeInsider(clock=insider_clock)


@pytest.fixture
def insider_spans() -> Iterator[CapturedSpans]:
    """Every span given to ``insider_spans.tracer_provider``."""
    from insider_otel.testing.spans import CapturedSpans  # noqa: PLC0415

    spans = CapturedSpans()
    yield spans
    spans.tracer_provider.shutdown()
