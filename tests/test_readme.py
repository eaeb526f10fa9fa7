"""The README's own test, run as it stands there."""

from __future__ import annotations

import re
from dataclasses import fields
from pathlib import Path

import pytest

from insider_otel import Settings
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
        assert f"| `{setting.name}` | `INSIDER_OTEL_{setting.name.upper()}` |" in text


def test_every_attribute_event_and_metric_stands_in_the_readme() -> None:
    text = README.read_text("utf-8")
    shortened = {"insider.records.accepted": ".accepted", "insider.records.failed": ".failed"}
    metric_labels = {attributes.RECORDS_RESULT, attributes.DUPLICATE_SOURCE, attributes.HTTP_REQUEST_METHOD_ORIGINAL}
    for name, value in vars(attributes).items():
        if name.isupper() and value not in metric_labels and not value.startswith("insider.request."):
            assert f"`{shortened.get(value, value)}`" in text, value
