"""Testing with insider-otel: a fake Insider, a fake clock, a switch that makes the library quick, captured spans.

Names are imported when they are first used: the pytest plugin lives here, and loads with every run of pytest.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from insider_otel.policy.testing_mode import is_testing, set_testing

if TYPE_CHECKING:
    from insider_otel.testing._records import RecordedRequest
    from insider_otel.testing.clock import FakeClock
    from insider_otel.testing.fake import FakeInsider
    from insider_otel.testing.faults import Step, delay, documented, reply, reset, timeout, truncate
    from insider_otel.testing.outbox import deliver_outbox
    from insider_otel.testing.samples import SampleRequest, sample_request
    from insider_otel.testing.spans import CapturedSpans

__all__ = [
    "CapturedSpans",
    "FakeClock",
    "FakeInsider",
    "RecordedRequest",
    "SampleRequest",
    "Step",
    "delay",
    "deliver_outbox",
    "documented",
    "is_testing",
    "reply",
    "reset",
    "sample_request",
    "set_testing",
    "timeout",
    "truncate",
]

_HOMES = {
    "_records": ("RecordedRequest",),
    "clock": ("FakeClock",),
    "fake": ("FakeInsider",),
    "faults": ("Step", "delay", "documented", "reply", "reset", "timeout", "truncate"),
    "outbox": ("deliver_outbox",),
    "samples": ("SampleRequest", "sample_request"),
    "spans": ("CapturedSpans",),
}


def __getattr__(name: str) -> Any:
    for module, names in _HOMES.items():
        if name in names:
            return getattr(import_module(f"{__name__}.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
