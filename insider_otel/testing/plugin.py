"""pytest fixtures: ``insider_fake`` and ``insider_spans``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

# pytest loads this module at the start of every run, needed or not: what is large is imported by the fixtures.
if TYPE_CHECKING:
    from insider_otel.testing.fake import FakeInsider
    from insider_otel.testing.spans import CapturedSpans


@pytest.fixture
def insider_fake() -> FakeInsider:
    """A fake Insider in process, on a clock that moves only when told to: ``insider_fake.clock``."""
    from insider_otel.testing.clock import FakeClock  # noqa: PLC0415
    from insider_otel.testing.fake import FakeInsider  # noqa: PLC0415

    return FakeInsider(clock=FakeClock())


@pytest.fixture
def insider_spans() -> Iterator[CapturedSpans]:
    """Every span given to ``insider_spans.tracer_provider``."""
    from insider_otel.testing.spans import CapturedSpans  # noqa: PLC0415

    spans = CapturedSpans()
    yield spans
    spans.tracer_provider.shutdown()
