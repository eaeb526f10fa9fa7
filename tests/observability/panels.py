"""The dashboards as they are committed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from .promtool import OBSERVABILITY

FOLDER = OBSERVABILITY / "grafana" / "dashboards"


def boards() -> dict[str, dict[str, Any]]:
    """Each dashboard by the name of its file."""
    return {file.stem: json.loads(file.read_text("utf-8")) for file in sorted(FOLDER.glob("*.json"))}


def panels() -> Iterator[tuple[str, dict[str, Any]]]:
    """Every panel, with the name of its dashboard."""
    for name, board in boards().items():
        for panel in board["panels"]:
            yield name, panel
