"""What was played, as one page for a browser that asks the network for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import cast

from jinja2 import Environment, PackageLoader, StrictUndefined
from opentelemetry.sdk.trace import ReadableSpan

from insider_otel._version import __version__
from insider_otel.cli.demo.running import Played
from insider_otel.cli.demo.showing import meaning, outcome_words
from insider_otel.cli.durations import duration_text
from insider_otel.cli.explain import FAULTS
from insider_otel.cli.outline import Line, Turn, outline, turn_after
from insider_otel.cli.segments import Moment, Segment
from insider_otel.cli.timescale import Scale
from insider_otel.cli.waterfall import time_text
from insider_otel.policy.steps import Outcome
from insider_otel.telemetry import attributes as names

_NO_ANSWER = "no answer"
_MOST_TICKS = 5
_KEPT = ("kept", "kept for later")
"""What a deferred call has in place of a turn: nobody has to act, and Insider does not have it yet."""


@dataclass(frozen=True, slots=True)
class _Fact:
    name: str
    value: str


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of a waterfall: a span or an event.

    Attributes:
        shape: ``bar``, ``wait`` or ``event``.
        kind: The span's kind; ``event`` for an event.
        turn: Name of the turn whose colour it has; empty for none.
        left: Where it begins, in per cent of the scale; ``width`` is how much of it it takes.
    """

    name: str
    depth: int
    shape: str
    kind: str
    failed: bool
    turn: str
    time: str
    label: str
    left: float
    width: float
    start: str
    facts: Sequence[_Fact]


@dataclass(frozen=True, slots=True)
class _Answer:
    """What Insider answered to one attempt, if it did, and what that meant."""

    answered: bool
    status: str
    words: str
    turn: str
    facts: Sequence[_Fact]


@dataclass(frozen=True, slots=True)
class _Scene:
    """A scenario as the page shows it.

    Attributes:
        turn: Name of the turn whose colour its outcome has, or of what it has in its place.
        act: Who has to act; empty where all is well.
        ticks: Per cent of the scale and the time there.
    """

    played: Played
    turn: str
    outcome: str
    meaning: str
    act: str
    chips: Sequence[_Fact]
    ticks: Sequence[tuple[float, str]]
    rows: Sequence[_Row]
    answers: Sequence[_Answer]


def page(played: Iterable[Played], service: str) -> str:
    """The page, in HTML.

    Args:
        played: What was played.
        service: The resource's service name.
    """
    environment = Environment(
        loader=PackageLoader("insider_otel.cli.demo", "page"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html").render(
        scenes=[_scene(each) for each in played],
        turns=[*((turn.name.lower(), turn.value) for turn in Turn), _KEPT],
        service=service,
        version=__version__,
    )


def _scene(played: Played) -> _Scene:
    segments = [Segment.of(span) for span in played.spans]
    scale = Scale.of(segments)
    verdict = played.call.verdict
    return _Scene(
        played=played,
        turn=_KEPT[0] if played.call.outcome is Outcome.DEFERRED else _turn_name(turn_after(verdict.category)),
        outcome=outcome_words(played.call),
        meaning=meaning(played),
        act="" if played.call.outcome is Outcome.SUCCEEDED else FAULTS[verdict.fault],
        chips=[
            _Fact("outcome", played.call.outcome),
            _Fact("category", verdict.category),
            _Fact("fault", verdict.fault),
            _Fact("retry", verdict.retry),
        ],
        ticks=[(scale.place(scale.start_ns + tick, 100), _tick_text(tick)) for tick in scale.ticks(_MOST_TICKS)],
        rows=[_row(line, scale) for line in outline(segments)],
        answers=[_answer(attempt, played.words_to(attempt)) for attempt in played.attempts],
    )


def _row(line: Line, scale: Scale) -> _Row:
    item = line.item
    left, right = (scale.place(time, 100) for time in (line.start_ns, line.end_ns))
    facts = [_Fact(name, _text(value)) for name, value in sorted(item.attributes.items())]
    if isinstance(item, Moment):
        shape, kind, failed = "event", "event", False
    else:
        shape, kind, failed = "wait" if line.is_wait else "bar", item.kind, item.failed
    return _Row(
        name=line.name,
        depth=len(line.lasts),
        shape=shape,
        kind=kind,
        failed=failed,
        turn=_turn_name(line.turn),
        time=time_text(line),
        label=line.label,
        left=left,
        width=right - left,
        start=duration_text(line.start_ns - scale.start_ns),
        facts=facts,
    )


def _answer(attempt: ReadableSpan, words: str) -> _Answer:
    found = attempt.attributes or {}
    category = str(found[names.STATUS_CATEGORY])
    status = found.get(names.HTTP_RESPONSE_STATUS_CODE)
    return _Answer(
        answered=status is not None,
        status=_NO_ANSWER if status is None else str(status),
        words=words,
        turn=_turn_name(turn_after(category)),
        facts=[
            _Fact("category", category),
            _Fact("fault", str(found[names.STATUS_FAULT])),
            _Fact("retry", str(found[names.STATUS_RETRY])),
            _Fact("rule", str(found[names.STATUS_RULE])),
        ],
    )


def _tick_text(nanoseconds: int) -> str:
    """A time on the scale: it is round, and one below a millisecond is not to be rounded to another."""
    if not nanoseconds:
        return "0"
    return f"{nanoseconds / 1e6:g} ms" if nanoseconds < 1e6 else duration_text(nanoseconds)


def _turn_name(turn: Turn | None) -> str:
    return turn.name.lower() if turn else ""


def _text(value: object) -> str:
    return ", ".join(map(str, cast("tuple[object, ...]", value))) if isinstance(value, tuple) else str(value)
