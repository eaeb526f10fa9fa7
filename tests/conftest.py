"""For every test."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# OpenTelemetry reads this once in a process, at the first instrumentor. The stock spans that ours are compared with are
# to be the stable ones.
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"

# How long an example takes is the machine's business. In CI the examples are the same on every run: new ones are for
# whoever runs the tests while working on something.
settings.register_profile(
    "any machine",
    deadline=None,
    derandomize="CI" in os.environ,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.load_profile("any machine")
