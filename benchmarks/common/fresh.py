"""Measuring in a process of its own, where nothing else has been imported, instrumented or left behind."""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_TIMEOUT = 300.0
# The stock instrumentation is to set the same attributes as the library: the stable ones.
_STABLE_NAMES = {"OTEL_SEMCONV_STABILITY_OPT_IN": "http"}


def in_new_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a new process.

    Args:
        function: A function of a module; what it takes and returns has to survive JSON.
        *args: Its arguments.
        **kwargs: Its keywords.
    """
    call = json.dumps((function.__module__, function.__qualname__, args, kwargs))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.common.fresh", call],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=_TIMEOUT,
        env={**os.environ, **_STABLE_NAMES},
    )
    result: T = json.loads(done.stdout)
    return result


def _main() -> None:
    module, name, args, kwargs = json.loads(sys.argv[1])
    print(json.dumps(getattr(importlib.import_module(module), name)(*args, **kwargs)))


if __name__ == "__main__":
    _main()
