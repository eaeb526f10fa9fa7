"""The documented responses as the documentation has them: the truth that responses.toml is held against."""

from __future__ import annotations

import json
from pathlib import Path
from typing import NamedTuple


class Documented(NamedTuple):
    """One documented response, with what it means."""

    id: str
    status: int | None
    title: str
    body: str
    category: str
    retry: str


DOCUMENTED = tuple(
    Documented(**row)
    for row in json.loads(Path(__file__).with_name("data").joinpath("documented_responses.json").read_text("utf-8"))
)
BY_ID = {row.id: row for row in DOCUMENTED}
