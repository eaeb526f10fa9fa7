"""What the README shows works as it stands there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

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


def test_it_names_every_option_of_the_adapter() -> None:
    readme = README.read_text("utf-8")
    for name in ("request_deadline", "error_responses", "instrument", "cancel_on_disconnect"):
        assert f"| `{name}` |" in readme
