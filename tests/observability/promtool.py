"""Runs promtool, which Debian has in its package ``prometheus``."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

OBSERVABILITY = Path(__file__).parent.parent.parent / "examples" / "observability"
RULES = OBSERVABILITY / "prometheus" / "rules"

needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None and not os.environ.get("CI"),
    reason="promtool is missing; Debian has it in the package prometheus",
)
"""Skips where promtool is missing; in CI it has to be there, and the test fails."""


def promtool(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run promtool."""
    return subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True, timeout=60, check=False)


def check_expressions(expressions: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    """Let promtool read PromQL: as the recording rules of a file that is thrown away.

    Args:
        expressions: The queries.
        folder: Where the file goes.
    """
    rules = [{"record": f"expression:{number}", "expr": text} for number, text in enumerate(expressions)]
    file = folder / "expressions.yaml"
    file.write_text(yaml.safe_dump({"groups": [{"name": "expressions", "rules": rules}]}), "utf-8")
    return promtool("check", "rules", file)


def run_rules(rules: Path, test: dict[str, Any], folder: Path) -> subprocess.CompletedProcess[str]:
    """Let promtool play series to the rules of a file.

    Args:
        rules: The file of rules.
        test: One test, as promtool spells it.
        folder: Where the file of the test goes.
    """
    file = folder / "test.yaml"
    file.write_text(
        yaml.safe_dump({"rule_files": [str(rules)], "evaluation_interval": "1m", "tests": [test]}, width=1000), "utf-8"
    )
    return promtool("test", "rules", file)
