"""Every query of the pages asks for what is exported, in a form that Tempo and Jaeger understand."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml

from insider_otel import Category, Fault, Outcome, Retry
from insider_otel.api.operations import operations_by_name
from insider_otel.policy.steps import Stop, WaitReason
from insider_otel.telemetry import attributes

from .promtool import OBSERVABILITY

PAGES = ("runbook.md", "queries.md")
QUERIES = [
    pytest.param(query.strip(), id=f"{page} {number}")
    for page in PAGES
    for number, query in enumerate(
        re.findall(r"```traceql\n(.*?)```", (OBSERVABILITY / page).read_text("utf-8"), re.DOTALL), start=1
    )
]
NAMES = {name: value for name, value in vars(attributes).items() if name.isupper()}
EVENTS = {value for name, value in NAMES.items() if name.startswith("EVENT_")}
ATTRIBUTES = {value for name, value in NAMES.items() if not name.startswith(("EVENT_", "METRIC_"))} | {
    "http.route",  # The framework's own instrumentation sets it.
}
MODEL = Path(__file__).parents[2] / "semconv" / "model" / "spans.yaml"
SPANS: list[tuple[str, set[str]]] = [
    (span["span_kind"], {each["ref"] for each in span.get("attributes", ())})
    for span in yaml.safe_load(MODEL.read_text("utf-8"))["groups"]
]
"""The kind of each span, and its attributes."""
INTRINSICS = {"duration", "event:name", "kind", "name", "nestedSetParent", "status"}
WORDS = {"by", "client", "error", "nil", "server"}
FUNCTIONS = {"count_over_time", "quantile_over_time", "rate", "sum_over_time"}
VALUES: dict[str, set[str]] = {
    attributes.OUTCOME: {str(each) for each in Outcome},
    attributes.STATUS_FAULT: {str(each) for each in Fault},
    attributes.STATUS_CATEGORY: {str(each) for each in Category},
    attributes.STATUS_RETRY: {str(each) for each in Retry},
    attributes.OPERATION: {"unlisted", *operations_by_name()},
    attributes.RETRY_STOPPED: {str(each) for each in Stop},
    attributes.JOB: {"0af7651916cd43dd8448eb211c80319c"},
    attributes.WAIT_REASON: {str(each) for each in WaitReason},
    attributes.HTTP_REQUEST_RESEND_COUNT: {"1"},
    "event:name": EVENTS,
    "name": {"insider wait", "insider deliver .*"},
}


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_names_only_what_exists(query: str) -> None:
    without_text = re.sub(r'"[^"]*"', '""', query)
    # A word is what stands between the characters that end an attribute's name in TraceQL.
    words = set(re.findall(r"[A-Za-z][\w.:-]*", without_text))
    asked = {word.removeprefix("span.") for word in words if word.startswith("span.")}
    assert asked <= ATTRIBUTES
    assert {word for word in words if not word.startswith("span.")} <= INTRINSICS | WORDS | FUNCTIONS


def is_among(attribute: str, known: set[str]) -> bool:
    """Whether it is one of them, or of a family of theirs: ``http.response.header.cf-ray``."""
    return any(attribute == each or attribute.startswith(f"{each}.") for each in known)


@pytest.mark.parametrize("query", QUERIES)
def test_what_a_query_asks_of_one_span_stands_on_one_span(query: str) -> None:
    for each in re.findall(r"\{([^{}]*)\}", query):
        for condition in each.split("||"):
            asked = set(re.findall(r"span\.([\w.-]+)", condition))
            kinds = re.findall(r"\bkind = (\w+)", condition) or [kind for kind, _ in SPANS]
            assert any(kind in kinds and all(is_among(each, had) for each in asked) for kind, had in SPANS)


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_compares_with_values_that_occur(query: str) -> None:
    for name, values in re.findall(r'([\w.:-]+) (?:!?=|=~) "([^"]*)"', query):
        assert set(values.split("|")) <= VALUES[name.removeprefix("span.")], name
    assert not re.search(r"[=<>] \d+\.\d", query), "what is exported is whole: Tempo finds nothing for a float"


@pytest.mark.parametrize("query", QUERIES)
def test_a_query_is_whole(query: str) -> None:
    assert "\n" not in query
    for opening, closing in ("{}", "()"):
        assert query.count(opening) == query.count(closing)
    filters = re.findall(r"\{([^{}]*)\}", query)
    assert filters
    operand = r'[\w.:-]+ (?:=|!=|=~|>|<) (?:"[^"]*"|\w+)'
    for each in filters:
        assert re.fullmatch(rf" {operand}(?: (?:&&|\|\|) {operand})* ", each), each
    stages = re.split(r" \| ", re.sub(r"\{[^{}]*\}", "{}", query))
    for stage in stages[1:]:
        assert re.fullmatch(r"(\w+)\([^()]*\)(?: by \([\w., -]+\))?", stage), stage
    assert re.fullmatch(r"\(?\{\}(?: >> \{\}\)?(?: \|\| \{\})?)?", stages[0]), stages[0]


@pytest.mark.parametrize("query", QUERIES)
def test_no_quantile_is_asked_of_an_attribute(query: str) -> None:
    for over in re.findall(r"quantile_over_time\(([\w.]+)", query):
        assert over == "duration"


def test_the_tags_for_jaeger_exist_with_these_values() -> None:
    page = (OBSERVABILITY / "queries.md").read_text("utf-8").partition("## In Jaeger")[2]
    tags = [tag for cell in re.findall(r"\| `([^`]*)` \|", page) for tag in cell.split()]
    assert len(tags) >= 9
    for tag in tags:
        name, _, value = tag.partition("=")
        assert value in VALUES[name], tag
