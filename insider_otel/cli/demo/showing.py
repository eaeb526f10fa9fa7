"""What was played, as lines of text."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

from insider_otel.api.responses import table
from insider_otel.api.verdict import Category
from insider_otel.cli.demo.running import Played
from insider_otel.cli.durations import seconds_text
from insider_otel.cli.explain import FAULTS
from insider_otel.cli.output import painted
from insider_otel.cli.waterfall import LEGEND, colour_of, waterfall
from insider_otel.http.record import Call
from insider_otel.policy.steps import Outcome, Stop
from insider_otel.telemetry import attributes as names

_BOLD, _FAINT = "1", "2"
_LABEL_WIDTH = len("without  ")

_OUTCOMES = {Outcome.PARTLY_FAILED: "partly failed", Outcome.HELD_BACK: "held back"}
_STOPS = {
    Stop.ATTEMPTS: "no attempt is left",
    Stop.DEADLINE: "the deadline is too near",
    Stop.BUDGET: "the retry budget is empty",
    Stop.NOT_REPLAYABLE: "its body cannot be sent again",
    Stop.DUPLICATE_WINDOW: "the duplicate window is over",
    Stop.UNSAFE: "a repeat might do harm",
    Stop.EXPIRED: "the outbox has kept it for too long",
}


@dataclass(frozen=True, slots=True)
class Paper:
    """What is written on.

    Attributes:
        width: Columns.
        colour: Whether it has colours.
        ascii_only: Whether it has nothing but ASCII.
    """

    width: int = 80
    colour: bool = False
    ascii_only: bool = False

    def paint(self, text: str, code: str) -> str:
        """A text in a colour, where there are colours.

        Args:
            text: The text.
            code: The colour's ANSI code.
        """
        return painted(text, code) if self.colour else text

    def wrap(self, text: str) -> list[str]:
        """A text in lines that fit.

        Args:
            text: The text.
        """
        return textwrap.wrap(text, self.width, break_on_hyphens=False)


def opening(count: int, url: str, paper: Paper) -> list[str]:
    """What stands above all scenarios.

    Args:
        count: How many there are.
        url: Where the fake is served.
        paper: What is written on.
    """
    ways = "one way" if count == 1 else f"{count} ways"
    lines = [
        paper.paint(f"insider-otel demo: {ways} a call to Insider can go", _BOLD),
        *paper.wrap(
            f"A fake Insider listens on {url}; what you see was really sent to it. "
            '"without" is all that a client without insider-otel would have learned.'
        ),
    ]
    if paper.colour:
        lines.append("   ".join(painted(words, code) for words, code in LEGEND))
    return lines


def scene(played: Played, number: int, count: int, paper: Paper) -> list[str]:
    """One scenario: its title, the bare status, the trace, what it means and how it ended.

    Args:
        played: The scenario, played.
        number: Its number among those shown.
        count: How many are shown.
        paper: What is written on.
    """
    scenario, verdict = played.scenario, played.call.verdict
    # A deferred call has no colour of the legend: nobody has to act, and Insider does not have it yet.
    colour = None if played.call.outcome is Outcome.DEFERRED else colour_of(verdict.category)
    return [
        "",
        _title(f"{number}/{count}", scenario.title, scenario.name, paper),
        *_labelled("without", f"{played.bare}. {scenario.impression}", paper),
        "",
        *waterfall(played.spans, width=paper.width, colour=paper.colour, ascii_only=paper.ascii_only),
        "",
        *_labelled("meaning", meaning(played), paper),
        *_labelled("outcome", _outcome(played.call), paper, colour),
        *(_labelled("note", scenario.note, paper, _FAINT) if scenario.note else ()),
    ]


def meaning(played: Played) -> str:
    """What to know of a call: if all is well in the end, of the trouble that it had before.

    Args:
        played: The scenario that made it.
    """
    verdict = played.call.verdict
    if played.call.attempts < 2 or verdict.category not in {Category.SUCCESS, Category.ACCEPTED}:
        return verdict.advice
    rule = (played.attempts[0].attributes or {})[names.STATUS_RULE]
    known = table()
    rows = (row.meaning for row in known.by_id.values())
    meanings = chain(rows, known.statuses.values(), known.with_retry_after.values(), known.exceptions.values())
    return next(meaning.advice for meaning in meanings if meaning.rule == rule)


def outcome_words(call: Call) -> str:
    """How a call ended, and what that took.

    Args:
        call: The call.
    """
    verdict = call.verdict
    words = str(_OUTCOMES.get(call.outcome, call.outcome))
    waited = seconds_text(call.waited)
    if call.attempts > 1:
        words += f" after {call.attempts} attempts and {waited} of waiting"
    elif call.waited:
        words += f" after {waited} of waiting for its turn"
    if verdict.failed:
        words += f": {verdict.failed} of {verdict.failed + (verdict.accepted or 0)} records lost"
    if call.stopped:
        words += f", and not sent again: {_STOPS[call.stopped]}"
    return words


def _outcome(call: Call) -> str:
    words, verdict = outcome_words(call), call.verdict
    if call.outcome is Outcome.SUCCEEDED:
        return f"{words}. Category {verdict.category}."
    return f"{words}. Category {verdict.category}: {FAULTS[verdict.fault]}."


def _title(number: str, title: str, name: str, paper: Paper) -> str:
    dash = "-" if paper.ascii_only else "─"
    left, right = f"{dash * 2} {number} ", f" {name} {dash * 2}"
    line = dash * max(paper.width - len(left) - len(title) - len(right) - 1, 1)
    return f"{paper.paint(left, _FAINT)}{paper.paint(title, _BOLD)} {paper.paint(line + right, _FAINT)}"


def _labelled(label: str, text: str, paper: Paper, code: str | None = None) -> list[str]:
    lines = textwrap.wrap(text, paper.width - _LABEL_WIDTH, break_on_hyphens=False)
    if code:
        lines = [paper.paint(line, code) for line in lines]
    return [f"{label if position == 0 else '':<{_LABEL_WIDTH}}{line}" for position, line in enumerate(lines)]


def sending(count: int, endpoint: str, paper: Paper) -> list[str]:
    """What stands above the last part, while telemetry is on its way.

    Args:
        count: How many traces there are.
        endpoint: Where they go.
        paper: What is written on.
    """
    return ["", paper.paint(f"Sending {count} {'trace' if count == 1 else 'traces'} to {endpoint}", _BOLD)]


def whereabouts(played: Sequence[Played], service: str, paper: Paper) -> list[str]:
    """Where to look for the traces that were sent.

    Args:
        played: What was played.
        service: The resource's service name.
        paper: What is written on.
    """
    width = max(len(each.scenario.name) for each in played)
    return [
        f"Jaeger   Search: service {service}, tags {names.OPERATION}={played[-1].call.operation.name}",
        f'Tempo    {{ resource.service.name = "{service}" && span.{names.OPERATION} != nil }}',
        "By id",
        *(f"  {paper.paint(f'{each.scenario.name:<{width}}', _FAINT)}  {each.trace_id}" for each in played),
    ]
