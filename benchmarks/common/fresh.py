"""Measuring in a process of its own, where nothing else has been imported, instrumented or left behind."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_TIMEOUT = 300.0
_GRACE = 30.0
# The stock instrumentation is to set the same attributes as the library: the stable ones.
_STABLE_NAMES = {"OTEL_SEMCONV_STABILITY_OPT_IN": "http"}


def in_new_process(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Call a function in a new process.

    Args:
        function: A function of a module; what it takes and returns has to survive JSON.
        *args: Its arguments.
        **kwargs: Its keywords.

    Raises:
        subprocess.CalledProcessError: It raised an exception.
        subprocess.TimeoutExpired: It took longer than five minutes.
    """
    call = json.dumps((function.__module__, function.__qualname__, args, kwargs))
    command = [sys.executable, "-m", "benchmarks.common.fresh", call]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, **_STABLE_NAMES}) as process:
        try:
            printed, _ = process.communicate(timeout=_TIMEOUT)
        except BaseException:
            _end(process)
            raise
    if process.returncode:
        raise subprocess.CalledProcessError(process.returncode, command)
    result: T = json.loads(printed)
    return result


def _end(process: subprocess.Popen[str]) -> None:
    """End a process that may have started servers, which it is given time to end."""
    process.terminate()
    try:
        process.wait(_GRACE)
    except subprocess.TimeoutExpired:
        process.kill()


def _main() -> None:
    # As an exception, so that the servers it has started are ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("told to end"))
    module, name, args, kwargs = json.loads(sys.argv[1])
    print(json.dumps(getattr(importlib.import_module(module), name)(*args, **kwargs)))


if __name__ == "__main__":
    _main()
