"""One call as an INTERNAL span, with its waits, events and metrics."""

from __future__ import annotations

from typing import TYPE_CHECKING

from opentelemetry.context import Context, get_current
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer, set_span_in_context

from insider_otel.api.operations import Operation
from insider_otel.api.verdict import Verdict
from insider_otel.telemetry import attributes as names
from insider_otel.telemetry.attempt import AttemptTrace, end_span, verdict_attributes
from insider_otel.telemetry.events import AttributeValue
from insider_otel.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    import httpx

_ERROR = Status(StatusCode.ERROR)


class CallTrace:
    """The INTERNAL span of one call, and what happens under it.

    Args:
        telemetry: Where it goes.
        operation: The operation called.
        now: The present moment, on the clock of the caller.
    """

    __slots__ = ("_operation", "_started", "_telemetry", "context", "ended", "span")

    def __init__(self, telemetry: Telemetry, operation: Operation, now: float) -> None:
        self._telemetry = telemetry
        self._operation = operation
        self._started = now
        parent = get_current()
        self.span = self._open(telemetry.tracer, parent)
        self.context: Context = set_span_in_context(self.span, parent)
        self.ended = False

    def _open(self, tracer: Tracer, parent: Context) -> Span:
        return tracer.start_span(
            f"insider {self._operation.name}",
            context=parent,
            kind=SpanKind.INTERNAL,
            attributes={names.OPERATION: self._operation.name, names.PRODUCT: self._operation.product},
        )

    def start_attempt(self, request: httpx.Request, resend_count: int, now: float) -> AttemptTrace:
        """Open the span of an attempt.

        Args:
            request: The request of this attempt.
            resend_count: How many attempts went before.
            now: The present moment, on the caller's clock.
        """
        return AttemptTrace(
            self._telemetry, self._operation, request, parent=self.context, resend_count=resend_count, now=now
        )

    def _event(self, name: str, attributes: dict[str, AttributeValue]) -> None:
        """Emit an event on the call."""
        self._telemetry.emit(name, attributes, self.span, self.context)

    def retried(self, verdict: Verdict) -> None:
        """Count an attempt that ``verdict`` made necessary."""
        labels = {names.OPERATION: self._operation.name, names.STATUS_CATEGORY: verdict.category.value}
        self._telemetry.instruments.retries.add(1, labels, self.context)

    def rate_limited(self, verdict: Verdict) -> None:
        """Insider says: too many requests."""
        self._limited(names.EVENT_RATE_LIMIT_HIT, verdict)

    def duplicate(self, verdict: Verdict) -> None:
        """Insider says: I have this already."""
        self._event(names.EVENT_SERVER_DUPLICATE, {names.STATUS_RULE: verdict.rule})
        self._count_duplicate("server")

    def held_back(self, age: float) -> None:
        """The call is not sent: Insider has taken the same content ``age`` seconds ago."""
        self._event(names.EVENT_HELD_BACK, {names.DEDUPE_AGE_MS: milliseconds(age)})
        self._count_duplicate("local")

    def _count_duplicate(self, source: str) -> None:
        labels = {names.OPERATION: self._operation.name, names.DUPLICATE_SOURCE: source}
        self._telemetry.instruments.duplicates.add(1, labels, self.context)

    def in_flight(self, age: float) -> None:
        """Another call with the same content began ``age`` seconds ago and may yet fail; this one is sent too."""
        self._event(names.EVENT_IN_FLIGHT, {names.DEDUPE_AGE_MS: milliseconds(age)})

    def store_unavailable(self, store: str) -> None:
        """The store of limits and claims was found in trouble; this process holds them alone."""
        self._event(names.EVENT_STORE_UNAVAILABLE, {names.STORE: store})

    def refused(self, verdict: Verdict) -> None:
        """The call is not sent: its pool has no room before the deadline."""
        self._limited(names.EVENT_RATE_LIMIT_REFUSED, verdict)

    def _limited(self, event: str, verdict: Verdict) -> None:
        attributes: dict[str, AttributeValue] = {names.STATUS_RULE: verdict.rule}
        if verdict.retry_after is not None:
            attributes[names.WAIT_MS] = milliseconds(verdict.retry_after)
        self._event(event, attributes)

    def deferred(self, job: str, wait: float, verdict: Verdict | None) -> None:
        """The call goes on later.

        Args:
            job: The name of the job.
            wait: Seconds until its next attempt.
            verdict: What the last attempt brought; None if there was none.
        """
        attributes: dict[str, AttributeValue] = {names.WAIT_MS: milliseconds(wait)}
        if verdict is not None:
            attributes[names.STATUS_CATEGORY] = verdict.category.value
        self.span.set_attribute(names.JOB, job)
        self._event(names.EVENT_DEFERRED, attributes)

    def start_wait(self, seconds: float, reason: str, source: str, verdict: Verdict | None, now: float) -> WaitTrace:
        """Say that the call will wait, and open the span of the wait.

        Args:
            seconds: Its planned length.
            reason: What it is for.
            source: What decided its length.
            verdict: What made it necessary; None before the first attempt.
            now: The present moment, on the caller's clock.
        """
        planned: dict[str, AttributeValue] = {
            names.WAIT_REASON: reason,
            names.WAIT_SOURCE: source,
            names.WAIT_MS: milliseconds(seconds),
        }
        if source == "limiter":
            self._event(names.EVENT_RATE_LIMIT_WAITED, planned)
        elif verdict is not None:
            category = verdict.category.value
            self._event(names.EVENT_RETRY_SCHEDULED, {names.STATUS_CATEGORY: category, **planned})
        # TraceQL groups by what a span has itself, not by what its parent has.
        attributes = {names.OPERATION: self._operation.name, names.PRODUCT: self._operation.product, **planned}
        span = self._telemetry.tracer.start_span(
            "insider wait", context=self.context, kind=SpanKind.INTERNAL, attributes=attributes
        )
        labels = {names.OPERATION: self._operation.name, names.WAIT_REASON: reason, names.WAIT_SOURCE: source}
        return WaitTrace(self._telemetry, span, labels, self.context, now)

    def finish(
        self,
        *,
        outcome: str,
        verdict: Verdict | None,
        failed: bool,
        stopped: str | None,
        attempts: int,
        waited: float,
        now: float,
        ended: int | None = None,
    ) -> None:
        """End the call's span and record its metrics.

        Args:
            outcome: How the call ended.
            verdict: What its last attempt meant; None if it was cancelled before one was judged.
            failed: Whether it finally failed, in whole or in part.
            stopped: Why it was not tried again, if that is why it ended.
            attempts: Attempts made.
            waited: Seconds spent waiting.
            now: The moment of its end, on the caller's clock.
            ended: The same in nanoseconds since 1970, if it is past.
        """
        self.ended = True
        labels: dict[str, str] = {names.OPERATION: self._operation.name, names.OUTCOME: outcome}
        if verdict is not None:
            labels[names.STATUS_CATEGORY] = verdict.category.value
            labels[names.STATUS_FAULT] = verdict.fault.value
        if stopped is not None:
            self._event(names.EVENT_RETRY_STOPPED, {names.RETRY_STOPPED: stopped})
        if self.span.is_recording():
            attributes: dict[str, AttributeValue] = {
                names.OUTCOME: outcome,
                names.ATTEMPTS: attempts,
                names.WAIT_MS: milliseconds(waited),
            }
            if verdict is not None:
                attributes.update(verdict_attributes(verdict))
                attributes.update(_records(verdict))
            if stopped is not None:
                attributes[names.RETRY_STOPPED] = stopped
            if failed and verdict is not None:
                attributes[names.ERROR_TYPE] = verdict.category.value
                self.span.set_status(_ERROR)
            self.span.set_attributes(attributes)
        end_span(self.span, ended)
        self._measure(max(now - self._started, 0.0), labels)
        instruments = self._telemetry.instruments
        if verdict is not None:
            for result, count in (("accepted", verdict.accepted), ("failed", verdict.failed)):
                if count:
                    record_labels = {names.OPERATION: self._operation.name, names.RECORDS_RESULT: result}
                    instruments.records.add(count, record_labels, self.context)

    def _measure(self, seconds: float, labels: dict[str, str]) -> None:
        self._telemetry.instruments.call_duration.record(seconds, labels, self.context)


class WaitTrace:
    """The INTERNAL span of one wait of a call.

    Args:
        telemetry: Where its duration goes.
        span: The span.
        labels: What the duration is recorded with.
        context: The context of the call.
        now: The present moment, on the clock of the caller.

    Attributes:
        began: When it began, on that clock.
    """

    __slots__ = ("_context", "_labels", "_span", "_telemetry", "began")

    def __init__(self, telemetry: Telemetry, span: Span, labels: dict[str, str], context: Context, now: float) -> None:
        self._telemetry = telemetry
        self._span = span
        self._labels = labels
        self._context = context
        self.began = now

    def finish(self, seconds: float, ended: int | None = None) -> None:
        """End the span, and record how long it was; one that was broken off is shorter than planned.

        Args:
            seconds: How long it was.
            ended: The moment of its end in nanoseconds since 1970, if it is past.
        """
        end_span(self._span, ended)
        self._telemetry.instruments.wait_duration.record(seconds, self._labels, self._context)


def milliseconds(seconds: float) -> int:
    """Seconds as whole milliseconds: Tempo compares and sums whole numbers, not floats."""
    return round(seconds * 1000)


def _records(verdict: Verdict) -> dict[str, int]:
    records: dict[str, int] = {}
    if verdict.accepted is not None:
        records[names.RECORDS_ACCEPTED] = verdict.accepted
    if verdict.failed is not None:
        records[names.RECORDS_FAILED] = verdict.failed
    if verdict.accepted is not None and verdict.failed is not None:
        records[names.RECORDS_SENT] = verdict.accepted + verdict.failed
    return records
