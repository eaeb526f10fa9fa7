"""Spans as tests want to see them: calls, attempts, and the trace as lines of text."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import cast
from urllib.parse import unquote, unquote_plus

from opentelemetry.trace import SpanKind

from insider_otel.telemetry import attributes as names

try:
    from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
    from opentelemetry.sdk.trace.export import SimpleSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
except ImportError as error:
    raise ImportError('capturing spans needs the OpenTelemetry SDK: pip install "insider-otel[testing]"') from error

_SHORTEST_SECRET = 3
_ONE_I = str.maketrans({"\N{LATIN SMALL LETTER DOTLESS I}": "i", "\N{COMBINING DOT ABOVE}": None})
"""Turkish has two letters i, and which of them is the other case of which depends on the language."""


class CapturedSpans:
    """Every span that ended, in memory; nothing is exported, and no global provider is touched.

    Give its provider to what is tested:

        spans = CapturedSpans()
        client = httpx.Client(transport=InsiderTransport(fake.transport(), tracer_provider=spans.tracer_provider))

    Attributes:
        tracer_provider: An SDK ``TracerProvider`` of its own.
    """

    def __init__(self) -> None:
        self._exporter = InMemorySpanExporter()
        self.tracer_provider = TracerProvider(shutdown_on_exit=False)
        self.tracer_provider.add_span_processor(SimpleSpanProcessor(self._exporter))

    def all(self) -> list[ReadableSpan]:
        """Every span that ended, in the order in which they started."""
        return sorted(self._exporter.get_finished_spans(), key=lambda span: span.start_time or 0)

    def calls(self) -> list[ReadableSpan]:
        """The spans of calls."""
        return [span for span in self.all() if _is_call(span)]

    def deliveries(self) -> list[ReadableSpan]:
        """The spans of deliveries of deferred calls."""
        return [span for span in self.all() if _is_delivery(span)]

    def attempts(self) -> list[ReadableSpan]:
        """The spans of attempts: one HTTP request each."""
        return [span for span in self.all() if span.kind is SpanKind.CLIENT]

    def waits(self) -> list[ReadableSpan]:
        """The spans of waits."""
        return [span for span in self.all() if names.WAIT_REASON in _attributes(span)]

    def clear(self) -> None:
        """Forget every span so far."""
        self._exporter.clear()

    def tree(self) -> list[str]:
        """The traces as lines of text, a child two blanks further in than its parent, in order of their start.

        A call reads ``call user.upsert succeeded``, a delivery of a deferred one ``delivery user.upsert succeeded``, an
        attempt ``POST /api/user/v1/upsert 503`` (or, without an answer, the name of the exception), a wait
        ``wait retry``, any other span its kind and name. Events do not show.
        """
        spans = self.all()
        known = {span.context.span_id for span in spans if span.context}
        children: dict[int | None, list[ReadableSpan]] = {}
        for span in spans:
            parent = span.parent.span_id if span.parent and span.parent.span_id in known else None
            children.setdefault(parent, []).append(span)
        lines: list[str] = []

        def add(parent: int | None, depth: int) -> None:
            for span in children.get(parent, ()):
                lines.append("  " * depth + _line(span))
                if span.context:
                    add(span.context.span_id, depth + 1)

        add(None, 0)
        return lines

    def assert_no_secrets(self, *values: str) -> None:
        """Fail if a value shows in anything exported: names, attributes, events, status, links, scope, resource.

        Args:
            *values: Keys, tokens, addresses … Also found in another case, percent-encoded, or as JSON writes it.

        Raises:
            ValueError: A value is too short to be looked for.
            AssertionError: A value shows; the message says in which span, but not the value.
        """
        for value in values:
            if len(value) < _SHORTEST_SECRET:
                raise ValueError(f"a value of {len(value)} characters would be found anywhere; give at least 3")
        for span in self.all():
            shown = {_folded(form) for text in _texts(span) for form in (text, unquote(text), unquote_plus(text))}
            for number, value in enumerate(values, 1):
                written = (json.dumps(value, ensure_ascii=ascii_only)[1:-1] for ascii_only in (True, False))
                sought = {_folded(form) for form in (value, *written)}
                if any(form in text for form in sought for text in shown):
                    raise AssertionError(f"value {number} of {len(values)} shows in the span {_line(span)!r}")


def _attributes(span: ReadableSpan) -> MappingProxyType[str, object]:
    return MappingProxyType(dict(span.attributes or {}))


def _is_call(span: ReadableSpan) -> bool:
    return _has_outcome(span) and not _is_delivery(span)


def _is_delivery(span: ReadableSpan) -> bool:
    return _has_outcome(span) and span.name.startswith("insider deliver ")


def _has_outcome(span: ReadableSpan) -> bool:
    return names.OUTCOME in _attributes(span) and span.kind is SpanKind.INTERNAL


def _line(span: ReadableSpan) -> str:
    attributes = _attributes(span)
    if _is_call(span):
        return f"call {attributes[names.OPERATION]} {attributes[names.OUTCOME]}"
    if _is_delivery(span):
        return f"delivery {attributes[names.OPERATION]} {attributes[names.OUTCOME]}"
    if names.WAIT_REASON in attributes:
        return f"wait {attributes[names.WAIT_REASON]}"
    if span.kind is SpanKind.CLIENT:
        result = attributes.get(names.HTTP_RESPONSE_STATUS_CODE)
        if result is None:
            result = str(attributes.get(names.ERROR_TYPE, "unanswered")).rpartition(".")[2]
        return f"{span.name} {result}"
    return f"{span.kind.name.lower()} {span.name}"


def _texts(span: ReadableSpan) -> Iterator[str]:
    """Every text of a span, as an exporter would send it."""
    yield from _texts_in((span.name, span.status.description, span.attributes, span.resource.attributes))
    yield from _texts_in([(event.name, event.attributes) for event in span.events])
    yield from _texts_in([(link.attributes, link.context.trace_state) for link in span.links])
    if span.context is not None:
        yield from _texts_in(span.context.trace_state)
    scope = span.instrumentation_scope
    if scope is not None:
        yield from _texts_in((scope.name, scope.version, scope.attributes))


def _texts_in(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        for pair in cast("Mapping[object, object]", value).items():
            yield from _texts_in(pair)
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes):
        for each in cast("Sequence[object]", value):
            yield from _texts_in(each)
    elif value is not None:
        yield value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _folded(text: str) -> str:
    """A text that is the same for every case of its letters."""
    return text.casefold().translate(_ONE_I)
