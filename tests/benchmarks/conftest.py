"""The tests of the benchmarks run where the peers are installed: with the group ``bench``, as ``make test`` has it."""

from __future__ import annotations

from importlib.util import find_spec

_NEEDED = ("httpx_retries", "limits", "matplotlib", "numpy", "psutil", "pyrate_limiter", "redis", "stamina", "urllib3")
collect_ignore_glob = [] if all(find_spec(name) for name in _NEEDED) else ["test_*.py"]
