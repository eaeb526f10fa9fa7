"""Runs the benchmarks of this package: each module with a ``run() -> Result`` is one."""

from __future__ import annotations

import argparse
import importlib
import json
import pkgutil
import sys
from pathlib import Path

from benchmarks.result import Result


def main() -> int:
    """Run the benchmarks that were asked for, all by default; 1 if one is over its bar."""
    known = sorted(
        module.name
        for module in pkgutil.iter_modules([str(Path(__file__).parent)])
        if module.name not in ("__main__", "result")
    )
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of: {', '.join(known)}")
    parser.add_argument("--json", action="store_true", help="print the results as JSON")
    arguments = parser.parse_args()
    if unknown := [name for name in arguments.names if name not in known]:
        parser.error(f"no such benchmark: {', '.join(unknown)}; there is: {', '.join(known)}")

    results: dict[str, Result] = {}
    for name in arguments.names or known:
        result: Result = importlib.import_module(f"benchmarks.{name}").run()
        results[name] = result
        if not arguments.json:
            print(f"{name}: {result['value']:.1f} {result['unit']}, bar {result['bar']:g}: {result['what']}")
            for fact, value in result["details"].items():
                print(f"    {fact}: {value}")
    if arguments.json:
        print(json.dumps(results, indent=2))
    return int(any(result["value"] > result["bar"] for result in results.values()))


if __name__ == "__main__":
    sys.exit(main())
