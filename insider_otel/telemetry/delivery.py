"""One delivery of a deferred call: a span of the call's own trace, linked to the worker's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.trace import Span, SpanKind, Tracer

from insider_otel.api.operations import Operation
from insider_otel.telemetry import attributes as names
from insider_otel.telemetry.call import CallTrace
from insider_otel.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    from opentelemetry.trace import Link


class DeliveryTrace(CallTrace):
    """The INTERNAL span of one delivery, and what happens under it. Its parent is the span of the call.

    Args:
        telemetry: Where it goes.
        operation: The operation called.
        now: The present moment, on the clock of the caller.
        job: The name of the job.
        links: The worker's own span.
    """

    __slots__ = ("_job", "_links")

    def __init__(
        self, telemetry: Telemetry, operation: Operation, now: float, job: str, links: Sequence[Link] = ()
    ) -> None:
        self._job = job
        self._links = links
        super().__init__(telemetry, operation, now)

    def _open(self, tracer: Tracer, parent: Context) -> Span:
        return tracer.start_span(
            f"insider deliver {self._operation.name}",
            context=parent,
            kind=SpanKind.INTERNAL,
            attributes={
                names.OPERATION: self._operation.name,
                names.PRODUCT: self._operation.product,
                names.JOB: self._job,
            },
            links=self._links,
        )

    def _measure(self, seconds: float, labels: dict[str, str]) -> None:
        self._telemetry.instruments.deliveries.add(1, labels, self.context)
