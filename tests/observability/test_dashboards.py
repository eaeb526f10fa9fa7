"""The committed dashboards are what the code makes, and lead where they say."""

from __future__ import annotations

import importlib.util
import os
import re

import pytest
import yaml

from .panels import FOLDER, boards, panels
from .promtool import OBSERVABILITY

GRAFANA = OBSERVABILITY / "grafana"
SOURCES = {
    source["uid"]: source
    for source in yaml.safe_load((GRAFANA / "provisioning/datasources/datasources.yaml").read_text("utf-8"))[
        "datasources"
    ]
}

needs_sdk = pytest.mark.skipif(
    importlib.util.find_spec("grafana_foundation_sdk") is None and not os.environ.get("CI"),
    reason="the dashboards are made with grafana-foundation-sdk, which is not installed",
)


@pytest.mark.once
@needs_sdk
def test_the_committed_dashboards_are_in_step_with_the_code() -> None:
    """If not: python examples/observability/grafana/dashboards.py"""
    spec = importlib.util.spec_from_file_location("dashboards", GRAFANA / "dashboards.py")
    assert spec is not None
    assert spec.loader is not None
    code = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(code)
    assert code.render() == {file.name: file.read_text("utf-8") for file in FOLDER.glob("*.json")}


def test_each_dashboard_has_a_name_of_its_own() -> None:
    uids = {board["uid"] for board in boards().values()}
    assert uids == {"insider-overview", "insider-operation", "insider-runbook"}


def test_panels_ask_data_sources_that_are_provisioned() -> None:
    asked = []
    for where, panel in panels():
        for part in (panel, *panel.get("targets", ())):
            if "datasource" in part:
                uid = part["datasource"]["uid"]
                assert SOURCES[uid]["type"] == part["datasource"]["type"], (where, panel["title"])
                asked.append(uid)
    assert set(asked) == {"prometheus", "tempo"}
    for name, board in boards().items():
        for variable in board["templating"].get("list", ()):
            assert variable["datasource"]["uid"] in SOURCES, name


def test_a_point_on_a_histogram_leads_to_its_trace() -> None:
    targets = [target for _, panel in panels() for target in panel.get("targets", ())]
    histograms = [target for target in targets if "histogram_quantile" in target.get("expr", "")]
    assert histograms
    assert all(target["exemplar"] for target in histograms)
    destinations = SOURCES["prometheus"]["jsonData"]["exemplarTraceIdDestinations"]
    assert {each["datasourceUid"] for each in destinations} == {"tempo"}


def test_an_operation_leads_to_its_dashboard() -> None:
    links = {
        link["url"]
        for _, panel in panels()
        for link in panel.get("fieldConfig", {}).get("defaults", {}).get("links", ())
    }
    (link,) = links
    uid, variable = re.match(r"/d/([\w-]+)\?var-(\w+)=", link).groups()  # type: ignore[union-attr]
    board = boards()["operation"]
    assert board["uid"] == uid
    assert variable in {each["name"] for each in board["templating"]["list"]}


@pytest.mark.parametrize(("job", "service"), [("shop", "shop"), ("web/shop", "shop")])
def test_the_app_that_is_chosen_is_found_in_the_span_metrics_too(job: str, service: str) -> None:
    """A job is ``<service.namespace>/<service.name>`` to Prometheus' OTLP receiver; Tempo's service is the name."""
    variables = {each["name"]: each for each in boards()["operation"]["templating"]["list"]}
    assert 'job=~"$job"' in variables["service"]["query"]
    found = re.search(variables["service"]["regex"].removeprefix("/").removesuffix("/"), job)
    assert found is not None
    assert found.group(1) == service


def test_each_label_is_asked_for_the_values_that_it_has() -> None:
    asked = [
        matcher
        for _, panel in panels()
        for target in panel.get("targets", ())
        for matcher in re.findall(r'\b(?:job|service)=~?"[^"]*"', target.get("expr", ""))
    ]
    assert set(asked) == {'job=~"$job"', 'service=~"$service"'}


def test_panels_do_not_overlap() -> None:
    for name, board in boards().items():
        taken: set[tuple[int, int]] = set()
        for panel in board["panels"]:
            at = panel["gridPos"]
            cells = {(at["x"] + x, at["y"] + y) for x in range(at["w"]) for y in range(at["h"])}
            assert max(x for x, _ in cells) < 24, (name, panel["title"])
            assert not cells & taken, (name, panel["title"])
            taken |= cells


def test_the_overview_shows_what_somebody_on_call_asks_for() -> None:
    asked = " ".join(
        target.get("expr", "") for panel in boards()["overview"]["panels"] for target in panel.get("targets", ())
    )
    for name in (
        "insider_client_call_duration_seconds_bucket",
        "http_client_request_duration_seconds_bucket",
        "insider_client_retries_total",
        "insider_client_wait_duration_seconds_bucket",
        "insider_client_rate_limit_utilization_ratio",
        "insider_client_records_total",
        "insider_client_duplicates_total",
        "insider_outbox_jobs",
        "insider_outbox_oldest_age_seconds",
        "insider_outbox_deliveries_total",
        "by (insider_status_fault)",
        "by (insider_status_category)",
    ):
        assert name in asked


def test_the_traces_that_are_listed_are_those_of_failed_calls() -> None:
    queries = [target["query"] for _, panel in panels() for target in panel.get("targets", ()) if "query" in target]
    assert len(queries) == 2
    for query in queries:
        assert 'span.insider.outcome =~ "failed|partly_failed"' in query
