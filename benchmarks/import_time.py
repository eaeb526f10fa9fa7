"""What ``import insider_otel`` costs beyond httpx and the OpenTelemetry API, which an app has imported anyway."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from tempfile import TemporaryDirectory

from benchmarks.result import Measure, Result

_PROCESSES = 15
_BAR = 60.0
_MEASURE = """
from time import perf_counter
start = perf_counter()
import httpx, opentelemetry.trace, opentelemetry.metrics
middle = perf_counter()
import insider_otel
print(middle - start, perf_counter() - middle)
"""


def run() -> Result:
    """Measure in fresh processes, both imports in each, so that a slow moment of the machine hits both."""
    with TemporaryDirectory(prefix="insider-otel-") as byte_code:
        # Where Python is told to write none, each process would compile it all anew.
        environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": byte_code}
        _measure(environment)
        pairs = [_measure(environment) for _ in range(_PROCESSES)]
    ours = sorted(own for _, own in pairs)
    return Result(
        measures=(
            Measure(
                "import insider_otel, beyond importing httpx and the OpenTelemetry API",
                statistics.median(ours),
                "ms",
                at_most=_BAR,
            ),
            Measure("the same, as a ratio to those imports", statistics.median(own / base for base, own in pairs), ""),
        ),
        notes=(
            f"Fastest and slowest of {_PROCESSES} processes: {ours[0]:.1f} and {ours[-1]:.1f} ms.",
            f"Beside that, httpx and the API: {statistics.median(base for base, _ in pairs):.1f} ms.",
        ),
    )


def _measure(environment: dict[str, str]) -> tuple[float, float]:
    """Milliseconds for the base and for the library, in one new process."""
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE], stdout=subprocess.PIPE, text=True, check=True, timeout=60, env=environment
    )
    base, own = done.stdout.split()
    return float(base) * 1e3, float(own) * 1e3
