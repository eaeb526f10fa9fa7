"""What is installed is what was meant, and importing it stays cheap."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from importlib.metadata import entry_points, metadata, requires, version

import pytest

import insider_otel

HEAVY = [
    "celery",
    "django",
    "fastapi",
    "flask",
    "httpx2",
    "jinja2",
    "opentelemetry.exporter",
    "opentelemetry.sdk",
    "pytest",
    "redis",
    "rich",
    "sqlite3",
    "starlette",
    "tomllib",
    "uvicorn",
]

# What some apps need, and is more to import than all the rest.
NOT_FOR_ALL = [
    "anyio",
    "asyncio",
    "importlib.metadata",
    "insider_otel.delivery",
    "insider_otel.http.instrumentor",
    "insider_otel.outbox",
    "opentelemetry.instrumentation",
    "wrapt",
]


def _of(names: list[str], modules: set[str]) -> list[str]:
    """Those of ``names`` that were loaded, or a part of them was."""
    return [name for name in names if any(f"{found}.".startswith(f"{name}.") for found in modules)]


# What an import loads beyond httpx and the API, and which files it reads.
PROBE = """
import json, sys
import httpx, opentelemetry.trace, opentelemetry.metrics
before = set(sys.modules)
opened = []
sys.addaudithook(lambda event, arguments: opened.append(str(arguments[0])) if event == "open" else None)
import {module}
print(json.dumps([sorted(set(sys.modules) - before), opened]))
"""


def loaded_by(module: str) -> tuple[set[str], list[str]]:
    """The modules that importing ``module`` loads in a new process, and the files it opens."""
    # Measuring coverage would itself load modules and read files.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(module=module)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env=environment,
    )
    modules, opened = json.loads(done.stdout)
    return set(modules), opened


@pytest.mark.parametrize("module", ["insider_otel", "insider_otel.http.instrumentor"])
def test_importing_the_library_loads_nothing_heavy_and_reads_no_table(module: str) -> None:
    """The steady stand-in for the bar of 60 ms: what is not loaded costs nothing on any machine."""
    modules, opened = loaded_by(module)
    assert module in modules
    assert _of(HEAVY, modules) == []
    assert [path for path in opened if path.endswith(".toml")] == []


def test_who_has_neither_outbox_nor_instrumentor_nor_event_loop_loads_none_of_them() -> None:
    modules, _ = loaded_by("insider_otel")
    assert _of(NOT_FOR_ALL, modules) == []


def test_the_command_line_starts_without_what_only_some_commands_need() -> None:
    modules, _ = loaded_by("insider_otel.cli")
    assert not {"jinja2", "rich", "uvicorn", "pytest", "opentelemetry.sdk"} & modules


def test_the_version_is_said_once() -> None:
    assert version("insider-otel") == insider_otel.__version__


def test_every_public_name_is_there() -> None:
    assert [name for name in insider_otel.__all__ if not hasattr(insider_otel, name)] == []
    assert sorted(insider_otel.__all__) == insider_otel.__all__


def test_a_name_that_is_not_public_is_refused_as_in_any_module() -> None:
    with pytest.raises(AttributeError, match="'insider_otel' has no attribute 'Nonsense'"):
        insider_otel.Nonsense  # noqa: B018


def test_the_core_depends_on_four_distributions_and_no_more() -> None:
    needed = {
        match[0]
        for requirement in requires("insider-otel") or []
        if "extra ==" not in requirement and (match := re.match(r"[\w.-]+", requirement))
    }
    assert needed == {"httpx", "opentelemetry-api", "opentelemetry-instrumentation", "wrapt"}


def test_the_extras_are_these() -> None:
    assert set(metadata("insider-otel").get_all("Provides-Extra") or []) == {
        *("celery", "cli", "encryption", "httpx2", "redis", "sdk", "testing"),
        *("django", "fastapi", "flask"),
    }


@pytest.mark.parametrize(
    ("group", "name"),
    [("console_scripts", "insider-otel"), ("opentelemetry_instrumentor", "insider"), ("pytest11", "insider_otel")],
)
def test_entry_points_load(group: str, name: str) -> None:
    (entry_point,) = [found for found in entry_points(group=group) if found.name == name]
    assert entry_point.load()
