"""The files of the example fit together: services, ports, mounts, pipelines, receivers."""

from __future__ import annotations

import re
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from .promtool import OBSERVABILITY, RULES, needs_promtool, promtool

YAML = sorted(OBSERVABILITY.rglob("*.yaml"))


def load(name: str) -> Any:
    return yaml.safe_load((OBSERVABILITY / name).read_text("utf-8"))


SERVICES: dict[str, dict[str, Any]] = load("compose.yaml")["services"]
COLLECTOR, TEMPO, PROMETHEUS = load("collector/config.yaml"), load("tempo.yaml"), load("prometheus/prometheus.yaml")
DATA_SOURCES = load("grafana/provisioning/datasources/datasources.yaml")["datasources"]
ALERTMANAGER = load("alertmanager.yaml")


def otlp_ports(receivers: dict[str, Any]) -> set[int]:
    return {int(each["endpoint"].rpartition(":")[2]) for each in receivers["otlp"]["protocols"].values()}


# What a service listens on: as it is configured here, else what its maker says.
LISTENS = {
    "alertmanager": {9093},
    "collector": otlp_ports(COLLECTOR["receivers"]),
    "grafana": {3000},
    "jaeger": {4317, 16686},
    "prometheus": {9090},
    "shop": {8000},
    "tempo": otlp_ports(TEMPO["distributor"]["receivers"]) | {TEMPO["server"]["http_listen_port"]},
}


def addresses() -> list[str]:
    """Every address at which one service looks for another."""
    exporters = [each["endpoint"] for each in COLLECTOR["exporters"].values()]
    pushed = [each["url"] for each in TEMPO["metrics_generator"]["storage"]["remote_write"]]
    alerted = [
        target
        for each in PROMETHEUS["alerting"]["alertmanagers"]
        for config in each["static_configs"]
        for target in config["targets"]
    ]
    sources = [each["url"] for each in DATA_SOURCES]
    return [*exporters, *pushed, *alerted, *sources, SERVICES["shop"]["environment"]["OTEL_EXPORTER_OTLP_ENDPOINT"]]


def mounts(service: str) -> dict[str, Path]:
    """What a service sees of the checkout, by where it sees it."""
    volumes = [volume.split(":") for volume in SERVICES[service].get("volumes", ())]
    return {parts[1]: OBSERVABILITY / parts[0] for parts in volumes if parts[0].startswith(".")}


def shown(service: str, path: str) -> Path:
    """The file or folder of the checkout that a service sees at a path."""
    for target, source in mounts(service).items():
        if path == target or path.startswith(target + "/"):
            return source / path[len(target) :].lstrip("/")
    raise AssertionError(f"{service} does not see {path}")


@pytest.mark.parametrize("file", YAML, ids=lambda file: file.name)
def test_each_file_is_yaml(file: Path) -> None:
    assert isinstance(yaml.safe_load(file.read_text("utf-8")), dict)


@pytest.mark.parametrize("service", SERVICES)
def test_images_are_pinned_by_version(service: str) -> None:
    if "build" in SERVICES[service]:
        dockerfile = OBSERVABILITY / SERVICES[service]["build"]["context"] / SERVICES[service]["build"]["dockerfile"]
        image = re.findall(r"^FROM (\S+)$", dockerfile.read_text("utf-8"), re.MULTILINE)[0]
    else:
        image = SERVICES[service]["image"]
    assert re.fullmatch(r"[\w./-]+:v?\d+\.\d+\.\d+(-slim)?", image)


def test_the_image_of_the_shop_is_built_of_what_there_is() -> None:
    build = SERVICES["shop"]["build"]
    root = OBSERVABILITY / build["context"]
    text = (root / build["dockerfile"]).read_text("utf-8")
    allowed = set(
        re.findall(r"^!(\S+)$", (root / f"{build['dockerfile']}.dockerignore").read_text("utf-8"), re.MULTILINE)
    )
    copied = list(chain.from_iterable(line.split()[:-1] for line in re.findall(r"^COPY (.*)$", text, re.MULTILINE)))
    assert set(copied) == allowed
    for name in copied:
        assert (root / name).exists(), name
    (script,) = re.findall(r'"(examples/\S+\.py)"', text)
    assert (root / script).is_file()


@pytest.mark.parametrize("service", SERVICES)
def test_ports_are_published_on_this_machine_only_and_listened_on(service: str) -> None:
    for published in SERVICES[service]["ports"]:
        host, outside, inside = published.split(":")
        assert host == "127.0.0.1"
        assert outside == inside
        assert int(inside) in LISTENS[service]


def test_no_port_is_published_twice() -> None:
    published = [port for service in SERVICES.values() for port in service["ports"]]
    assert len(published) == len(set(published))


@pytest.mark.parametrize("address", addresses())
def test_an_address_names_a_service_and_a_port_it_listens_on(address: str) -> None:
    parts = urlsplit(address if "//" in address else f"//{address}")
    assert parts.port in LISTENS[parts.hostname or ""]


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_waits_for_those_it_sends_to(service: str) -> None:
    assert set(SERVICES[service].get("depends_on", ())) <= set(SERVICES)


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_mounted_exists_and_configurations_are_mounted(service: str) -> None:
    for source in mounts(service).values():
        assert source.exists()
    for argument in SERVICES[service].get("command", ()):
        path = argument.rpartition("=")[2]
        if path.startswith("/"):
            assert shown(service, path).is_file()


def test_prometheus_sees_the_rules_and_takes_what_is_pushed() -> None:
    (rules,) = PROMETHEUS["rule_files"]
    assert shown("prometheus", f"/etc/prometheus/{rules}".rpartition("/")[0]) == RULES
    flags = SERVICES["prometheus"]["command"]
    assert COLLECTOR["exporters"]["otlp_http/prometheus"]["endpoint"].endswith("/api/v1/otlp")
    assert "--web.enable-otlp-receiver" in flags
    assert TEMPO["metrics_generator"]["storage"]["remote_write"][0]["url"].endswith("/api/v1/write")
    assert "--web.enable-remote-write-receiver" in flags
    assert "--enable-feature=exemplar-storage" in flags


def test_tempo_makes_the_span_metrics_that_it_is_configured_to_make() -> None:
    assert "span-metrics" in TEMPO["overrides"]["defaults"]["metrics_generator"]["processors"]


def test_grafana_finds_the_dashboards() -> None:
    (provider,) = load("grafana/provisioning/dashboards/dashboards.yaml")["providers"]
    assert list(shown("grafana", provider["options"]["path"]).glob("*.json"))


def test_data_sources_refer_to_each_other() -> None:
    uids = {source["uid"] for source in DATA_SOURCES}
    referred = set(re.findall(r"'datasourceUid': '(\w+)'", str(DATA_SOURCES)))
    assert referred
    assert referred <= uids


def test_each_alert_finds_a_receiver() -> None:
    names = {receiver["name"] for receiver in ALERTMANAGER["receivers"]}
    routes = [ALERTMANAGER["route"], *ALERTMANAGER["route"]["routes"]]
    assert {route["receiver"] for route in routes} == names
    assert [route["matchers"] for route in routes[1:]] == [['severity = "page"']]


def test_an_alert_is_held_back_only_by_one_that_exists() -> None:
    alerts = {
        rule["alert"]
        for file in RULES.glob("*.yaml")
        for group in yaml.safe_load(file.read_text("utf-8"))["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    named = re.findall(r'alertname = "(\w+)"', str(ALERTMANAGER["inhibit_rules"]))
    assert len(named) == 2 * len(ALERTMANAGER["inhibit_rules"])
    assert set(named) <= alerts


def muted(alert: dict[str, str], firing: dict[str, str]) -> bool:
    """Whether an alert is held back by another, as Alertmanager decides it: what both lack is equal."""
    return any(
        rule["source_matchers"] == [f'alertname = "{firing["alertname"]}"']
        and rule["target_matchers"] == [f'alertname = "{alert["alertname"]}"']
        and all(alert.get(label, "") == firing.get(label, "") for label in rule["equal"])
        for rule in ALERTMANAGER["inhibit_rules"]
    )


@pytest.mark.parametrize(("source", "app"), [("metrics", "job"), ("spans", "service")])
@pytest.mark.parametrize("alert", ["InsiderFailingSlowly", "InsiderRetriesClimbing", "InsiderDeliveriesFailing"])
def test_a_page_holds_back_the_tickets_of_its_own_app_and_operation_only(alert: str, source: str, app: str) -> None:
    labels = {"source": source, app: "shop-a", "insider_operation": "user.upsert"}
    page = {"alertname": "InsiderFailing", "insider_status_fault": "insider", **labels}
    # Retries and deliveries are counted whoever's fault they are.
    fault = {"insider_status_fault": "insider"} if alert == "InsiderFailingSlowly" else {}
    ticket = {"alertname": alert, **fault, **labels}
    assert muted(ticket, page)
    for other in ({app: "shop-b"}, {"insider_operation": "mail.send"}):
        assert not muted({**ticket, **other}, page)


@needs_promtool
def test_promtool_finds_nothing_wrong_with_the_configuration() -> None:
    checked = promtool("check", "config", OBSERVABILITY / "prometheus" / "prometheus.yaml")
    assert checked.returncode == 0, checked.stdout + checked.stderr


PAGES = sorted(OBSERVABILITY.rglob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_the_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)", page.read_text("utf-8")):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_ports_on_the_pages_are_published(page: Path) -> None:
    published = {int(port.split(":")[1]) for service in SERVICES.values() for port in service["ports"]}
    moved = {14317, 24317}  # Where Jaeger and Tempo go without Docker, to leave their port to the collector.
    assert {int(port) for port in re.findall(r"localhost:(\d+)", page.read_text("utf-8"))} <= published | moved
