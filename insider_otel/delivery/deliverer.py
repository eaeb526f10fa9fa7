"""One delivery of one job: sent as the call it is, and what becomes of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

from opentelemetry.context import Context, attach, detach
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from insider_otel.api.operations import Operation, operations_by_name
from insider_otel.http.effects import REDELIVERY
from insider_otel.http.engine import Engine
from insider_otel.http.instrumentor import engine_of
from insider_otel.http.local import NOT_SENT
from insider_otel.http.redelivery import LeaseLost, Redelivery, last_verdict
from insider_otel.outbox.content import CannotDefer, ContentError, Parcel
from insider_otel.outbox.credentials import CredentialsError, provide
from insider_otel.outbox.job import Job, verdict_to_keep
from insider_otel.outbox.protocol import OutboxError
from insider_otel.policy.deferral import DELIVERY_DEADLINE, SHORTEST_WAIT, ambiguity, retry_window
from insider_otel.policy.settings import SettingsError
from insider_otel.policy.steps import Outcome, Stop
from insider_otel.telemetry.delivery import DeliveryTrace

if TYPE_CHECKING:
    from opentelemetry.trace import Link

    from insider_otel.http.deferral import Desk

_TRACE_CONTEXT = TraceContextTextMapPropagator()
_log = logging.getLogger("insider_otel.outbox")


class Ending(NamedTuple):
    """What becomes of a job after a delivery.

    Attributes:
        job: The job as it is to be kept: to be sent later, or, with ``job.stopped``, as a dead letter. None if it is
            done.
        pool_opens_at: When its pool has room again, in seconds since 1970, if that is why it was not sent.
    """

    job: Job | None
    pool_opens_at: float | None = None


class Deliverer:
    """Sends jobs. What it decides about a job it returns; it does not touch the outbox.

    Args:
        engine: What its calls share with those of the app; its settings name an outbox.
        client: Returns the client to send with, whose calls are the engine's.
    """

    def __init__(self, engine: Engine, client: Callable[[], Any]) -> None:
        if engine.desk is None:
            raise SettingsError("there is no outbox: set Settings(outbox=…), or INSIDER_OTEL_OUTBOX")
        self._engine = engine
        self._desk: Desk = engine.desk
        self._client = client

    def deliver(self, job: Job, links: Sequence[Link] = (), begin: Callable[[], bool] | None = None) -> Ending:
        """Send a job, in the trace of the call that was deferred.

        Args:
            job: The job.
            links: The worker's own span.
            begin: Called just before it is sent; returns whether it still may be.

        Returns:
            What becomes of it.

        Raises:
            LeaseLost: It must not be sent by this worker any more, says ``begin``; it was not.
        """
        token = attach(_TRACE_CONTEXT.extract(job.context, Context()))
        try:
            return self._deliver(job, links, begin)
        finally:
            detach(token)

    def _deliver(self, job: Job, links: Sequence[Link], begin: Callable[[], bool] | None) -> Ending:
        operation = _operation(job)
        if self._desk.wall_clock() >= job.expires:
            return self._give_up(job, operation, Stop.EXPIRED, links)
        try:
            parcel = self._desk.codec.decode(job.content)
            credentials = provide(self._engine.settings.credentials, operation, job.account, parcel.places)
        except Exception as error:  # noqa: BLE001  (what is damaged or missing: it waits to be mended)
            return self._cannot_send(job, error)
        # Asked only now: to ask the app for credentials may have taken long.
        now = self._desk.wall_clock()
        window = min(operation.duplicate_window or 0.0, self._engine.settings.dedupe_window)
        bounds = ambiguity(operation, job.ambiguous_since, now, duplicate_window=window)
        if bounds.stopped is not None:
            return self._give_up(job, operation, bounds.stopped, links)
        redelivery = Redelivery(job, self._desk.wall_clock, bounds.until, self._mending_time(job), links, begin)
        try:
            request = self._request(parcel, credentials, redelivery)
        except Exception as error:  # noqa: BLE001  (what is refused before it is sent: it waits to be mended)
            return self._cannot_send(job, error)
        try:
            response = self._client().send(request, stream=True)
        except (LeaseLost, OutboxError):
            raise
        except Exception as error:  # noqa: BLE001  (whatever it is, the call's record says what it means)
            if redelivery.progress is None and redelivery.call is None:
                return self._cannot_send(job, error)
        else:
            # Only the beginning of an answer is looked at, so that is all that is read.
            with suppress(Exception):
                response.close()
        return self._end(job, redelivery)

    def _request(self, parcel: Parcel, credentials: Mapping[str, str], redelivery: Redelivery) -> Any:
        client = self._client()
        if engine_of(client) is not self._engine:
            raise SettingsError("the client that deferred calls are sent with does not go through this worker's engine")
        headers, body = parcel.request(credentials)
        request = client.build_request(
            parcel.method,
            parcel.url,
            headers=headers,
            content=body,
            # Nobody waits for it: more time than a client has by default is fewer answers that nobody hears.
            timeout=DELIVERY_DEADLINE / 2,
            extensions={REDELIVERY: redelivery},
        )
        # One account's are none of another's.
        request.headers.pop("cookie", None)
        # A client with parameters of its own has put those in the place of the call's.
        request.url = type(request.url)(parcel.url)
        if self._engine.operation_of(request) is None:
            raise SettingsError(
                f"{request.url.host} is no host of Insider's: name it in Settings.hosts, as the app does"
            )
        return request

    def _end(self, job: Job, redelivery: Redelivery) -> Ending:
        progress = redelivery.progress
        if progress is not None:
            now = redelivery.kept_at
            was_sent = progress.attempts > job.attempts
            due = now + max(progress.wait, SHORTEST_WAIT)
            later = replace(
                job,
                due=min(due, job.expires),
                attempts=progress.attempts,
                deliveries=job.deliveries + was_sent,
                ambiguous_since=None if progress.ambiguous_for is None else now - progress.ambiguous_for,
                verdict=verdict_to_keep(progress.verdict) or job.verdict,
            )
            # Nothing was sent: it is the limit that has no room.
            return Ending(later, None if was_sent or not progress.wait else due)
        call = redelivery.call
        assert call is not None, "a call that was sent has a record"
        if call.outcome in {Outcome.SUCCEEDED, Outcome.HELD_BACK}:
            return Ending(None)
        was_sent = call.attempts > job.attempts
        tried = replace(
            job,
            attempts=call.attempts,
            deliveries=job.deliveries + was_sent,
            ambiguous_since=redelivery.ambiguous_since,
            verdict=verdict_to_keep(call.verdict) if was_sent or not job.verdict else job.verdict,
        )
        return Ending(self._stopped(tried, (call.stopped or call.outcome).value))

    def _mending_time(self, job: Job) -> float:
        """Seconds until a job is sent again that somebody has to mend something for."""
        window = retry_window(self._engine.settings.retry_window, job.deliveries)
        return max(self._engine.random() * window, SHORTEST_WAIT)

    def _give_up(self, job: Job, operation: Operation, stopped: Stop, links: Sequence[Link]) -> Ending:
        """A job that must not be sent any more."""
        now = self._engine.clock()
        trace = DeliveryTrace(self._engine.telemetry, operation, now, job.id, links)
        trace.finish(
            outcome=Outcome.FAILED.value,
            verdict=last_verdict(job),
            failed=True,
            stopped=stopped.value,
            attempts=job.attempts,
            waited=0.0,
            now=now,
        )
        return Ending(self._stopped(job, stopped.value))

    def _stopped(self, job: Job, why: str) -> Job:
        return replace(job, stopped=why, stopped_at=self._desk.wall_clock())

    def _cannot_send(self, job: Job, error: Exception) -> Ending:
        """It is for the app's people to mend what keeps the job from being sent; until then it waits."""
        # What others raise may hold what it was about.
        said = str(error) if isinstance(error, _OURS) else f"{type(error).__name__} was raised"
        self._desk.complain(f"a deferred call of {job.operation} waits, for it cannot be sent: {said}")
        verdict = {**verdict_to_keep(NOT_SENT), "message": said}
        due = min(self._desk.wall_clock() + self._mending_time(job), job.expires)
        return Ending(replace(job, due=due, verdict=verdict))


_OURS = (CannotDefer, ContentError, CredentialsError, SettingsError)


def _operation(job: Job) -> Operation:
    known = operations_by_name().get(job.operation)
    # Else from another version of the library, which knew an operation that this one does not.
    return known or Operation(job.operation, job.product, (), "", "", job.pool)
