"""The README's own test, run as it stands there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from insider_otel import Outcome, Settings
from insider_otel.cli import main
from insider_otel.cli.demo.scenarios import SCENARIOS
from insider_otel.telemetry import attributes

README = Path(__file__).parent.parent / "README.md"

pytest_plugins = ["pytester"]


def test_the_test_in_the_readme_passes(pytester: pytest.Pytester) -> None:
    (snippet,) = re.findall(r"```python\n([^`]*def test_[^`]*)```", README.read_text("utf-8"))
    pytester.makepyfile(snippet)
    pytester.runpytest_subprocess("-p", "no:cacheprovider").assert_outcomes(passed=1)


def test_every_setting_stands_in_the_readme() -> None:
    text = README.read_text("utf-8")
    for setting in fields(Settings):
        variable = f"INSIDER_OTEL_{setting.name.upper()}"
        if setting.name == "credentials":
            variable = "INSIDER_OTEL_CREDENTIALS_<PRODUCT>"
        assert f"| `{setting.name}` | `{variable}` |" in text


def test_every_attribute_event_and_metric_stands_in_the_readme() -> None:
    text = README.read_text("utf-8")
    shortened = {"insider.records.accepted": ".accepted", "insider.records.failed": ".failed"}
    metric_labels = {attributes.RECORDS_RESULT, attributes.HTTP_REQUEST_METHOD_ORIGINAL}
    for name, value in vars(attributes).items():
        if name.isupper() and value not in metric_labels and not value.startswith("insider.request."):
            assert f"`{shortened.get(value, value)}`" in text, value


def test_every_outcome_stands_in_the_readme() -> None:
    (row,) = [line for line in README.read_text("utf-8").splitlines() if "| `insider.outcome` |" in line]
    assert set(re.findall(r"`([a-z_]+)`", row)) == {outcome.value for outcome in Outcome}


def test_the_demo_has_as_many_scenarios_as_the_readme_says() -> None:
    numbers = ("eight", "nine", "ten", "eleven", "twelve")
    (said,) = re.findall(r"real HTTP, (\w+) ways a call can go", README.read_text("utf-8"))
    assert numbers.index(said) + 8 == len(SCENARIOS)


def test_the_table_of_limits_in_the_readme_is_the_one_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    main(["limits", "--state", "memory://"])
    printed = {tuple(line.split()[:2]) for line in capsys.readouterr().out.splitlines() if line}
    (shown,) = re.findall(r"```\n(POOL .*?)```", README.read_text("utf-8"), re.DOTALL)
    header, *rows = shown.splitlines()
    assert header.split("  ")[0] == "POOL"
    # Where Insider named the limit, it is another than the documented one.
    assert [row for row in rows if " Insider " not in row and tuple(row.split()[:2]) not in printed] == []
