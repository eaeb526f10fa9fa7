"""The page of documentation: the registry as Markdown."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from pathlib import Path

from semconv.registry import Attribute, Registry, Signal, Use

PAGE = Path(__file__).parents[1] / "docs" / "attributes.md"

_HEAD = """\
<!-- Made from semconv/model by `make docs`: change it there. -->

# What insider-otel exports

Every attribute, span, event and metric. On spans and events numbers are whole and times are milliseconds, because
TraceQL finds nothing for `float_attribute > 0`. None holds a key, a body, an e-mail address or a phone number. The same
as a registry for [weaver](https://github.com/open-telemetry/weaver) is in [`semconv/model`](../semconv/model).
"""
_SPANS = """\
    SERVER    POST /signup                  request: the framework's span, with a summary
    └ INTERNAL  insider user.upsert         call
      ├ CLIENT    POST /api/user/v1/upsert  attempt
      ├ INTERNAL  insider wait              wait
      ├ CLIENT    POST /api/user/v1/upsert  attempt
      └ INTERNAL  insider deliver user.upsert   delivery: later, if the call was deferred
        └ CLIENT    POST /api/user/v1/upsert  attempt

    INTERNAL  insider outbox                outbox: of a worker; deliveries have links to it
"""
_EVENTS = """\
Events are on the span of the call or delivery, or log records in its context, or both, as the setting `events`
(`INSIDER_OTEL_EVENTS`) says. Log records are written of traces that are not sampled, too. With `log` the spans have
none: a query by `event:name` finds nothing then, and the logs are to be asked.
"""
_TITLES = {"span": "Spans", "event": "Events", "metric": "Metrics"}
_HEADINGS = {"span": "Span: {}", "event": "Event: `{}`", "metric": "Metric: `{}`"}


def page(registry: Registry) -> str:
    """The page.

    Args:
        registry: What it is made of.
    """
    parts = [_HEAD, "## Attributes\n"]
    for group in dict.fromkeys(attribute.group for attribute in registry.attributes.values()):
        parts.append(f"### {group}\n")
        attributes = [attribute for attribute in registry.attributes.values() if attribute.group == group]
        parts.append(_attributes(attributes, registry.signals))
        parts += [_values(attribute) for attribute in attributes if attribute.members]
    for kind, text in (("span", _SPANS), ("event", _EVENTS), ("metric", "")):
        parts += [f"## {_TITLES[kind]}\n", text]
        parts += [_signal(signal) for signal in registry.of_kind(kind).values()]
    return "\n".join(part for part in parts if part)


def _attributes(attributes: Iterable[Attribute], signals: Iterable[Signal]) -> str:
    rows = [
        (
            f"`{_shown(attribute)}`",
            f"`{attribute.type}`",
            _where(attribute, signals),
            f"[values](#values-of-{_anchor(attribute.name)})" if attribute.members else _examples(attribute),
            attribute.stability,
            _sentences(attribute.brief, attribute.note),
        )
        for attribute in attributes
    ]
    return _table(("Attribute", "Type", "Where", "Example", "Stability", "Meaning"), rows)


def _shown(attribute: Attribute) -> str:
    return f"{attribute.name}.<key>" if attribute.is_template else attribute.name


def _where(attribute: Attribute, signals: Iterable[Signal]) -> str:
    return ", ".join(
        f"[{signal.name}](#{_anchor(_HEADINGS[signal.kind].format(signal.name))})"
        for signal in signals
        if any(use.name == attribute.name for use in signal.uses)
    )


def _values(attribute: Attribute) -> str:
    rows = [(f"`{value}`", brief) for value, brief in attribute.members.items()]
    return f"#### Values of `{attribute.name}`\n\n" + _table(("Value", "Meaning"), rows)


def _signal(signal: Signal) -> str:
    facts = {"span": f"{signal.span_kind.upper()} span", "metric": f"{signal.instrument}, unit `{signal.unit}`"}
    line = f"{facts[signal.kind]}; {signal.stability}" if signal.kind in facts else signal.stability
    text = _sentences(signal.brief, signal.note)
    starts = "; known when the span starts" if signal.kind == "span" else ""
    rows = [
        (f"`{use.name}`", _level(use) + (starts if use.at_start else ""), _sentences(use.brief, use.note))
        for use in signal.uses
    ]
    events = f"\nEvents: {', '.join(f'`{name}`' for name in signal.events)}.\n" if signal.events else ""
    heading = _HEADINGS[signal.kind].format(signal.name)
    table = _table(("Attribute", "There", "Meaning"), rows) if rows else "No attributes.\n"
    return f"### {heading}\n\n{text} ({line})\n\n{table}{events}"


def _level(use: Use) -> str:
    if use.condition:
        return use.condition.rstrip(".")
    return {"required": "always", "opt_in": "on demand"}[use.level]


def _examples(attribute: Attribute) -> str:
    texts = (json.dumps(example) if isinstance(example, list) else str(example) for example in attribute.examples)
    return ", ".join(f"`{text}`" for text in texts)


def _sentences(*texts: str) -> str:
    return " ".join(text.strip() for text in texts if text)


def _anchor(heading: str) -> str:
    """What a heading is linked by."""
    kept = "".join(letter for letter in heading.lower() if letter.isalnum() or letter in " _-")
    return kept.replace(" ", "-")


def _table(titles: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in line)} |" for line in lines) + "\n"
