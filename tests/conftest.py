"""For every test."""

from __future__ import annotations

import os

# OpenTelemetry reads this once in a process, at the first instrumentor; the stock spans we compare ourselves with are to
# be the stable ones.
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
