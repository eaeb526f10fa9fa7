"""The collector forgets what is nobody's business, and leaves the rest alone."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from .exported import KEYS, shop_day, texts
from .promtool import OBSERVABILITY
from .test_queries import ATTRIBUTES


def laid_over(lower: Any, upper: Any) -> Any:
    """Two configurations as the collector merges them: maps are joined, everything else is replaced."""
    if isinstance(lower, dict) and isinstance(upper, dict):
        return {**lower, **upper, **{key: laid_over(lower[key], upper[key]) for key in lower.keys() & upper.keys()}}
    return upper


def load(name: str) -> Any:
    return yaml.safe_load((OBSERVABILITY / "collector" / name).read_text("utf-8"))


PLAIN = load("config.yaml")
SAMPLING = laid_over(PLAIN, load("sampling.yaml"))
REDACTION = PLAIN["processors"]["redaction"]
both = pytest.mark.parametrize("config", [PLAIN, SAMPLING], ids=["config", "config and sampling"])


def redacted(value: str) -> str:
    """What the redaction processor makes of a value; the patterns mean the same to Go and to Python."""
    for pattern in REDACTION["blocked_values"]:
        value = re.sub(pattern, "****", value)
    return value


def key_is_masked(key: str) -> bool:
    return any(re.search(pattern, key) for pattern in REDACTION["blocked_key_patterns"])


@both
def test_pipelines_are_made_of_what_is_configured_and_leave_nothing_out(config: Any) -> None:
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in config["service"]["pipelines"].values() for name in pipeline[kind]}
        assert used == set(config[kind])


@both
def test_nothing_leaves_or_waits_unredacted(config: Any) -> None:
    for name, pipeline in config["service"]["pipelines"].items():
        assert pipeline["processors"][:2] == ["memory_limiter", "redaction"], name
        assert pipeline["processors"][-1] == "batch", name


@pytest.mark.parametrize(
    ("value", "masked"),
    [
        ("jane@example.com", "****"),
        ("to jane.doe+shop@mail.example.co.uk, please", "to ****, please"),
        ("https://shop.example.com/me?email=jane%40example.com&x=1", "https://shop.example.com/me?email=****&x=1"),
        ("+905550000001", "****"),
        ("https://shop.example.com/code?phone=%2B905550000001", "https://shop.example.com/code?phone=****"),
        ('["+905550000001"]', '["****"]'),
        ("Bearer eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxIn0.c2lnbmF0dXJl", "Bearer ****"),
    ],
)
def test_personal_data_and_tokens_of_other_instrumentations_are_masked(value: str, masked: str) -> None:
    assert redacted(value) == masked


@pytest.mark.parametrize("header", [*KEYS, "Authorization", "Cookie", "Set-Cookie"])
def test_captured_headers_with_keys_are_masked(header: str) -> None:
    if header != "X-PARTNER-NAME":  # The name of the shop, no secret.
        assert key_is_masked(f"http.request.header.{header.lower()}")


def test_lists_are_looked_into() -> None:
    """Captured headers are lists, which the processor leaves alone unless told."""
    assert REDACTION["redact_all_types"] is True


def test_what_the_library_exports_passes_as_it_is() -> None:
    _, spans = shop_day()
    exported = texts(spans)
    assert len(exported) > 20
    for name, value in exported.items():
        assert redacted(value) == value, name
    assert not [name for name in ATTRIBUTES if key_is_masked(name)]


def test_the_patterns_are_such_that_go_can_read_them() -> None:
    """Go's regular expressions look neither ahead nor behind, and refer to nothing before."""
    for pattern in (*REDACTION["blocked_values"], *REDACTION["blocked_key_patterns"]):
        assert not re.search(r"\(\?[=!<]|\\[1-9]", pattern), pattern
