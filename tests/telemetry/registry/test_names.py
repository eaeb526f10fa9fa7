"""The registry and ``telemetry/attributes.py`` name the same things, and the page of documentation is made from it."""

from __future__ import annotations

from enum import StrEnum

import pytest

from insider_otel import Category, Fault, Outcome, Retry, Stop
from insider_otel.policy.steps import WaitReason, WaitSource
from insider_otel.telemetry import attributes as names
from semconv.page import PAGE, page
from semconv.registry import Registry

CONSTANTS = {constant: value for constant, value in vars(names).items() if constant.isupper()}


def values_of(prefix: str) -> set[str]:
    return {value for constant, value in CONSTANTS.items() if constant.startswith(prefix)}


def test_every_attribute_that_has_a_name_in_the_code_is_in_the_registry_and_the_other_way_round(
    registry: Registry,
) -> None:
    named = set(CONSTANTS.values()) - values_of("EVENT_") - values_of("METRIC_") | {names.RETRY_STOPPED}
    attributes = registry.attributes.values()
    assert {name for name in named if not any(attribute.covers(name) for attribute in attributes)} == set()
    # Which request headers are captured is not known before.
    assert {each.name for each in attributes if not any(map(each.covers, named))} == {"http.request.header"}


@pytest.mark.parametrize(("prefix", "kind"), [("EVENT_", "event"), ("METRIC_", "metric")])
def test_so_is_every_event_and_metric(prefix: str, kind: str, registry: Registry) -> None:
    assert values_of(prefix) == set(registry.of_kind(kind))


def test_every_event_is_one_that_a_call_may_have(registry: Registry) -> None:
    spans = registry.of_kind("span")
    assert set(spans["call"].events) == set(registry.of_kind("event"))
    assert set(spans["delivery"].events) < set(spans["call"].events)


@pytest.mark.parametrize(
    ("attribute", "enumeration"),
    [
        (names.STATUS_CATEGORY, Category),
        (names.STATUS_FAULT, Fault),
        (names.STATUS_RETRY, Retry),
        (names.OUTCOME, Outcome),
        (names.RETRY_STOPPED, Stop),
        (names.WAIT_REASON, WaitReason),
        (names.WAIT_SOURCE, WaitSource),
    ],
)
def test_an_enumeration_has_the_same_values_in_the_same_order(
    attribute: str, enumeration: type[StrEnum], registry: Registry
) -> None:
    assert list(registry.attributes[attribute].members) == [member.value for member in enumeration]


# What is stable is asked of the installed release of OpenTelemetry's conventions: of one, the newest.
@pytest.mark.once
def test_the_page_is_in_step_with_the_registry(registry: Registry) -> None:
    assert PAGE.read_text("utf-8") == page(registry), "run `make docs`"
