"""Runs `insider-otel demo` in a process of its own, and reads what it prints."""

from __future__ import annotations

import os
import re
import subprocess
import sys

from insider_otel.cli.demo.scenarios import SCENARIOS

SECRETS = ("fake-key", "last-years-key", "jane", "+905550000001", "l234")
"""What must not show: keys and personal data of the scenarios."""

NAMES = [each.name for each in SCENARIOS]


def environment(**variables: str) -> dict[str, str]:
    """The process's environment without what would change the demo, and with some variables more."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "INSIDER_OTEL_", "PYTHONIO")) and name not in {"COLUMNS", "NO_COLOR"}
    }
    return {**kept, "TERM": "xterm", "PYTHONUTF8": "1", **variables}


def command(*arguments: str) -> list[str]:
    """The command line of the demo."""
    return [sys.executable, "-m", "insider_otel", "demo", *arguments]


def demo(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, without a terminal."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=60, check=False, env=environment(**variables)
    )


def scenes(output: str) -> dict[str, list[str]]:
    """The lines of each scenario, by its name."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in output.splitlines():
        title = re.match(r"\S+ \d+/\d+ .* (\S+) \S+$", line)
        if title:
            lines = found.setdefault(title[1], [])
        lines.append(line)
    return found
