"""The text waterfall: a tree, bars on one scale, and lines that fit."""

from __future__ import annotations

import io
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Status, StatusCode

from insider_otel.cli.durations import duration_text
from insider_otel.cli.segments import Moment, Segment
from insider_otel.cli.waterfall import can_draw, waterfall

MS = 10**6
ANSI = re.compile(r"\x1b\[[0-9;]*m")

HEALED = [
    Segment(
        "insider user.upsert",
        0,
        1250 * MS,
        1,
        attributes={"insider.outcome": "succeeded", "insider.status.category": "success"},
        moments=(Moment("insider.retry.scheduled", 52 * MS, {"insider.status.category": "unavailable"}),),
    ),
    Segment(
        "POST /api/user/v1/upsert",
        0,
        50 * MS,
        2,
        1,
        {"http.response.status_code": 503, "insider.status.category": "unavailable"},
        failed=True,
    ),
    Segment("insider wait", 53 * MS, 700 * MS, 3, 1, {"insider.wait.reason": "retry", "insider.wait.source": "jitter"}),
    Segment(
        "POST /api/user/v1/upsert",
        700 * MS,
        1250 * MS,
        4,
        1,
        {"http.response.status_code": 200, "insider.status.category": "success", "http.request.resend_count": 1},
    ),
]


def test_a_healed_call_reads_as_a_story() -> None:
    """Children and events stand below their parent in the order of time, each with its bar, length and meaning."""
    assert waterfall(HEALED) == [
        "insider user.upsert         ████████████████████████ 1.25 s succeeded",
        "├─ POST /api/user/v1/upsert █                         50 ms 503 unavailable",
        "├─ ◆ retry.scheduled         ◆                       +52 ms unavailable",
        "├─ insider wait              ████████████            647 ms retry (jitter)",
        "└─ POST /api/user/v1/upsert              ███████████ 550 ms 200 success resend 1",
    ]


def test_without_box_characters_the_same_tree_is_ascii() -> None:
    lines = waterfall(HEALED, ascii_only=True)
    assert [line.split("  ")[0] for line in lines] == [
        "insider user.upsert",
        "|- POST /api/user/v1/upsert =",
        "|- * retry.scheduled",
        "|- insider wait",
        "`- POST /api/user/v1/upsert",
    ]
    assert all(line.isascii() for line in lines)


def test_grandchildren_are_indented_below_their_own_parent() -> None:
    server = Segment("POST /signup", 0, 1300 * MS, 9, attributes={"http.response.status_code": 200})
    call = Segment("insider user.upsert", 0, 1250 * MS, 1, 9, {"insider.outcome": "succeeded"})
    attempt = Segment("POST /api/user/v1/upsert", 0, 1250 * MS, 2, 1)
    render = Segment("render", 1260 * MS, 1300 * MS, 3, 9)
    names = [line[:30].rstrip() for line in waterfall([render, attempt, call, server])]
    assert names == [
        "POST /signup",
        "├─ insider user.upsert",
        "│  └─ POST /api/user/v1/upsert",
        "└─ render",
    ]


def test_colours_change_nothing_but_colour() -> None:
    """Without the escape sequences the coloured lines are the plain ones."""
    coloured = waterfall(HEALED, colour=True)
    assert [ANSI.sub("", line) for line in coloured] == waterfall(HEALED)
    assert "\x1b[32msucceeded\x1b[0m" in coloured[0]
    assert "\x1b[31m503 unavailable\x1b[0m" in coloured[1]


@pytest.mark.parametrize(
    ("category", "code"),
    [("success", "32"), ("rate_limit", "35"), ("verification", "36"), ("server_error", "31"), ("validation", "33")],
)
def test_the_colour_tells_whose_turn_it_is(category: str, code: str) -> None:
    segment = Segment("POST /", 0, MS, 1, attributes={"insider.status.category": category})
    assert f"\x1b[{code}m{category}\x1b[0m" in waterfall([segment], colour=True)[0]


@pytest.mark.parametrize(
    ("attributes", "failed", "label"),
    [
        ({"insider.outcome": "succeeded", "insider.status.category": "duplicate"}, False, "succeeded"),
        ({"insider.outcome": "failed", "insider.status.category": "conflict"}, True, "failed conflict"),
        (
            {
                "insider.outcome": "partly_failed",
                "insider.status.category": "partial_failure",
                "insider.records.failed": 1,
            },
            True,
            "partly_failed 1 record lost",
        ),
        (
            {
                "insider.outcome": "failed",
                "insider.status.category": "timeout",
                "insider.retry.stopped": "unsafe",
            },
            False,
            "failed stopped: unsafe",
        ),
        ({"error.type": "timeout"}, True, "timeout"),
        ({}, True, "error"),
        ({}, False, ""),
        ({"insider.wait.reason": "rate_limit"}, False, "rate_limit"),
    ],
)
def test_the_label_says_how_it_ended(attributes: dict[str, str | int], failed: bool, label: str) -> None:
    line = waterfall([Segment("x", 0, MS, 1, attributes=attributes, failed=failed)])[0]
    assert line.endswith(f"1.0 ms {label}".rstrip())


def test_spans_of_the_sdk_are_drawn_as_they_are() -> None:
    exporter = InMemorySpanExporter()
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    tracer = provider.get_tracer("test")
    with tracer.start_as_current_span("insider mail.send") as call:
        with tracer.start_as_current_span("POST /mail/v1/send") as attempt:
            attempt.set_attribute("http.response.status_code", 500)
            attempt.set_status(Status(StatusCode.ERROR))
        call.add_event("insider.retry.stopped")
    lines = waterfall(exporter.get_finished_spans())
    assert [line.split("  ")[0] for line in lines] == [
        "insider mail.send",
        "├─ POST /mail/v1/send",
        "└─ ◆ retry.stopped",
    ]
    assert lines[1].endswith(" 500")


def test_a_span_that_has_not_ended_is_refused_by_name() -> None:
    span = TracerProvider().get_tracer("test").start_span("still open")
    with pytest.raises(ValueError, match="'still open' has not ended"):
        waterfall([span])  # type: ignore[list-item]
    span.end()


def test_no_spans_make_no_lines() -> None:
    assert waterfall([]) == []


def test_a_span_whose_parent_is_elsewhere_is_a_root() -> None:
    """A trace seen by one service only: the caller's span is not there."""
    lines = waterfall([Segment("late", 5, 9, 2, 77), Segment("early", 0, 9, 1, 77)])
    assert [line.split()[0] for line in lines] == ["early", "late"]


def test_long_names_are_cut_with_a_mark() -> None:
    line = waterfall([Segment("insider " + "x" * 200, 0, MS, 1)])[0]
    assert line.startswith("insider xxx")
    assert "x…" in line
    assert len(line) <= 80


@pytest.mark.parametrize(
    ("nanoseconds", "text"),
    [
        (0, "0.0 ms"),
        (1_240_000, "1.2 ms"),
        (9_960_000, "10 ms"),
        (999 * MS, "999 ms"),
        (999_600_000, "1.00 s"),
        (1250 * MS, "1.25 s"),
        (300_000 * MS, "5.0 min"),
        (7_200_000 * MS, "2.0 h"),
    ],
)
def test_durations_have_the_unit_that_suits_them(nanoseconds: int, text: str) -> None:
    assert duration_text(nanoseconds) == text


@pytest.mark.parametrize(
    ("encoding", "drawn"), [("utf-8", True), ("ascii", False), ("latin-1", False), ("cp437", False)]
)
def test_an_encoding_without_box_characters_is_noticed(encoding: str, drawn: bool) -> None:
    assert can_draw(io.TextIOWrapper(io.BytesIO(), encoding=encoding)) is drawn


def test_a_stream_without_an_encoding_gets_ascii() -> None:
    assert not can_draw(io.StringIO())


times = st.integers(0, 10**15)
moments = st.builds(Moment, st.text("abc.", max_size=60), times)
segments = st.lists(
    st.builds(
        Segment,
        st.text("abc /{}", max_size=60),
        times,
        times,
        st.integers(1, 10),
        st.none() | st.integers(1, 10),
        st.dictionaries(
            st.sampled_from(["insider.outcome", "insider.status.category", "http.response.status_code"]),
            st.text("abc_", min_size=1, max_size=60) | st.integers(100, 599),
        ),
        st.lists(moments, max_size=3).map(tuple),
        st.booleans(),
    ),
    max_size=8,
    unique_by=lambda segment: segment.span_id,
)


@given(segments, st.integers(0, 200), st.booleans())
def test_every_span_and_event_gets_a_line_that_fits_whatever_they_are(
    spans: list[Segment], width: int, ascii_only: bool
) -> None:
    lines = waterfall(spans, width=width, ascii_only=ascii_only)
    assert all(len(line) <= max(width, 60) for line in lines)
    assert len(lines) == len(spans) + sum(len(span.moments) for span in spans)
