"""No alert and no panel asks Prometheus for a series, a label or a value that does not exist."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from insider_otel import Settings
from insider_otel.telemetry import attributes
from insider_otel.telemetry.metrics import _CALL_BUCKETS

from .exported import shop_day, underscored
from .panels import panels
from .promtool import OBSERVABILITY, RULES, check_expressions, needs_promtool
from .test_queries import ATTRIBUTES, VALUES

TEMPO = yaml.safe_load((OBSERVABILITY / "tempo.yaml").read_text("utf-8"))["metrics_generator"]["processor"]
DIMENSIONS = TEMPO["span_metrics"]["dimensions"]
SPAN_METRICS = {
    "traces_spanmetrics_calls_total",
    "traces_spanmetrics_latency_bucket",
    "traces_spanmetrics_latency_count",
}
# Prometheus' OTLP receiver and Tempo make them of the resource and of the span itself.
FROM_RESOURCE = {"job", "instance"}
FROM_SPAN = {"service", "span_kind", "span_name", "status_code", "le"}
LABEL_VALUES = {underscored(name): values for name, values in VALUES.items()} | {
    underscored(attributes.RECORDS_RESULT): {"accepted", "failed"},
    "span_kind": {"SPAN_KIND_CLIENT"},
    "span_name": {"insider wait", "insider deliver .*"},
}


def recorded() -> dict[str, str]:
    """The series that our own recording rules make."""
    return {
        rule["record"]: rule["expr"]
        for file in sorted(RULES.glob("*.yaml"))
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
        for rule in group["rules"]
        if "record" in rule
    }


def expressions() -> Iterator[tuple[str, str]]:
    """Every query of Prometheus in the example, and where it stands."""
    for file in sorted(RULES.glob("*.yaml")):
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]:
            for rule in group["rules"]:
                yield f"{file.stem}: {rule.get('alert') or rule['record']}", rule["expr"]
    for board, panel in panels():
        for target in panel.get("targets", ()):
            if "expr" in target:
                yield f"{board}: {panel['title']} {target['refId']}", plain(target["expr"])


def plain(expression: str) -> str:
    """A panel's query with Grafana's variables filled in."""
    values = {"__rate_interval": "5m", "job": ".+", "operation": "user.upsert", "service": "shop"}
    return re.sub(r"\$(\w+)", lambda variable: values[variable[1]], expression)


EXPRESSIONS = [pytest.param(text, id=where) for where, text in expressions()]


def labels_of(series: str) -> frozenset[str]:
    """The labels of a series.

    Raises:
        KeyError: There is no such series.
    """
    if series in SPAN_METRICS:
        return frozenset({underscored(name) for name in DIMENSIONS} | FROM_SPAN)
    if series in (made := recorded()):
        return frozenset(re.search(r"by \(([^)]*)\)", made[series])[1].split(", "))  # type: ignore[index]
    return shop_day()[0][series] | FROM_RESOURCE


@pytest.mark.parametrize("expression", EXPRESSIONS)
def test_a_query_asks_for_series_and_labels_that_exist(expression: str) -> None:
    without_text = re.sub(r'"[^"]*"', '""', expression)
    series = set(re.findall(r"[a-z][\w:]*(?=[{[])|\b\w+:[\w:]+", without_text))
    assert series
    known = {label for name in series for label in labels_of(name)}
    for name, matchers in re.findall(r"([\w:]+)\{([^}]*)\}", expression):
        for label, value in re.findall(r'(\w+)(?:=~|!~|!=|=)"([^"]*)"', matchers):
            assert label in labels_of(name), name
            for each in value.split("|") if label in LABEL_VALUES and value else ():
                assert each in LABEL_VALUES[label], label
    for labels in re.findall(r"\b(?:by|on) \(([^)]*)\)", expression):
        assert set(labels.split(", ")) <= known


@needs_promtool
def test_promtool_can_read_every_query(tmp_path: Path) -> None:
    checked = check_expressions([str(parameter.values[0]) for parameter in EXPRESSIONS], tmp_path)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def test_tempo_makes_labels_of_attributes_that_exist() -> None:
    assert set(DIMENSIONS) <= ATTRIBUTES


def test_tempo_makes_no_label_of_what_has_many_values() -> None:
    """A series for each URL, address or trace would be the end of Prometheus."""
    many = {attributes.URL_FULL, attributes.HTTP_RESPONSE_CF_RAY, attributes.NETWORK_PEER_ADDRESS, attributes.WAIT_MS}
    assert not many & set(DIMENSIONS)


def test_tempo_counts_durations_within_the_same_bounds_as_the_library_up_to_the_longest_call() -> None:
    bounds = tuple(TEMPO["span_metrics"]["histogram_buckets"])
    assert bounds == _CALL_BUCKETS
    assert bounds[-1] >= Settings().spread_retries * Settings().retry_window


def test_the_spans_that_the_rules_name_are_exported_so() -> None:
    _, spans = shop_day()
    names = {span.name for span in spans}
    assert {"insider wait", "insider deliver user.upsert"} <= names
    assert {span.kind.name for span in spans if attributes.HTTP_REQUEST_METHOD in (span.attributes or {})} == {"CLIENT"}
    retried = [span for span in spans if attributes.HTTP_REQUEST_RESEND_COUNT in (span.attributes or {})]
    assert retried
    for span in spans:
        has_outcome = attributes.OUTCOME in (span.attributes or {})
        is_call = span.kind.name == "INTERNAL" and span.name not in {"insider wait", "insider outbox"}
        assert has_outcome == is_call, span.name
