"""Calls of every kind are made: what they export is what the registry says, no more and no less."""

from __future__ import annotations

import re
from typing import Any

import pytest

from insider_otel.telemetry import attributes as names
from semconv.registry import Attribute, Registry, Signal

from .recorder import Exported

REGISTRY = Registry.read()
SIGNALS = [pytest.param(signal, id=f"{signal.kind} {signal.name}") for signal in REGISTRY.signals]
SPANS = [pytest.param(span, id=name) for name, span in REGISTRY.of_kind("span").items()]
OWN = [attribute for attribute in REGISTRY.attributes.values() if attribute.name.startswith("insider.")]
ENUMERATED = [pytest.param(attribute, id=attribute.name) for attribute in OWN if attribute.members]
WITH_TEXT = [
    pytest.param(attribute, id=attribute.name)
    for attribute in OWN
    # The name of a job is made by chance.
    if attribute.type == "string" and not attribute.members and attribute.name != names.JOB
]
TYPES: dict[str, type] = {"string": str, "int": int}


def is_of_type(value: Any, name: str) -> bool:
    """Whether an exported value has the type that the registry says: a bool is no int, and an array is a tuple."""
    if name == "template[string[]]":
        return isinstance(value, tuple) and all(type(item) is str for item in value)
    return type(value) is TYPES[name]


def test_every_span_event_and_metric_is_in_the_registry_and_each_there_is_exported(
    registry: Registry, exported: Exported
) -> None:
    assert set(exported.signals) == {(signal.kind, signal.name) for signal in registry.signals}


@pytest.mark.parametrize("signal", SIGNALS)
def test_it_has_no_attribute_but_those_of_the_registry_and_each_of_them_at_some_time(
    signal: Signal, registry: Registry, exported: Exported
) -> None:
    attributes = [registry.attributes[use.name] for use in signal.uses]
    names = {name for exports in exported.signals[signal.kind, signal.name] for name in exports}
    assert {name for name in names if not any(attribute.covers(name) for attribute in attributes)} == set()
    assert {attribute.name for attribute in attributes if not any(map(attribute.covers, names))} == set()


@pytest.mark.parametrize("signal", SIGNALS)
def test_what_is_required_is_always_there_and_nothing_else_is(signal: Signal, exported: Exported) -> None:
    exports = exported.signals[signal.kind, signal.name]
    always = {name for name in exports[0] if all(name in attributes for attributes in exports)}
    assert always == {use.name for use in signal.uses if use.level == "required"}


@pytest.mark.parametrize("signal", SIGNALS)
def test_every_value_is_of_the_type_that_the_registry_says(
    signal: Signal, registry: Registry, exported: Exported
) -> None:
    for use in signal.uses:
        attribute = registry.attributes[use.name]
        for attributes in exported.signals[signal.kind, signal.name]:
            for name, value in attributes.items():
                assert not attribute.covers(name) or is_of_type(value, attribute.type), (name, value)


@pytest.mark.parametrize("attribute", ENUMERATED)
def test_it_has_each_value_of_the_registry_and_no_other(attribute: Attribute, exported: Exported) -> None:
    assert exported.values(attribute.name) == set(attribute.members)


@pytest.mark.parametrize("attribute", WITH_TEXT)
def test_its_examples_are_values_that_it_has(attribute: Attribute, exported: Exported) -> None:
    assert set(attribute.examples) - exported.values(attribute.name) == set()


def test_the_example_of_a_job_looks_like_one(registry: Registry, exported: Exported) -> None:
    for name in {*registry.attributes[names.JOB].examples, *exported.values(names.JOB)}:
        assert re.fullmatch("[0-9a-f]{32}", name)


@pytest.mark.parametrize("signal", SPANS)
def test_samplers_see_what_the_registry_says_they_see(signal: Signal, exported: Exported) -> None:
    seen = {name for attributes in exported.at_start[signal.name] for name in attributes}
    assert seen == {use.name for use in signal.uses if use.at_start}


def test_log_based_events_say_what_span_events_say(registry: Registry, exported: Exported) -> None:
    assert exported.log_events == {name: exported.signals["event", name] for name in registry.of_kind("event")}


def test_metrics_have_the_instrument_unit_and_description_of_the_registry(
    registry: Registry, exported: Exported
) -> None:
    assert exported.metrics == {
        name: (metric.instrument, metric.unit, metric.brief) for name, metric in registry.of_kind("metric").items()
    }
