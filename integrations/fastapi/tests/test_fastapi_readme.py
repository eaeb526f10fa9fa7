"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from insider_otel_fastapi.options import Options

from insider_otel.web import WebOptions

README = Path(__file__).parents[1] / "README.md"


@pytest.mark.once
def test_the_app_and_the_test_of_the_readme_run(tmp_path: Path) -> None:
    app, *_, tests = re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)
    (tmp_path / "shop.py").write_text(app, "utf-8")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", "utf-8")
    (tmp_path / "test_shop.py").write_text(f"from shop import app\n{tests}", "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "test_shop.py"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1 passed" in done.stdout


def test_its_table_names_every_option_and_nothing_else() -> None:
    (table,) = re.findall(r"^\| option .*\n((?:\|.*\n)+)", README.read_text("utf-8"), flags=re.MULTILINE)
    _, *rows = (row.split(" | ") for row in table.splitlines())
    of_settings = rows.pop()
    named = re.findall(r"`(\w+)`", "".join(row[0] for row in rows) + of_settings[-1])
    assert sorted(named) == sorted({*Options.__annotations__, "cancel_on_disconnect"})
    assert WebOptions.names() <= set(named)
