"""For every test."""

from __future__ import annotations

import os

# OpenTelemetry reads this once in a process, at the first instrumentor. The stock spans that ours are compared with are
# to be the stable ones.
os.environ["OTEL_SEMCONV_STABILITY_OPT_IN"] = "http"
