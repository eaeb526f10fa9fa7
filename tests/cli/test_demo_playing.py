"""What `insider-otel demo` plays: each scenario is one trace with the end it is meant to have; and what it refuses."""

from __future__ import annotations

import re
import sys
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from insider_otel import Category, Outcome, classify
from insider_otel.api.operations import operations
from insider_otel.cli import main
from insider_otel.cli.demo.running import Played, Recorder, stage
from insider_otel.cli.demo.scenarios import SCENARIOS, Scenario
from insider_otel.cli.demo.showing import Paper, outcome_words, scene
from insider_otel.cli.output import UsageError
from insider_otel.http.record import Call
from insider_otel.policy.steps import Stop
from insider_otel.testing import reply, timeout
from insider_otel.testing.faults import Step


@pytest.fixture(scope="module")
def played() -> dict[str, Played]:
    """Played again, if the machine stood still so long that the limit of one a second had room again."""
    played = play_all()
    for _ in range(2):
        if played["wait-for-slot"].bare != "429 Too Many Requests":
            played = play_all()
    return played


def play_all() -> dict[str, Played]:
    with stage(Recorder()) as set_stage:
        return {each.scenario.name: each for each in set_stage.play(SCENARIOS)}


def test_each_scenario_ends_as_it_is_meant_to(played: dict[str, Played]) -> None:
    assert {name: (each.call.outcome, each.call.verdict.category) for name, each in played.items()} == {
        "success": (Outcome.SUCCEEDED, Category.SUCCESS),
        "quick-retry": (Outcome.SUCCEEDED, Category.SUCCESS),
        "handed-over": (Outcome.DEFERRED, Category.ACCEPTED),
        "hidden-rate-limit": (Outcome.SUCCEEDED, Category.SUCCESS),
        "wait-for-slot": (Outcome.SUCCEEDED, Category.SUCCESS),
        "otp-typo": (Outcome.FAILED, Category.VERIFICATION),
        "lost-records": (Outcome.PARTLY_FAILED, Category.PARTIAL_FAILURE),
        "duplicate-window": (Outcome.SUCCEEDED, Category.DUPLICATE),
        "held-back": (Outcome.HELD_BACK, Category.DUPLICATE),
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
    assert summary("held-back") == {"calls": 1, "duplicates": 1}
    assert summary("lost-records") == {"calls": 1, "failed_calls": 1}


def test_a_wait_for_a_slot_spares_the_refusal(played: dict[str, Played]) -> None:
    """The client without insider-otel was refused; ours, a moment later, waited and was not."""
    each = played["wait-for-slot"]
    assert each.bare == "429 Too Many Requests"
    assert [(span.attributes or {})["http.response.status_code"] for span in each.attempts] == [201]
    assert 0 < each.call.waited <= 1.1


def test_what_is_held_back_is_not_sent(played: dict[str, Played]) -> None:
    assert (played["held-back"].attempts, played["held-back"].call.attempts) == ([], 0)


def test_a_scenario_knows_nothing_of_the_one_before() -> None:
    """Else the mail of one would be held back in the next."""
    mail = Scenario("mail", "A mail", "POST /orders", "mail.send", "Fine.")
    with stage(Recorder()) as set_stage:
        assert [each.call.outcome for each in set_stage.play([mail, mail])] == [Outcome.SUCCEEDED] * 2


def test_a_scenario_may_end_in_an_exception() -> None:
    """A text message is not sent again after silence; the shop has an exception in hand, and the trace tells why."""
    silent = Scenario("silence", "Silence", "POST /orders", "sms.send", "Why?", script=(timeout(),), timeout=0.2)
    with stage(Recorder()) as set_stage:
        (each,) = set_stage.play([silent])
    assert (each.call.outcome, each.call.verdict.category) == (Outcome.FAILED, Category.TIMEOUT)
    text = " ".join(" ".join(scene(each, 1, 1, Paper())).split())
    assert "outcome failed, and not sent again: a repeat might do harm. Category timeout: Insider has to act." in text


@pytest.mark.parametrize("stop", Stop)
def test_every_reason_to_stop_has_words(stop: Stop) -> None:
    operation = next(iter(operations()))
    call = Call(operation, classify(503), Outcome.FAILED, attempts=1, waited=0.0, stopped=stop)
    assert re.fullmatch(r"failed, and not sent again: [a-z ]+", outcome_words(call))


@pytest.mark.parametrize(
    ("step", "meaning"),
    [
        (reply(403, headers={"Retry-After": "1"}), "Refused for a while: "),
        (reply(502), "A gateway got no proper answer from Insider"),
    ],
    ids=["retry-after", "status"],
)
def test_a_trouble_that_is_known_by_its_status_alone_has_its_meaning_too(step: Step, meaning: str) -> None:
    healed = Scenario("healed", "Healed", "GET /reports/push", "web_push.top_metrics", "Why?", script=(step,))
    with stage(Recorder()) as set_stage:
        (each,) = set_stage.play([healed])
    assert each.call.outcome is Outcome.SUCCEEDED
    assert meaning in " ".join(" ".join(scene(each, 1, 1, Paper())).split())


@pytest.mark.parametrize(
    "variable",
    [
        "OTEL_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_EVENT_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_SPAN_ATTRIBUTE_COUNT_LIMIT",
        "OTEL_SPAN_ATTRIBUTE_VALUE_LENGTH_LIMIT",
        "OTEL_SPAN_EVENT_COUNT_LIMIT",
    ],
)
def test_a_trace_is_whole_whatever_limits_the_environment_sets(
    played: dict[str, Played], variable: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def contents(each: Played) -> list[Any]:
        return sorted(
            (
                span.name,
                sorted(span.attributes or {}),
                [(event.name, sorted(event.attributes or {})) for event in span.events],
                # What the meaning of an answer is looked up by.
                (span.attributes or {}).get("insider.status.rule"),
            )
            for span in each.spans
        )

    monkeypatch.setenv(variable, "0")
    with stage(Recorder()) as set_stage:
        (each,) = set_stage.play([played["quick-retry"].scenario])
    assert contents(each) == contents(played["quick-retry"])


def test_calls_that_are_not_traced_cannot_be_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OTEL_PYTHON_HTTPX_EXCLUDED_URLS", "127.0.0.1")
    with (
        stage(Recorder()) as set_stage,
        pytest.raises(UsageError, match=r"OTEL_PYTHON_HTTPX_EXCLUDED_URLS .* unset it"),
    ):
        list(set_stage.play(SCENARIOS[:1]))


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


def test_what_the_outbox_kept_arrives_in_the_trace_of_the_call(played: dict[str, Played]) -> None:
    handed_over = played["handed-over"]
    assert handed_over.call.outcome is Outcome.DEFERRED
    assert [(span.attributes or {})["http.response.status_code"] for span in handed_over.attempts] == [
        503,
        503,
        503,
        200,
    ]
    (delivery,) = [span for span in handed_over.spans if span.name == "insider deliver user.upsert"]
    (call,) = [span for span in handed_over.spans if span.name == "insider user.upsert"]
    assert delivery.parent is not None
    assert call.context is not None
    assert delivery.parent.span_id == call.context.span_id
