"""The commands of the page without Docker make configurations that hold together and name what runs there."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from .promtool import OBSERVABILITY
from .test_compose import SERVICES

ROOT = OBSERVABILITY.parent.parent
PAGE = (OBSERVABILITY / "without-docker.md").read_text("utf-8")
COPIES = re.findall(r"^sed -e (?:.|\n)*?> /tmp/\S+$", PAGE, re.MULTILINE)


@pytest.fixture
def copies(tmp_path: Path) -> dict[str, str]:
    """The page's copies of configurations, by their names, made by its own commands."""
    for command in COPIES:
        subprocess.run(
            ["sh", "-c", command.replace("> /tmp/", f"> {tmp_path}/")], cwd=ROOT, check=True, capture_output=True
        )
    return {file.name: file.read_text("utf-8") for file in tmp_path.iterdir()}


def test_there_is_a_copy_for_tempo_and_for_the_collector(copies: dict[str, str]) -> None:
    assert set(copies) == {"tempo.yaml", "collector.yaml"}
    for name in copies:
        assert f"/tmp/{name}\n" in PAGE.replace(f"> /tmp/{name}\n", ""), f"{name} is made and not used"


def test_a_copy_names_no_service_of_compose(copies: dict[str, str]) -> None:
    for name, text in copies.items():
        assert not re.findall(rf"\b(?:{'|'.join(SERVICES)}):\d+", text), name


def test_pipelines_of_the_collector_are_made_of_what_is_configured(copies: dict[str, str]) -> None:
    collector = yaml.safe_load(copies["collector.yaml"])
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in collector["service"]["pipelines"].values() for name in pipeline[kind]}
        assert used == set(collector[kind])


def test_the_collector_hands_on_to_the_ports_that_the_page_names(copies: dict[str, str]) -> None:
    exporters: dict[str, Any] = yaml.safe_load(copies["collector.yaml"])["exporters"]
    assert {name: each["endpoint"] for name, each in exporters.items()} == {
        "otlp_grpc/jaeger": "localhost:14317",
        "otlp_grpc/tempo": "localhost:24317",
        "otlp_http/prometheus": "http://localhost:9090/api/v1/otlp",
    }


def test_tempo_keeps_to_this_machine_and_to_a_folder_of_its_own(copies: dict[str, str]) -> None:
    tempo = yaml.safe_load(copies["tempo.yaml"])
    assert {each["endpoint"] for each in tempo["distributor"]["receivers"]["otlp"]["protocols"].values()} == {
        "127.0.0.1:4317",
        "127.0.0.1:4318",
    }
    (pushed,) = tempo["metrics_generator"]["storage"]["remote_write"]
    assert pushed["url"] == "http://localhost:9090/api/v1/write"
    assert "0.0.0.0" not in copies["tempo.yaml"]
    assert "/var/" not in copies["tempo.yaml"]


def test_a_copy_differs_in_nothing_else(copies: dict[str, str]) -> None:
    for name, original in (("tempo.yaml", "tempo.yaml"), ("collector.yaml", "collector/config.yaml")):
        lines = (OBSERVABILITY / original).read_text("utf-8").splitlines()
        for before, after in zip(lines, copies[name].splitlines(), strict=True):
            assert before == after or re.search(r":\d+|/var/tempo", before), before
