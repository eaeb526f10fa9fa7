"""``insider-otel doctor``: what in this environment keeps you from seeing, or trusting, the traces."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from insider_otel.cli.checks import examine
from insider_otel.cli.checks.environment import Environment, Finding, Level
from insider_otel.cli.output import painted, print_json, wants_colour

_COLOURS = {Level.OK: "32", Level.NOTE: "36", Level.WARNING: "33", Level.ERROR: "31"}
_LEVEL_WIDTH = max(len(level) for level in Level)


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``insider-otel``."""
    parser = commands.add_parser(
        "doctor",
        help="look at the environment",
        description="Look at the environment for what keeps traces from being seen or trusted. "
        "Run it where the app runs: the same machine, user, virtual environment and variables. "
        "No value of a secret is printed. Exit status 1 if there is an error.",
    )
    parser.add_argument("--json", action="store_true", help="print the findings as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 1 if there is an error."""
    findings = examine(Environment.here())
    if arguments.json:
        print_json([asdict(finding) for finding in findings])
    else:
        for line in _report(findings, colour=wants_colour(sys.stdout)):
            print(line)
    return int(any(finding.level is Level.ERROR for finding in findings))


def _report(findings: Sequence[Finding], *, colour: bool) -> list[str]:
    lines: list[str] = []
    for finding in findings:
        level = f"{finding.level:{_LEVEL_WIDTH}}"
        if colour:
            level = painted(level, _COLOURS[finding.level])
        lines.append(f"{level}  {finding.what}")
        lines += [f"{'':{_LEVEL_WIDTH}}  {text}" for text in (finding.why, finding.remedy) if text]
    counts = Counter(finding.level for finding in findings)
    lines += ["", ", ".join(_counted(counts[level], level) for level in (Level.ERROR, Level.WARNING, Level.NOTE))]
    return lines


def _counted(count: int, level: Level) -> str:
    return f"{count} {level}{'' if count == 1 else 's'}"
