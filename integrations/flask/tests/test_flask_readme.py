"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from insider_otel.policy.settings import PREFIX
from insider_otel.web import WebOptions

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.once
def test_the_app_and_the_tests_of_the_readme_run(tmp_path: Path) -> None:
    app, tests = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)
    (tmp_path / "shop.py").write_text(f"{app}\n\ndef create_app():\n    return app\n", "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", "utf-8")
    (tmp_path / "test_shop.py").write_text(tests, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 passed" in done.stdout


def test_its_tables_name_every_option_and_nothing_else() -> None:
    cells = re.findall(r"^\| (`INSIDER_OTEL_[^|]*) \|", README.read_text("utf-8"), flags=re.MULTILINE)
    # `INSIDER_OTEL_DEDUPE`, `_DEDUPE_WINDOW`
    keys = [key.removeprefix(PREFIX).removeprefix("_") for cell in cells for key in re.findall(r"`([A-Z_]+)`", cell)]
    assert sorted(keys) == sorted(name.upper() for name in WebOptions.names())
