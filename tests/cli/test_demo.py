"""`insider-otel demo` plays every scenario for real, on any terminal or none, and sends the traces where it is told."""

from __future__ import annotations

import os
import pty
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from opentelemetry.trace import SpanKind

from insider_otel import Category, Outcome
from insider_otel.cli import main
from insider_otel.cli.demo.running import Played, Recorder, stage
from insider_otel.cli.demo.scenarios import SCENARIOS, Scenario
from insider_otel.cli.demo.showing import Paper, scene
from insider_otel.cli.output import UsageError
from insider_otel.testing import timeout

ANSI = re.compile(r"\x1b\[[0-9;]*m")
SECRETS = ("fake-key", "last-years-key", "jane", "+905550000001", "l234")
NAMES = [each.name for each in SCENARIOS]


def environment(**variables: str) -> dict[str, str]:
    """The process's environment without what would change the demo, and with some variables more."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("OTEL_", "INSIDER_OTEL_", "PYTHONIO")) and name not in {"COLUMNS", "NO_COLOR"}
    }
    return {**kept, "TERM": "xterm", "PYTHONUTF8": "1", **variables}


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "insider_otel", "demo", *arguments]


def demo(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own, without a terminal."""
    return subprocess.run(
        command(*arguments), capture_output=True, text=True, timeout=60, check=False, env=environment(**variables)
    )


def scenes(output: str) -> dict[str, list[str]]:
    """The lines of each scenario, by its name."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in output.splitlines():
        title = re.match(r"\S+ \d+/\d+ .* (\S+) \S+$", line)
        if title:
            lines = found.setdefault(title[1], [])
        lines.append(line)
    return found


# ------------------------------------------------------------------------------------------------ what it shows


@dataclass(frozen=True)
class Whole:
    """A run of all scenarios."""

    done: subprocess.CompletedProcess[str]
    seconds: float


@pytest.fixture(scope="module")
def whole() -> Whole:
    start = time.monotonic()
    done = demo()
    return Whole(done, time.monotonic() - start)


def test_it_runs_without_a_terminal_and_is_soon_over(whole: Whole) -> None:
    assert (whole.done.returncode, whole.done.stderr) == (0, "")
    assert whole.seconds < 30


def test_every_scenario_has_its_title(whole: Whole) -> None:
    shown = scenes(whole.done.stdout)
    assert list(shown) == NAMES
    assert [each.name for each in SCENARIOS if each.title not in shown[each.name][0]] == []


def test_without_a_terminal_it_is_plain_text_of_80_columns(whole: Whole) -> None:
    assert "\x1b" not in whole.done.stdout
    assert [line for line in whole.done.stdout.splitlines() if len(line) > 80] == []


def test_it_shows_no_secret_and_no_personal_datum(whole: Whole) -> None:
    assert [secret for secret in SECRETS if secret in whole.done.stdout.lower()] == []


@pytest.mark.parametrize(
    ("scenario", "bare", "tree", "outcome"),
    [
        (
            "success",
            "200 OK",
            [
                "POST /signup … 200",
                "└─ insider user.upsert … succeeded",
                "   └─ POST /api/user/v1/upsert … 200 success",
            ],
            "succeeded. Category success.",
        ),
        (
            "quick-retry",
            "503 Service Unavailable",
            [
                "POST /signup … 200",
                "└─ insider user.upsert … succeeded",
                "   ├─ POST /api/user/v1/upsert … 503 unavailable",
                "   ├─ ◆ retry.scheduled … unavailable",
                "   ├─ insider wait … retry (jitter)",
                "   └─ POST /api/user/v1/upsert … 200 success resend 1",
            ],
            "succeeded after 2 attempts and 300 ms of waiting. Category success.",
        ),
        (
            "hidden-rate-limit",
            "403 Forbidden",
            [
                "GET /reports/push … 200",
                "└─ insider web_push.top_metrics … succeeded",
                "   ├─ POST /v1/statistics/top-me… … 403 rate_limit",
                "   ├─ ◆ rate_limit.hit …",
                "   ├─ ◆ retry.scheduled … rate_limit",
                "   ├─ insider wait … rate_limit (retry_after)",
                "   └─ POST /v1/statistics/top-me… … 200 success resend 1",
            ],
            "succeeded after 2 attempts and 1.30 s of waiting. Category success.",
        ),
        (
            "otp-typo",
            "401 Unauthorized",
            [
                "POST /login/code … 422",
                "└─ insider verify.check … failed verification",
                "   └─ POST /v1/check … 401 verification",
            ],
            "failed. Category verification: nobody has to act.",
        ),
        (
            "lost-records",
            "200 OK",
            [
                "POST /import … 200",
                "└─ insider user.upsert … partly_failed 2 records lost",
                "   └─ POST /api/user/v1/upsert … 200 partial_failure",
            ],
            "partly failed: 2 of 3 records lost. Category partial_failure: your side has to act.",
        ),
        (
            "duplicate-window",
            "httpx.ReadTimeout",
            [
                "POST /orders … 200",
                "└─ insider mail.send … succeeded",
                "   ├─ POST /mail/v1/send … timeout",
                "   ├─ ◆ retry.scheduled … timeout",
                "   ├─ insider wait … retry (jitter)",
                "   ├─ POST /mail/v1/send … 202 duplicate resend 1",
                "   └─ ◆ dedupe.server_duplicate …",
            ],
            "succeeded after 2 attempts and 300 ms of waiting. Category duplicate.",
        ),
        (
            "permanent-500",
            "500 Internal Server Error",
            [
                "POST /admin/otp-channel … 409",
                "└─ insider verify.channel_create … failed conflict",
                "   └─ POST /v1/channel/create … 500 conflict",
            ],
            "failed. Category conflict: your side has to act.",
        ),
        (
            "wrong-key",
            "400 Bad Request",
            [
                "POST /admin/campaigns … 502",
                "└─ insider push.bulk … failed authentication",
                "   └─ POST /api/v1/push/bulk … 400 authentication",
            ],
            "failed. Category authentication: your side has to act.",
        ),
    ],
)
def test_a_scenario_is_told_by_its_bare_status_its_trace_and_its_outcome(
    whole: Whole, scenario: str, bare: str, tree: list[str], outcome: str
) -> None:
    lines = scenes(whole.done.stdout)[scenario]
    parts = "\n".join(lines[1:]).split("\n\n")
    assert parts[0].startswith(f"without  {bare}. ")
    assert [without_bar_and_duration(line) for line in parts[1].splitlines()] == tree
    told = " ".join(" ".join(parts[2].split()).split("outcome ")[1].split(" note ")[0].split())
    assert told == outcome


def without_bar_and_duration(line: str) -> str:
    return re.sub(r"\s+[█◆]+\s+\+?[\d.]+ m?s\s?", " … ", line).rstrip()


@pytest.mark.parametrize(
    ("scenario", "meaning"),
    [
        ("quick-retry", "Insider is not available"),
        ("hidden-rate-limit", "Too many requests, though the status says 403: the key is fine."),
        ("duplicate-window", "Insider has this already"),
        ("lost-records", "Insider did not take every record"),
    ],
)
def test_the_meaning_is_that_of_the_trouble_even_if_it_was_healed(whole: Whole, scenario: str, meaning: str) -> None:
    assert meaning in " ".join(" ".join(scenes(whole.done.stdout)[scenario]).split())


def test_where_the_play_differs_from_life_it_says_so(whole: Whole) -> None:
    """A minute's wait is too long for a demonstration: Insider names a shorter one here."""
    assert "note     Here the reply also has Retry-After: 1." in whole.done.stdout


def test_scenarios_can_be_chosen() -> None:
    done = demo("--scenario", "wrong-key", "--scenario", "otp-typo")
    assert done.returncode == 0
    assert list(scenes(done.stdout)) == ["wrong-key", "otp-typo"]


def test_the_list_names_every_scenario(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == NAMES


# -------------------------------------------------------------------------------------------- on any terminal


def on_terminal(*arguments: str, **variables: str) -> str:
    """What the command writes to a terminal."""
    ours, theirs = pty.openpty()
    with subprocess.Popen(
        command(*arguments), stdin=theirs, stdout=theirs, stderr=theirs, env=environment(**variables)
    ) as process:
        os.close(theirs)
        written = b""
        with closing(os.fdopen(ours, "rb", buffering=0)) as terminal:
            try:
                while piece := terminal.read(65536):
                    written += piece
            except OSError:
                pass  # how Linux says that the other end is closed
        assert process.wait(60) == 0
    return written.decode().replace("\r\n", "\n")


def test_on_a_terminal_categories_have_colours_and_the_colours_are_explained() -> None:
    said = on_terminal("--scenario", "hidden-rate-limit", "--scenario", "otp-typo", COLUMNS="100")
    for coloured in (
        "\x1b[35m403 rate_limit\x1b[0m",
        "\x1b[32m200 success resend 1\x1b[0m",
        "\x1b[36m401 verification\x1b[0m",
        "\x1b[35mtoo fast\x1b[0m",
    ):
        assert coloured in said
    plain = ANSI.sub("", said).splitlines()
    assert max(len(line) for line in plain) == 100
    assert "   ├─ POST /v1/statistics/top-metrics " in "\n".join(plain)


@pytest.mark.parametrize(("arguments", "variables"), [(["--no-color"], {}), ([], {"NO_COLOR": "1"})])
def test_nobody_has_to_have_colours(arguments: list[str], variables: Mapping[str, str]) -> None:
    said = on_terminal("--scenario", "success", *arguments, **variables)
    assert "\x1b" not in said
    assert "└─ insider user.upsert" in said


def test_an_encoding_without_box_characters_gets_ascii() -> None:
    done = demo("--scenario", "quick-retry", PYTHONUTF8="0", PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (0, "")
    assert "`- insider user.upsert" in done.stdout
    assert done.stdout.isascii()


def test_ctrl_c_ends_it_without_a_stack_trace() -> None:
    with subprocess.Popen(
        command(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=30)
    assert (process.returncode, complaint) == (130, "")


# --------------------------------------------------------------------------------------------- what it plays


@pytest.fixture(scope="module")
def played() -> dict[str, Played]:
    with stage(Recorder()) as set_stage:
        return {each.scenario.name: each for each in set_stage.play(SCENARIOS)}


def test_each_scenario_ends_as_it_is_meant_to(played: dict[str, Played]) -> None:
    assert {name: (each.call.outcome, each.call.verdict.category) for name, each in played.items()} == {
        "success": (Outcome.SUCCEEDED, Category.SUCCESS),
        "quick-retry": (Outcome.SUCCEEDED, Category.SUCCESS),
        "hidden-rate-limit": (Outcome.SUCCEEDED, Category.SUCCESS),
        "otp-typo": (Outcome.FAILED, Category.VERIFICATION),
        "lost-records": (Outcome.PARTLY_FAILED, Category.PARTIAL_FAILURE),
        "duplicate-window": (Outcome.SUCCEEDED, Category.DUPLICATE),
        "permanent-500": (Outcome.FAILED, Category.CONFLICT),
        "wrong-key": (Outcome.FAILED, Category.AUTHENTICATION),
    }


def test_each_scenario_is_one_trace_below_the_page_that_made_the_call(played: dict[str, Played]) -> None:
    for each in played.values():
        roots = [span for span in each.spans if span.parent is None]
        assert [(span.kind, span.name) for span in roots] == [(SpanKind.SERVER, each.scenario.route)]
        assert {f"{span.get_span_context().trace_id:032x}" for span in each.spans} == {each.trace_id}  # type: ignore[union-attr]
    assert len({each.trace_id for each in played.values()}) == len(SCENARIOS)


def test_the_page_carries_the_summary_of_its_calls(played: dict[str, Played]) -> None:
    def summary(name: str) -> dict[str, object]:
        attributes = next(span.attributes for span in played[name].spans if span.kind is SpanKind.SERVER) or {}
        prefix = "insider.request."
        found = {key.removeprefix(prefix): value for key, value in attributes.items() if key.startswith(prefix)}
        return {key: value for key, value in found.items() if value}

    assert summary("quick-retry") == {"calls": 1, "retries": 1, "wait_ms": 300}
    assert summary("hidden-rate-limit") == {"calls": 1, "retries": 1, "rate_limited": 1, "wait_ms": 1300}
    assert summary("duplicate-window") == {"calls": 1, "retries": 1, "duplicates": 1, "wait_ms": 300}
    assert summary("lost-records") == {"calls": 1, "failed_calls": 1}


def test_a_scenario_may_end_in_an_exception() -> None:
    """A text message is not sent again after silence; the shop has an exception in hand, and the trace tells why."""
    silent = Scenario("silence", "Silence", "POST /orders", "sms.send", "Why?", script=(timeout(),), timeout=0.2)
    with stage(Recorder()) as set_stage:
        (each,) = set_stage.play([silent])
    assert (each.call.outcome, each.call.verdict.category) == (Outcome.FAILED, Category.TIMEOUT)
    text = " ".join(" ".join(scene(each, 1, 1, Paper())).split())
    assert "outcome failed, and not sent again: a repeat might do harm. Category timeout: Insider has to act." in text


def test_calls_that_are_not_traced_cannot_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "127.0.0.1")
    with (
        stage(Recorder()) as set_stage,
        pytest.raises(UsageError, match=r"OTEL_PYTHON_HTTPX_EXCLUDED_URLS .* unset it"),
    ):
        list(set_stage.play(SCENARIOS[:1]))


# --------------------------------------------------------------------------------------------- where it sends


@dataclass
class Collector:
    """Takes OTLP over HTTP.

    Attributes:
        url: Its address.
        refuses: Paths that it does not take, with the status of its answer.
        bodies: What it was sent, by path.
    """

    url: str
    refuses: Mapping[str, int]
    bodies: dict[str, list[bytes]] = field(default_factory=dict)

    def spans(self) -> list[Span]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies.get("/v1/traces", [])]
        return [
            span
            for request in requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]

    def services(self) -> set[str]:
        requests = [ExportTraceServiceRequest.FromString(body) for body in self.bodies.get("/v1/traces", [])]
        return {
            attribute.value.string_value
            for request in requests
            for resource in request.resource_spans
            for attribute in resource.resource.attributes
            if attribute.key == "service.name"
        }

    def metrics(self) -> set[str]:
        requests = [ExportMetricsServiceRequest.FromString(body) for body in self.bodies.get("/v1/metrics", [])]
        return {
            metric.name
            for request in requests
            for resource in request.resource_metrics
            for scope in resource.scope_metrics
            for metric in scope.metrics
        }


@contextmanager
def collector(**refuses: int) -> Iterator[Collector]:
    """A collector on a free port; ``metrics=404`` is one that takes traces only, as Jaeger does."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["content-length"]))
            status = taken.refuses.get(self.path, 200)
            if status == 200:
                taken.bodies.setdefault(self.path, []).append(body)
            self.send_response(status)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        taken = Collector(
            f"http://127.0.0.1:{server.server_port}", {f"/v1/{name}": status for name, status in refuses.items()}
        )
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield taken
        finally:
            server.shutdown()
            thread.join()


def test_the_traces_it_shows_are_the_traces_it_sends() -> None:
    with collector() as there:
        done = demo("--scenario", "quick-retry", "--scenario", "lost-records", OTEL_EXPORTER_OTLP_ENDPOINT=there.url)
        assert (done.returncode, done.stderr) == (0, "")
        traces: dict[str, list[Span]] = {}
        for span in there.spans():
            traces.setdefault(span.trace_id.hex(), []).append(span)
        assert set(traces) == set(re.findall(r"  \S+ +([0-9a-f]{32})\n", done.stdout))
        healed, lost = traces.values()
        assert tree(healed) == [
            "POST /signup",
            "  insider user.upsert",
            "    POST /api/user/v1/upsert",
            "    insider wait",
            "    POST /api/user/v1/upsert",
        ]
        assert tree(lost) == ["POST /import", "  insider user.upsert", "    POST /api/user/v1/upsert"]
        assert there.services() == {"insider-otel-demo"}
        assert there.metrics() >= {"http.client.request.duration", "insider.client.retries", "insider.client.records"}
        sent = b"".join(body for bodies in there.bodies.values() for body in bodies)
        assert [secret for secret in SECRETS if secret.encode() in sent] == []


def tree(spans: list[Span]) -> list[str]:
    """The names of spans, each below its parent, in the order of their start."""
    lines: list[str] = []

    def add(parent: bytes, depth: int) -> None:
        for span in sorted(spans, key=lambda span: span.start_time_unix_nano):
            if span.parent_span_id == parent:
                lines.append("  " * depth + span.name)
                add(span.span_id, depth + 1)

    add(b"", 0)
    return lines


def test_it_says_where_to_look() -> None:
    with collector() as there:
        done = demo("--scenario", "otp-typo", OTEL_EXPORTER_OTLP_ENDPOINT=there.url + "/", OTEL_SERVICE_NAME="my-shop")
        assert done.returncode == 0
        assert there.services() == {"my-shop"}
        assert f"Sending 1 trace to {there.url}/v1/traces\n" in done.stdout
        assert "Jaeger   Search: service my-shop, tags insider.operation=verify.check\n" in done.stdout
        assert 'Tempo    { resource.service.name = "my-shop" && span.insider.operation != nil }\n' in done.stdout
        assert f"The metrics are at {there.url}/v1/metrics.\n" in done.stdout


def test_a_place_for_traces_alone_is_good_enough() -> None:
    """Jaeger and Tempo take no metrics, and everybody sets the one variable for them."""
    with collector(metrics=404) as there:
        done = demo("--scenario", "success", OTEL_EXPORTER_OTLP_ENDPOINT=there.url)
        assert (done.returncode, done.stderr) == (0, "")
        assert len(there.spans()) == 3
        assert f"No metrics were taken at {there.url}/v1/metrics" in done.stdout


def test_metrics_that_were_to_go_to_a_place_of_their_own_must_arrive() -> None:
    with collector(metrics=404) as there:
        done = demo(
            "--scenario",
            "success",
            OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{there.url}/v1/traces",
            OTEL_EXPORTER_OTLP_METRICS_ENDPOINT=f"{there.url}/v1/metrics",
        )
        assert done.returncode == 1
        assert f"insider-otel: the metrics did not reach {there.url}/v1/metrics: " in done.stderr


def test_without_a_place_for_metrics_none_are_sent() -> None:
    with collector() as there:
        done = demo("--scenario", "success", OTEL_EXPORTER_OTLP_TRACES_ENDPOINT=f"{there.url}/v1/traces")
        assert (done.returncode, done.stderr) == (0, "")
        assert list(there.bodies) == ["/v1/traces"]


def test_an_endpoint_where_nothing_listens_is_one_line_and_exit_1() -> None:
    """All is shown before, and neither a stack trace nor a password."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    done = demo(
        "--scenario",
        "success",
        OTEL_EXPORTER_OTLP_ENDPOINT=f"http://me:my-password@127.0.0.1:{port}",
        OTEL_EXPORTER_OTLP_TIMEOUT="1",
    )
    assert done.returncode == 1
    assert list(scenes(done.stdout)) == ["success"]
    assert done.stderr == (
        f"insider-otel: the traces did not reach http://127.0.0.1:{port}/v1/traces: "
        "nothing answers there: Connection refused (OTEL_EXPORTER_OTLP_ENDPOINT)\n"
    )
    assert "my-password" not in done.stdout


def test_an_endpoint_that_does_not_take_traces_is_one_line_and_exit_1() -> None:
    with collector(traces=400) as there:
        done = demo("--scenario", "success", OTEL_EXPORTER_OTLP_ENDPOINT=there.url)
        assert done.returncode == 1
        assert done.stderr.count("\n") == 1
        assert "It has to speak OTLP over HTTP, usually on port 4318, not 4317" in done.stderr


# ------------------------------------------------------------------------------------------ what it cannot do


@pytest.mark.parametrize("endpoint", ["localhost:4318", "collector", "grpc://localhost:4317", "http://", "http://[::"])
@pytest.mark.parametrize("variable", ["OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"])
def test_an_endpoint_that_is_no_address_is_refused_before_anything_is_played(
    variable: str, endpoint: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, endpoint)
    assert main(["demo"]) == 2
    said = capsys.readouterr()
    assert said.err == (
        f"insider-otel: {variable} is not an address to send to; write scheme, host and port: http://localhost:4318\n"
    )
    assert said.out == ""


def test_a_scenario_that_does_not_exist_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["demo", "--scenario", "quick-retri"]) == 2
    assert "did you mean 'quick-retry'? `insider-otel demo --list` lists them" in capsys.readouterr().err


@pytest.mark.parametrize("module", ["opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "uvicorn"])
def test_without_its_extras_it_says_what_to_install(
    module: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    assert main(["demo"]) == 2
    assert capsys.readouterr().err == f"insider-otel: the demo needs {module}: pip install 'insider-otel[cli]'\n"


def test_an_sdk_that_is_switched_off_is_noticed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SDK_DISABLED", "true")
    assert main(["demo"]) == 2
    assert "OTEL_SDK_DISABLED is true" in capsys.readouterr().err
