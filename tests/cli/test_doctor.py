"""The doctor finds what keeps traces from being seen or trusted, and never shows a secret."""

from __future__ import annotations

import io
import json
import sys
from pathlib import Path

import pytest

from insider_otel.cli import main
from insider_otel.cli.checks import examine
from insider_otel.cli.checks.environment import Environment, Finding, Level, normalized

VERSIONS = {
    "httpx": "0.28.1",
    "insider-otel": "0.1.0",
    "opentelemetry-api": "1.45.2",
    "opentelemetry-instrumentation": "0.66b2",
    "opentelemetry-sdk": "1.45.2",
    "wrapt": "2.5.2",
}
ENTRY_POINTS = {
    "opentelemetry_traces_exporter": frozenset({"console", "otlp_proto_http"}),
    "opentelemetry_instrumentor": frozenset({"insider", "httpx", "httpx2"}),
}
VARIABLES = {
    "OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4318",
    "OTEL_SEMCONV_STABILITY_OPT_IN": "http",
    "INSIDER_OTEL_MODE": "enforce",
}


def findings(
    variables: dict[str, str] | None = None,
    *,
    versions: dict[str, str] | None = None,
    without: str = "",
    entry_points: dict[str, frozenset[str]] | None = None,
) -> list[Finding]:
    """What the doctor says of a healthy environment with these changes; a variable set to "" is unset."""
    installed = {name: version for name, version in (VERSIONS | (versions or {})).items() if name != without}
    variables = {name: value for name, value in (VARIABLES | (variables or {})).items() if value}
    return examine(Environment(variables, installed, ENTRY_POINTS | (entry_points or {})))


def only(found: list[Finding], level: Level) -> Finding:
    """The one finding of this level."""
    (finding,) = [finding for finding in found if finding.level is level]
    return finding


def about(found: list[Finding], text: str) -> Finding:
    """The one finding that is about ``text``."""
    (finding,) = [finding for finding in found if text in finding.what]
    return finding


def test_a_healthy_environment_has_neither_warning_nor_error() -> None:
    assert {finding.level for finding in findings()} == {Level.OK, Level.NOTE}


def test_whatever_is_not_well_comes_with_a_reason_and_a_remedy() -> None:
    sick = findings(
        {
            "OTEL_EXPORTER_OTLP_ENDPOINT": "",
            "OTEL_SEMCONV_STABILITY_OPT_IN": "",
            "OTEL_SDK_DISABLED": "true",
            "INSIDER_OTEL_MODUS": "observe",
            "INSIDER_OTEL_DEADLINE": "soon",
        },
        versions={"gunicorn": "23.0", "tenacity": "9.1", "httpx": "0.26.0"},
        without="opentelemetry-sdk",
        entry_points={"opentelemetry_traces_exporter": frozenset()},
    )
    assert all(finding.why and finding.remedy for finding in sick if finding.level is not Level.OK)


@pytest.mark.parametrize("version", ["0.26.0", "1.0.0"])
def test_an_httpx_outside_of_the_supported_range_is_an_error(version: str) -> None:
    assert only(findings(versions={"httpx": version}), Level.ERROR).what == f"httpx {version}"


@pytest.mark.parametrize("name", ["httpx", "insider-otel", "opentelemetry-sdk", "wrapt"])
def test_a_missing_library_is_an_error(name: str) -> None:
    assert name in only(findings(without=name), Level.ERROR).what


def test_httpx2_is_listed_where_it_is_installed() -> None:
    assert about(findings(versions={"httpx2": "2.16.2"}), "httpx2 2.16.2").level is Level.OK


@pytest.mark.parametrize(
    "variables",
    [
        {"OTEL_SDK_DISABLED": "True"},
        {"OTEL_TRACES_SAMPLER": "always_off"},
        {"OTEL_TRACES_SAMPLER": "parentbased_always_off"},
        {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0"},
        {"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.0"},
    ],
)
def test_telemetry_that_is_switched_off_is_a_warning(variables: dict[str, str]) -> None:
    warning = only(findings(variables), Level.WARNING)
    assert all(variable in warning.what for variable in variables)


@pytest.mark.parametrize("share", ["0.01", "", "a tenth"])
def test_a_share_of_the_traces_is_no_warning(share: str) -> None:
    found = findings({"OTEL_TRACES_SAMPLER": "parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG": share})
    assert Level.WARNING not in {finding.level for finding in found}


def test_no_exporter_is_a_warning() -> None:
    found = findings(entry_points={"opentelemetry_traces_exporter": frozenset({"console"})})
    assert only(found, Level.WARNING).what == "no trace exporter is installed"


def test_otlp_without_a_protocol_means_grpc_which_is_an_error_where_only_http_is_installed() -> None:
    error = only(findings({"OTEL_TRACES_EXPORTER": "otlp"}), Level.ERROR)
    assert "OTLP over gRPC is wanted (OTEL_TRACES_EXPORTER)," in error.what
    assert error.remedy.startswith("Set OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf, or ")


DISTRO = {"opentelemetry-distro": "0.66b2"}
EVERY_SIGNAL = {
    f"opentelemetry_{signal}_exporter": frozenset({"console", "otlp_proto_http"})
    for signal in ("traces", "metrics", "logs")
}


@pytest.mark.parametrize("protocol", ["", "grpc"])
def test_the_distro_wants_grpc_which_is_an_error_where_only_http_is_installed(protocol: str) -> None:
    found = findings({"OTEL_EXPORTER_OTLP_PROTOCOL": protocol}, versions=DISTRO, entry_points=EVERY_SIGNAL)
    error = only(found, Level.ERROR)
    assert error.what == (
        "OTLP over gRPC is wanted (OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER, OTEL_LOGS_EXPORTER), "
        "and only the HTTP exporter is installed"
    )
    assert error.why.startswith("opentelemetry-distro sets OTEL_TRACES_EXPORTER, OTEL_METRICS_EXPORTER")
    assert "Requested component 'otlp_proto_grpc' not found" in error.why
    assert "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf" in error.remedy
    assert "pip install opentelemetry-exporter-otlp-proto-grpc" in error.remedy


def test_the_distro_wants_exporters_for_metrics_and_logs_too() -> None:
    """One exporter that is not found stops all signals."""
    found = findings({"OTEL_TRACES_EXPORTER": "otlp_proto_http"}, versions=DISTRO, entry_points=EVERY_SIGNAL)
    error = only(found, Level.ERROR)
    assert error.what.startswith("OTLP over gRPC is wanted (OTEL_METRICS_EXPORTER, OTEL_LOGS_EXPORTER)")


def test_without_traces_the_other_signals_still_need_their_exporters() -> None:
    found = findings({"OTEL_TRACES_EXPORTER": "none"}, versions=DISTRO, entry_points=EVERY_SIGNAL)
    assert "(OTEL_METRICS_EXPORTER, OTEL_LOGS_EXPORTER)" in only(found, Level.ERROR).what


@pytest.mark.parametrize(
    ("variables", "exporters"),
    [
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"}, {"otlp_proto_http"}),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "grpc", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, {"otlp_proto_grpc"}),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": "http://c:4317"}, {"otlp_proto_grpc"}),
    ],
)
def test_the_distro_with_the_exporter_it_wants_is_fine(variables: dict[str, str], exporters: set[str]) -> None:
    found = findings(variables, versions=DISTRO, entry_points={group: frozenset(exporters) for group in EVERY_SIGNAL})
    assert {finding.level for finding in found} == {Level.OK, Level.NOTE}


def test_otlp_over_http_is_fine() -> None:
    found = findings({"OTEL_TRACES_EXPORTER": "otlp", "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"})
    assert {finding.level for finding in found} == {Level.OK, Level.NOTE}


def test_an_exporter_that_is_not_installed_is_an_error() -> None:
    error = only(findings({"OTEL_TRACES_EXPORTER": "console,zipkin"}), Level.ERROR)
    assert "zipkin" in error.what
    assert "console" in error.remedy


def test_traces_that_go_nowhere_are_a_warning() -> None:
    assert only(findings({"OTEL_TRACES_EXPORTER": "none"}), Level.WARNING).what == "OTEL_TRACES_EXPORTER is none"


def test_an_endpoint_that_is_not_set_is_noted() -> None:
    assert about(findings({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}), "is not set").level is Level.NOTE


@pytest.mark.parametrize("value", ["collector:4318", "collector", "http://", "http://collector:http", "ftp://c:1"])
def test_an_endpoint_without_scheme_host_or_number_is_an_error(value: str) -> None:
    error = only(findings({"OTEL_EXPORTER_OTLP_ENDPOINT": value}), Level.ERROR)
    assert "OTEL_EXPORTER_OTLP_ENDPOINT" in error.what


def test_grpc_takes_an_endpoint_without_a_scheme() -> None:
    found = findings({"OTEL_EXPORTER_OTLP_ENDPOINT": "collector:4317", "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"})
    assert about(found, "OTEL_EXPORTER_OTLP_ENDPOINT").what.endswith("goes to collector:4317")


@pytest.mark.parametrize(("port", "protocol"), [(4317, "http/protobuf"), (4318, "grpc"), (4317, "")])
def test_the_port_of_the_other_protocol_is_a_warning(port: int, protocol: str) -> None:
    """With only the HTTP exporter installed, no protocol set means HTTP."""
    found = findings(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://collector:{port}", "OTEL_EXPORTER_OTLP_PROTOCOL": protocol}
    )
    assert f"port {port}" in only(found, Level.WARNING).what


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/v1/metrics/"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318"),
        ("OTEL_EXPORTER_OTLP_METRICS_ENDPOINT", "http://collector:4318/"),
    ],
)
def test_an_address_whose_path_leads_nowhere_is_a_warning(variable: str, address: str) -> None:
    assert variable in only(findings({variable: address}), Level.WARNING).what


@pytest.mark.parametrize(
    ("variable", "address"),
    [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318/otlp"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector:4318/v1/traces"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://collector/of/somebody"),
    ],
)
def test_an_address_with_the_path_it_needs_is_well(variable: str, address: str) -> None:
    assert about(findings({variable: address}), f"{variable} goes to").level is Level.OK


def test_with_both_exporters_installed_the_port_alone_proves_nothing() -> None:
    found = findings(
        {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector:4317"},
        entry_points={"opentelemetry_traces_exporter": frozenset({"otlp_proto_http", "otlp_proto_grpc"})},
    )
    assert about(found, "OTEL_EXPORTER_OTLP_ENDPOINT").level is Level.OK


def test_stock_spans_with_the_old_names_are_a_warning() -> None:
    warning = only(findings({"OTEL_SEMCONV_STABILITY_OPT_IN": "database"}), Level.WARNING)
    assert warning.what == "OTEL_SEMCONV_STABILITY_OPT_IN does not name http"


@pytest.mark.parametrize("value", ["http", "http/dup", "database, http"])
def test_stock_spans_with_the_stable_names_are_fine(value: str) -> None:
    found = findings({"OTEL_SEMCONV_STABILITY_OPT_IN": value})
    assert not [finding for finding in found if finding.level is Level.WARNING]


def test_without_the_stock_instrumentation_its_names_do_not_matter() -> None:
    found = findings(
        {"OTEL_SEMCONV_STABILITY_OPT_IN": ""},
        entry_points={"opentelemetry_instrumentor": frozenset({"insider"})},
    )
    assert about(found, "opentelemetry-instrumentation-httpx is not installed").level is Level.NOTE
    assert not [finding for finding in found if finding.level is Level.WARNING]


def test_a_stock_instrumentation_that_does_not_know_httpx2_is_noted() -> None:
    found = findings(
        versions={"httpx2": "2.0"}, entry_points={"opentelemetry_instrumentor": frozenset({"insider", "httpx"})}
    )
    assert about(found, "no stock instrumentation for it").level is Level.NOTE


def test_zero_code_only_observes_unless_told_otherwise() -> None:
    assert "observes" in about(findings({"INSIDER_OTEL_MODE": ""}), "INSIDER_OTEL_MODE is not set").why


def test_being_left_out_of_zero_code_is_a_warning() -> None:
    found = findings({"OTEL_PYTHON_DISABLED_INSTRUMENTATIONS": "redis, insider"})
    assert "names insider" in only(found, Level.WARNING).what


def test_settings_that_do_not_go_together_are_an_error(tmp_path: Path) -> None:
    found = findings(
        {
            "INSIDER_OTEL_STATE": f"sqlite:///{tmp_path}/insider.db",
            "INSIDER_OTEL_OUTBOX": f"sqlite:///{tmp_path}/insider.db",
            "INSIDER_OTEL_DEADLINE": "soon",
        }
    )
    error = about(found, "name one file")
    assert (error.level, error.why) == (Level.ERROR, "insider-otel refuses to start with it.")
    assert error.what.startswith("state (INSIDER_OTEL_STATE) and outbox (INSIDER_OTEL_OUTBOX)")
    assert about(found, "deadline (INSIDER_OTEL_DEADLINE)").level is Level.ERROR, "each bad value is still found"


def test_a_misspelt_setting_gets_its_right_name() -> None:
    warning = only(findings({"INSIDER_OTEL_QUICK_RETRYS": "2"}), Level.WARNING)
    assert warning.what == "INSIDER_OTEL_QUICK_RETRYS is no setting"
    assert warning.remedy == "Did you mean INSIDER_OTEL_QUICK_RETRIES?"


def test_an_unknown_setting_that_looks_like_none_gets_the_list() -> None:
    remedy = only(findings({"INSIDER_OTEL_XYZZY": "1"}), Level.WARNING).remedy
    assert "Did you mean" not in remedy
    assert "INSIDER_OTEL_MODE" in remedy


def test_every_setting_that_cannot_be_used_is_an_error() -> None:
    found = findings(
        {"INSIDER_OTEL_MODE": "maybe", "INSIDER_OTEL_DEADLINE": "soon", "INSIDER_OTEL_QUICK_RETRIES": "-1"}
    )
    errors = [finding.what for finding in found if finding.level is Level.ERROR]
    assert len(errors) == 3
    assert [next(name for name in ("mode", "deadline", "quick_retries") if name in what) for what in errors] == [
        "mode",
        "deadline",
        "quick_retries",
    ]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("INSIDER_OTEL_REQUEST_DEADLINE", "abc"),
        ("INSIDER_OTEL_REQUEST_DEADLINE", "-1"),
        ("INSIDER_OTEL_ERROR_RESPONSES", "maybe"),
        ("INSIDER_OTEL_OUTBOX_WORKER", "2"),
    ],
)
def test_an_option_of_web_apps_that_cannot_be_used_is_an_error(variable: str, value: str) -> None:
    error = only(findings({variable: value}), Level.ERROR)
    assert f"({variable}) is " in error.what
    assert error.why.startswith("The adapters for Django, FastAPI and Flask refuse to start with it")


def test_options_of_web_apps_that_can_be_used_are_fine() -> None:
    found = findings({"INSIDER_OTEL_REQUEST_DEADLINE": "none", "INSIDER_OTEL_ERROR_RESPONSES": "true"})
    assert {finding.level for finding in found} == {Level.OK, Level.NOTE}


def test_a_misspelt_option_of_web_apps_gets_its_right_name() -> None:
    warning = only(findings({"INSIDER_OTEL_REQUEST_DEADLIN": "3"}), Level.WARNING)
    assert warning.remedy == "Did you mean INSIDER_OTEL_REQUEST_DEADLINE?"


def test_a_setting_that_cannot_be_used_is_an_error_with_what_it_accepts() -> None:
    error = only(findings({"INSIDER_OTEL_MODE": "maybe"}), Level.ERROR)
    assert error.what == "mode (INSIDER_OTEL_MODE) is 'maybe'; it accepts 'observe' or 'enforce'"


@pytest.mark.parametrize("variable", ["OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "OTEL_PYTHON_EXCLUDED_URLS"])
def test_excluding_insider_calls_from_the_traces_is_a_warning(variable: str) -> None:
    warning = only(findings({variable: "healthz,mail.useinsider.com"}), Level.WARNING)
    assert warning.what.startswith(f"{variable} excludes mail.")


def test_excluding_other_urls_is_fine() -> None:
    assert {finding.level for finding in findings({"OTEL_PYTHON_EXCLUDED_URLS": "healthz"})} == {Level.OK, Level.NOTE}


def test_an_exclusion_that_is_no_expression_is_an_error() -> None:
    assert "OTEL_PYTHON_EXCLUDED_URLS" in only(findings({"OTEL_PYTHON_EXCLUDED_URLS": "(("}), Level.ERROR).what


CAPTURE = "OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_"


@pytest.mark.parametrize(
    ("side", "value", "exposed"),
    [
        ("CLIENT_REQUEST", "X-Request-Token, accept", "x-request-token"),
        ("CLIENT_RESPONSE", "set-cookie", "set-cookie"),
        ("SERVER_REQUEST", "auth.*", "authorization"),
    ],
)
def test_capturing_a_credential_is_an_error(side: str, value: str, exposed: str) -> None:
    assert only(findings({CAPTURE + side: value}), Level.ERROR).what == f"{CAPTURE}{side} captures {exposed}"


def test_capturing_a_credential_that_is_sanitized_is_fine() -> None:
    found = findings({f"{CAPTURE}CLIENT_REQUEST": "x-.*", f"{CAPTURE}SANITIZE_FIELDS": "token,key"})
    assert not [finding for finding in found if finding.level is Level.ERROR]


def test_a_capture_that_is_no_expression_is_an_error() -> None:
    assert "CLIENT_REQUEST" in only(findings({f"{CAPTURE}CLIENT_REQUEST": "["}), Level.ERROR).what


def test_urls_in_the_log_are_noted() -> None:
    assert about(findings(), "full URLs").level is Level.NOTE


@pytest.mark.parametrize(
    ("variables", "level"),
    [
        ({"OTEL_PYTHON_LOGGING_AUTO_INSTRUMENTATION_ENABLED": "true"}, Level.WARNING),
        ({"OTEL_PYTHON_LOG_CORRELATION": "true"}, Level.WARNING),
        ({"OTEL_PYTHON_LOG_CORRELATION": "true", "OTEL_PYTHON_LOG_LEVEL": "error"}, Level.NOTE),
        ({"OTEL_PYTHON_LOG_LEVEL": "info"}, Level.NOTE),
    ],
)
def test_urls_in_the_log_are_a_warning_where_opentelemetry_takes_the_log_up(
    variables: dict[str, str], level: Level
) -> None:
    assert about(findings(variables), "full URLs").level is level


@pytest.mark.parametrize("name", ["tenacity", "stamina", "httpx-retries", "gunicorn", "celery"])
def test_libraries_that_need_a_thought_are_noted(name: str) -> None:
    assert about(findings(versions={name: "1.0"}), f"{name} is installed").level is Level.NOTE


def test_names_of_distributions_are_compared_as_indexes_do() -> None:
    assert normalized("HTTPX_Retries") == normalized("httpx-retries") == normalized("httpx.retries")


def test_a_broken_distribution_does_not_stop_the_doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An interrupted installation leaves directories without metadata behind."""
    (tmp_path / "half_installed-1.0.dist-info").mkdir()
    sound = tmp_path / "Some_Thing-2.0.dist-info"
    sound.mkdir()
    (sound / "METADATA").write_text("Metadata-Version: 2.1\nName: Some_Thing\nVersion: 2.0\n")
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    assert Environment.here().versions == {"some-thing": "2.0"}


def test_the_report_ends_with_the_counts(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    variables = VARIABLES | {"INSIDER_OTEL_DEADLINE": "soon"}
    monkeypatch.setattr(Environment, "here", lambda: Environment(variables, VERSIONS, ENTRY_POINTS))
    assert main(["doctor"]) == 1
    printed = capsys.readouterr().out
    assert "error    deadline (INSIDER_OTEL_DEADLINE) is 'soon'" in printed
    assert "1 error, " in printed.splitlines()[-1]


def test_the_exit_status_is_0_where_there_is_no_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Environment, "here", lambda: Environment(VARIABLES, VERSIONS, ENTRY_POINTS))
    assert main(["doctor", "--json"]) == 0
    levels = {finding["level"] for finding in json.loads(capsys.readouterr().out)}
    assert levels == {"ok", "note"}


def test_a_terminal_gets_levels_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Environment, "here", lambda: Environment(VARIABLES, VERSIONS, ENTRY_POINTS))
    monkeypatch.setattr(sys, "stdout", terminal := io.StringIO())
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    main(["doctor"])
    assert "\x1b[32mok     \x1b[0m  httpx 0.28.1\n" in terminal.getvalue()


def test_no_secret_is_ever_shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    for variable, value in {
        "OTEL_EXPORTER_OTLP_HEADERS": "authorization=Bearer s3cret",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "http://user:s3cret@collector:4318/s3cret?key=s3cret",
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "s3cret@collector:4318",
    }.items():
        monkeypatch.setenv(variable, value)
    for arguments in (["doctor"], ["doctor", "--json"]):
        main(arguments)
        printed = capsys.readouterr()
        assert "collector:4318" in printed.out
        assert "s3cret" not in printed.out + printed.err
