"""Each alert fires when it should, names who and what, and is silent otherwise; over metrics and spans alike."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

from insider_otel.api.operations import operations

from .promtool import OBSERVABILITY, RULES, needs_promtool, promtool, run_rules
from .shop_series import MAIL, UPSERT, Calls, Deliveries, Fact, Outbox, Pool, Retries, Series, Waits

FILES = {"metrics": RULES / "insider_metrics.yaml", "spans": RULES / "insider_spans.yaml"}
HEALTHY = Calls("0+100x120")


@dataclass(frozen=True)
class Scenario:
    """What happened in a shop, and who is told.

    Attributes:
        name: What happened.
        facts: It, in series of one sample a minute.
        alerts: The alerts that fire, with what tells one from another; nothing for those about all of an app.
        minute: When they do.
        source: The only set of rules that can know; empty for both.
    """

    name: str
    facts: tuple[Fact, ...]
    alerts: frozenset[tuple[str, str]] = frozenset()
    minute: int = 120
    source: str = ""


def failed(values: str, category: str = "unavailable", fault: str = "insider") -> Calls:
    return Calls(values, "failed", category, fault)


def fires(*alerts: str, about: str = UPSERT) -> frozenset[tuple[str, str]]:
    return frozenset((alert, about) for alert in alerts)


# Who pages also opens a ticket; Alertmanager holds that back.
BOTH = fires("InsiderFailing", "InsiderFailingSlowly")
SCENARIOS = (
    Scenario("a quiet day", (HEALTHY, Pool("0.5x120"), Waits("0+5x120", "0+5x120"))),
    Scenario("no calls at all", ()),
    # InsiderFailing
    Scenario("Insider fails every fifth call", (HEALTHY, failed("0+25x120")), BOTH),
    Scenario("nothing gets through to Insider", (failed("0+9x120", "network", "network"),), BOTH),
    Scenario("Insider fails every fifth call, since three minutes ago", (HEALTHY, failed("0x117 25+25x120"))),
    Scenario("Insider failed for an hour and is well again", (HEALTHY, failed("0+50x60 3000x120")), minute=95),
    Scenario(
        "Insider fails a few calls of a shop that makes few", (Calls("0+0.2x120"), failed("0+0.1x120")), minute=60
    ),
    Scenario("every fifth call fails by the shop's own fault", (HEALTHY, failed("0+25x120", "validation", "caller"))),
    # InsiderFailingSlowly
    Scenario("Insider fails every tenth call for hours", (HEALTHY, failed("0+11x120")), fires("InsiderFailingSlowly")),
    Scenario("Insider fails every hundredth call for hours", (HEALTHY, failed("0+1x120"))),
    # InsiderKeysRefused
    Scenario(
        "a key is refused for the first time ever",
        (HEALTHY, Calls("_x119 1", "failed", "authentication", "caller", MAIL)),
        fires("InsiderKeysRefused", about=MAIL),
    ),
    Scenario(
        "a key is refused again",
        (HEALTHY, Calls("7x115 8x5", "failed", "authentication", "caller", MAIL)),
        fires("InsiderKeysRefused", about=MAIL),
    ),
    Scenario(
        "a key was refused an hour ago", (HEALTHY, Calls("_x60 7x60", "failed", "authentication", "caller", MAIL))
    ),
    Scenario(
        "a key is refused for the first time, on a delivery",
        (HEALTHY, Deliveries("_x115 1x5", "deferred", "authentication", "caller")),
        fires("InsiderKeysRefused"),
    ),
    Scenario(
        "everything is deferred, and every delivery refused for its key",
        (
            Calls("0+30x120", "deferred", "accepted"),
            Deliveries("0x60 0+30x60", "deferred", "authentication", "caller"),
        ),
        fires("InsiderKeysRefused"),
    ),
    Scenario(
        "a key was refused an hour ago, on a delivery",
        (HEALTHY, Deliveries("_x60 7x60", "deferred", "authentication", "caller")),
    ),
    # InsiderRecordsLost
    Scenario(
        "records of a first call are lost",
        (HEALTHY, Calls("_x110 1x10", "partly_failed", "partial_failure", "caller")),
        fires("InsiderRecordsLost"),
    ),
    Scenario(
        "records are lost now and then",
        (HEALTHY, Calls("0x60 3x50 4x10", "partly_failed", "partial_failure", "caller")),
        fires("InsiderRecordsLost"),
    ),
    Scenario("records were lost this morning", (HEALTHY, Calls("4x120", "partly_failed", "partial_failure", "caller"))),
    # InsiderRetriesClimbing
    Scenario(
        "a fifth of the calls needs a retry, and did not before",
        (HEALTHY, Retries("0+1x90 110+20x60")),
        fires("InsiderRetriesClimbing"),
    ),
    Scenario(
        "nearly every call needs a retry, and ever did", (HEALTHY, Retries("0+80x120")), fires("InsiderRetriesClimbing")
    ),
    Scenario(
        "a fifth of the calls needs a retry, and none ever did",
        (HEALTHY, Retries("_x95 20+20x60")),
        fires("InsiderRetriesClimbing"),
    ),
    Scenario("a fifth of the calls needs a retry, as ever", (HEALTHY, Retries("0+20x120"))),
    Scenario("retries doubled, to very few", (HEALTHY, Retries("0+1x90 94+4x60"))),
    Scenario(
        "Insider is down, since half an hour ago, for a small shop that defers",
        (
            Calls("0+2x60", "deferred", "unavailable", "insider"),
            # What is tried again is the deliveries.
            Deliveries("0+3x60", "deferred"),
            Retries("0+3x60"),
            Outbox("0+2x60", "0+60x60"),
        ),
        fires("InsiderRetriesClimbing", "InsiderDeliveriesFailing"),
        minute=30,
    ),
    # InsiderPoolNearlyFull
    Scenario("a pool is nearly full", (HEALTHY, Pool("0.97x120")), fires("InsiderPoolNearlyFull"), 30, "metrics"),
    Scenario("a pool was full for a minute", (HEALTHY, Pool("0.4x60 1 0.4x60")), minute=62, source="metrics"),
    *(
        Scenario(f"the {pool} of the day was made, as every day", (HEALTHY, Pool("0x10 1x110", pool)), source="metrics")
        for pool in sorted({each.pool for each in operations() if each.limit and each.limit.calendar})
    ),
    # InsiderRateLimited
    Scenario("Insider says too many", (HEALTHY, Retries("0+1x120", "rate_limit")), fires("InsiderRateLimited")),
    Scenario("Insider said too many, once", (HEALTHY, Retries("0x115 1x10", "rate_limit"))),
    Scenario(
        "the library refuses calls for want of room",
        (HEALTHY, failed("0+1x120", "rate_limit", "caller")),
        fires("InsiderRateLimited"),
        source="metrics",
    ),
    # InsiderPagesWaiting
    Scenario("pages wait for seconds", (HEALTHY, Waits("0+2x120", "0+12x120")), fires("InsiderPagesWaiting")),
    Scenario("pages wait for a blink", (HEALTHY, Waits("0+12x120", "0+12x120"))),
    Scenario("one page in a hundred waits", (HEALTHY, Waits("0+2x120", "0+3x120"))),
    # InsiderOutboxOld
    Scenario("nobody delivers", (Outbox("20x120", "0+60x120"),), fires("InsiderOutboxOld", about=""), source="metrics"),
    Scenario("deferred calls wait for ten minutes", (Outbox("20x120", "600x120"),), source="metrics"),
    # InsiderOutboxGrowing
    Scenario(
        "ever more is deferred",
        (Outbox("10x90 50+50x30", "300x120"),),
        fires("InsiderOutboxGrowing", about=""),
        minute=110,
        source="metrics",
    ),
    Scenario("much is deferred, and all of it delivered", (Outbox("500x120", "300x120"),), source="metrics"),
    Scenario("a few calls are deferred, where none were", (Outbox("0x100 50x20", "60x120"),), source="metrics"),
    # InsiderDeliveriesFailing
    Scenario(
        "Insider is down, since two hours ago, and Celery delivers as a service of its own",
        (
            Calls("0+10x180", "deferred", "accepted"),
            # What it tells of retries is not to be compared with calls: the app makes those.
            Deliveries("0+10x60 600x120", "succeeded", "success", "none", job="shop-worker"),
            Deliveries("0x60 0+9x120", "deferred", job="shop-worker"),
            Retries("0x60 0+9x120", job="shop-worker"),
        ),
        fires("InsiderDeliveriesFailing"),
        minute=180,
    ),
    Scenario(
        "Insider is down, since twenty minutes ago, and Celery delivers as a service of its own",
        (
            Deliveries("0+10x160 1600x20", "succeeded", "success", "none", job="shop-worker"),
            Deliveries("0x160 0+9x20", "deferred", job="shop-worker"),
        ),
        minute=180,
    ),
    Scenario(
        "a blip of five minutes, and all that was deferred is delivered at once, for the first time ever",
        (Deliveries("_x90 4 8 12x30", "deferred"), Deliveries("_x95 10x30", "succeeded", "success", "none")),
        minute=110,
    ),
    Scenario(
        "Insider is down, and each worker ends after a few deliveries",
        tuple(
            Deliveries(f"_x{each * 2} 10x1 stale", "deferred", job="shop-worker", instance=f"w{each}")
            for each in range(50)
        ),
        fires("InsiderDeliveriesFailing"),
        minute=95,
    ),
    Scenario(
        "every second delivery has to be tried again",
        (Deliveries("0+10x120", "succeeded", "success", "none"), Deliveries("0+10x120", "deferred")),
    ),
    # InsiderCallsGivenUp
    Scenario(
        "a deferred call is given up for the first time",
        (HEALTHY, Deliveries("0+10x120", "succeeded", "success", "none"), Deliveries("_x115 1x5", "failed")),
        fires("InsiderCallsGivenUp"),
    ),
    Scenario("a deferred call was given up this morning", (HEALTHY, Deliveries("3x120", "failed"))),
)
CASES = [
    pytest.param(source, scenario, id=f"{source}: {scenario.name}")
    for scenario in SCENARIOS
    for source in FILES
    if scenario.source in {"", source}
]


@cache
def alerts_of(source: str) -> dict[str, dict[str, Any]]:
    groups = yaml.safe_load(FILES[source].read_text("utf-8"))["groups"]
    return {rule["alert"]: rule for group in groups for rule in group["rules"] if "alert" in rule}


def labels_of(alert: str, about: str, source: str) -> str:
    labels = {"alertname": alert, "severity": alerts_of(source)[alert]["labels"]["severity"]}
    if alert == "InsiderPoolNearlyFull":
        labels["insider_pool"] = about
    elif about:
        labels["insider_operation"] = about
    return "{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}"


@pytest.mark.once
@needs_promtool
@pytest.mark.parametrize(("source", "scenario"), CASES)
def test_those_alerts_fire_and_no_others(source: str, scenario: Scenario, tmp_path: Path) -> None:
    series: Series = {}
    for fact in scenario.facts:
        series |= getattr(fact, source)()
    expected = [labels_of(alert, about, source) for alert, about in scenario.alerts]
    test = {
        "interval": "1m",
        "input_series": [{"series": name, "values": values} for name, values in series.items()],
        "promql_expr_test": [
            {
                "expr": 'count by (alertname, severity, insider_operation, insider_pool) (ALERTS{alertstate="firing"})',
                "eval_time": f"{scenario.minute}m",
                "exp_samples": [{"labels": labels, "value": 1} for labels in expected],
            }
        ],
    }
    played = run_rules(FILES[source], test, tmp_path)
    assert played.returncode == 0, played.stdout + played.stderr


@needs_promtool
def test_an_alert_says_who_is_concerned_and_how_badly(tmp_path: Path) -> None:
    facts = (HEALTHY, failed("0+25x120"))
    labels = {"job": "shop", "insider_operation": UPSERT, "insider_status_fault": "insider"}
    test = {
        "interval": "1m",
        "input_series": [
            {"series": name, "values": values} for fact in facts for name, values in fact.metrics().items()
        ],
        "alert_rule_test": [
            {
                "alertname": "InsiderFailing",
                "eval_time": "60m",
                "exp_alerts": [
                    {
                        "exp_labels": {**labels, "severity": "page", "source": "metrics"},
                        "exp_annotations": {
                            "summary": "20% of user.upsert calls of shop failed in the last hour; fault: insider",
                            "runbook_url": "http://localhost:3000/d/insider-runbook",
                        },
                    }
                ],
            }
        ],
    }
    played = run_rules(FILES["metrics"], test, tmp_path)
    assert played.returncode == 0, played.stdout + played.stderr


@needs_promtool
@pytest.mark.parametrize("source", FILES)
def test_promtool_finds_nothing_wrong_with_the_rules(source: str) -> None:
    checked = promtool("check", "rules", "--lint=all", "--lint-fatal", FILES[source])
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.parametrize("source", FILES)
def test_each_alert_fires_in_some_scenario(source: str) -> None:
    fired = {alert for each in SCENARIOS if each.source in {"", source} for alert, _ in each.alerts}
    assert fired >= set(alerts_of(source))


def test_the_two_sets_are_twins_but_for_the_gauges() -> None:
    metrics, spans = alerts_of("metrics"), alerts_of("spans")
    assert set(metrics) - set(spans) == {"InsiderPoolNearlyFull", "InsiderOutboxOld", "InsiderOutboxGrowing"}
    assert set(spans) <= set(metrics)
    for name, twin in spans.items():
        assert twin["labels"]["severity"] == metrics[name]["labels"]["severity"], name
        assert twin.get("for") == metrics[name].get("for"), name


@pytest.mark.parametrize("source", FILES)
def test_each_alert_has_a_severity_a_summary_and_a_section_in_the_runbook(source: str) -> None:
    sections = re.findall(r"^## (\w+)$", (OBSERVABILITY / "runbook.md").read_text("utf-8"), re.MULTILINE)
    for name, rule in alerts_of(source).items():
        assert rule["labels"] == {"severity": rule["labels"]["severity"], "source": source}, name
        assert rule["labels"]["severity"] in {"page", "ticket"}, name
        assert rule["annotations"]["summary"], name
        assert rule["annotations"]["runbook_url"].endswith("/d/insider-runbook"), name
        assert name in sections
