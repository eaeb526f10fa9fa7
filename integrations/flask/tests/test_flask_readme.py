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


SHOP_OF_OLD = """
import httpx
from flask import Flask
from insider_otel_flask import InsiderOTel, insider


def create_app(config=None):
    app = Flask(__name__)
    app.config["INSIDER_URL"] = "https://unification.useinsider.com"
    app.config.from_mapping(config or {})
    InsiderOTel(app)

    @app.post("/signup")
    def signup():
        (httpx if config else insider).post(
            f"{app.config['INSIDER_URL']}/api/user/v1/upsert",
            headers={"X-PARTNER-NAME": "yourshop", "X-REQUEST-TOKEN": "your-token"},
            json={"users": [{"identifiers": {"email": "jane@example.com"}, "attributes": {"age": 30}}]},
        )
        return "welcome"

    return app
"""
"""It calls httpx itself where it is told a URL, and the extension's client where it is not."""


def passed(folder: Path, shop: str, **tests: str) -> int:
    """How many tests pass, in one process, of a shop; all have to."""
    (folder / "shop.py").write_text(shop, "utf-8")
    (folder / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n", "utf-8")
    for name, content in tests.items():
        (folder / f"test_{name}.py").write_text(content, "utf-8")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    (count,) = re.findall(r"^(\d+) passed", done.stdout, flags=re.MULTILINE)
    return int(count)


def blocks() -> list[str]:
    return re.findall(r"```python\n(.*?)```", README.read_text("utf-8"), flags=re.DOTALL)


@pytest.mark.once
def test_the_app_and_the_tests_of_the_readme_run(tmp_path: Path) -> None:
    app, tests, _ = blocks()
    assert passed(tmp_path, f"{app}\n\ndef create_app():\n    return app\n", signups=tests) == 2


@pytest.mark.once
def test_the_test_for_code_that_calls_httpx_itself_holds_for_each_test_of_a_run(tmp_path: Path) -> None:
    _, _, test = blocks()
    assert passed(tmp_path, SHOP_OF_OLD, first=test, second=test) == 2


@pytest.mark.once
def test_both_ways_to_test_go_together_in_one_run(tmp_path: Path) -> None:
    _, with_override, on_a_socket = blocks()
    assert passed(tmp_path, SHOP_OF_OLD, first=with_override, second=on_a_socket, third=with_override) == 5


def test_its_tables_name_every_option_and_nothing_else() -> None:
    cells = re.findall(r"^\| (`INSIDER_OTEL_[^|]*) \|", README.read_text("utf-8"), flags=re.MULTILINE)
    # `INSIDER_OTEL_DEDUPE`, `_DEDUPE_WINDOW`
    keys = [key.removeprefix(PREFIX).removeprefix("_") for cell in cells for key in re.findall(r"`([A-Z_]+)`", cell)]
    assert sorted(keys) == sorted(name.upper() for name in WebOptions.names())
