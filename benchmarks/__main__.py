"""Runs the benchmarks of this package: each module or folder with a ``run() -> Result`` is one."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.report import lines
from benchmarks.result import Result

_HELPERS = ("__main__", "common", "report", "result")


def names() -> list[str]:
    """The benchmarks that there are."""
    modules = pkgutil.iter_modules([str(Path(__file__).parent)])
    return sorted(module.name for module in modules if module.name not in _HELPERS)


def main(words: Sequence[str] | None = None) -> int:
    """Run the benchmarks that were asked for, all by default; 1 if a bar is missed.

    Args:
        words: The arguments; the command line's by default.
    """
    known = names()
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(known)}")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args(words)
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there is: {', '.join(known)}")

    results: dict[str, Result] = {}
    for name in arguments.names or known:
        results[name] = result = importlib.import_module(f"benchmarks.{name}").run()
        if not arguments.json:
            print(*lines(name, result), "", sep="\n")
    if arguments.json:
        print(json.dumps({name: asdict(result) for name, result in results.items()}, indent=2))
    return int(not all(measure.passes for result in results.values() for measure in result.measures))


if __name__ == "__main__":
    sys.exit(main())
