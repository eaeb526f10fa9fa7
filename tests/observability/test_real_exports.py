"""What the demo and the three shops really send over OTLP is what the registry says: names, types, parents."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from insider_testkit.otlp import Span, otlp_receiver  # type: ignore[import-not-found]  # pytest finds it by pythonpath

from semconv.registry import Registry

pytestmark = pytest.mark.once

ROOT = Path(__file__).parents[2]
EXAMPLES = ROOT / "examples"
PROGRAMS = {
    "demo": ["-m", "insider_otel", "demo"],
    "django": [str(EXAMPLES / "django_shop" / "run.py"), "--visit"],
    # The same shop, with its visitors.
    "fastapi": [str(EXAMPLES / "observability" / "shop" / "run.py"), "--port", "0", "--visits", "1", "--pause", "0"],
    "flask": [str(EXAMPLES / "flask_shop" / "run.py"), "--visit"],
}
REGISTRY = Registry.read()
ABOVE: dict[str | None, set[str | None]] = {
    "attempt": {"call", "delivery"},
    "wait": {"call", "delivery"},
    "delivery": {"call"},
    "call": {"request", None},
}
"""What a span stands below; a call also below a span of the app's own, such as that of a task in the background."""


@cache
def sent_by(program: str) -> list[Span]:
    """The spans that a program sends; it is run once."""
    pytest.importorskip({"demo": "rich"}.get(program, program), reason="the dependency group web has the frameworks")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("OTEL_", "INSIDER_OTEL_"))}
    with otlp_receiver() as receiver:
        environ = {**kept, **receiver.environ, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": f"{receiver.url}/v1/traces"}
        del environ["OTEL_EXPORTER_OTLP_ENDPOINT"]
        if program != "demo":
            environ["OTEL_EXPORTER_OTLP_ENDPOINT"] = receiver.url
        ran = subprocess.run(
            [sys.executable, *PROGRAMS[program]],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
            env=environ,
            cwd=ROOT,
        )
        assert ran.returncode == 0, ran.stderr
        spans: list[Span] = receiver.spans()
    return spans


def kind_of(span: Span) -> str | None:
    """What the registry calls a span; None for those that others made and that say nothing of Insider."""
    if span.kind == "server":
        return "request" if span.summary else None
    if span.kind == "client" and "insider.operation" in span.attributes:
        return "attempt"
    if span.name == "insider wait":
        return "wait"
    if span.name.startswith("insider deliver "):
        return "delivery"
    return "call" if span.name.startswith("insider ") else None


def is_of_type(value: object, type_: str) -> bool:
    if type_ == "template[string[]]":
        return isinstance(value, list | tuple) and all(isinstance(item, str) for item in value)
    return type(value) is {"string": str, "int": int}[type_]


@pytest.mark.parametrize("program", PROGRAMS)
def test_every_call_that_is_shown_arrives(program: str) -> None:
    kinds = {kind_of(span) for span in sent_by(program)}
    assert kinds >= {"request", "call", "attempt"}
    if program == "demo":
        assert kinds >= {"wait", "delivery"}


@pytest.mark.parametrize("program", PROGRAMS)
def test_its_names_and_types_are_those_of_the_registry(program: str) -> None:
    for span in sent_by(program):
        kind = kind_of(span)
        if kind is None:
            continue
        signal = REGISTRY.of_kind("span")[kind]
        uses = [REGISTRY.attributes[use.name] for use in signal.uses]
        # A server span is the framework's own: what we add to it is ours.
        own = {
            name: value for name, value in span.attributes.items() if kind != "request" or name.startswith("insider.")
        }
        for name, value in own.items():
            (attribute,) = [each for each in uses if each.covers(name)]
            assert is_of_type(value, attribute.type), (span.name, name, value)
            assert not attribute.members or value in attribute.members, (span.name, name, value)
        assert {use.name for use in signal.uses if use.level == "required"} <= own.keys(), span.name
        assert {event.name for event in span.events} <= REGISTRY.of_kind("event").keys(), span.name


@pytest.mark.parametrize("program", PROGRAMS)
def test_each_stands_below_what_it_is_part_of(program: str) -> None:
    spans = sent_by(program)
    by_id = {span.span_id: span for span in spans}
    for span in spans:
        kind = kind_of(span)
        if kind in ABOVE:
            parent = by_id[span.parent_id]
            assert kind_of(parent) in ABOVE[kind], f"{span.name} below {parent.name}"
            assert parent.trace_id == span.trace_id
