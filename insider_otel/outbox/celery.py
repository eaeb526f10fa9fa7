"""The Celery task that sends deferred calls, and one that deletes dead letters.

The app's workers load them: ``include=["insider_otel.outbox.celery"]``.

It is the one module that joins what keeps jobs with what delivers them, for it is the app's worker that loads it.
"""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any, NoReturn, cast

import httpx
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.trace import Link, get_current_span

from insider_otel.delivery.deliverer import Deliverer
from insider_otel.http.engine import Engine
from insider_otel.http.instrumentor import cover_client
from insider_otel.outbox.celery_dead_letters import DeadLetters
from insider_otel.outbox.celery_outbox import LONGEST_ETA, PURGE_TASK, TASK, CeleryOutbox
from insider_otel.outbox.job import Job, JobError
from insider_otel.outbox.opening import open_outbox
from insider_otel.outbox.protocol import OutboxError
from insider_otel.outbox.rules import interrupted, reason_text
from insider_otel.policy.deferral import DELIVERY_DEADLINE, LEASE
from insider_otel.policy.frames import bare
from insider_otel.policy.outbox_url import DEFAULT_QUEUE, OutboxURL
from insider_otel.policy.settings import Settings, SettingsError

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

# Celery has no types.
_celery: Any = import_module("celery")
_exceptions: Any = import_module("celery.exceptions")
_signals: Any = import_module("celery.signals")

_SOFT_TIME_LIMIT = 2 * DELIVERY_DEADLINE
_TIME_LIMIT = 4 * DELIVERY_DEADLINE
_TELLING_TRIES = 5
_TROUBLE_PAUSE = 1.0
_SETTINGS_PAUSE = 60.0
"""Seconds until a job is looked at again by a worker that could not send it for want of a setting."""

_log = logging.getLogger("insider_otel.outbox")


class DeadLetter(Exception):  # noqa: N818  (the term)
    """A deferred call that was given up: what Celery's monitors show. The job is in the queue of dead letters."""


class _Sender:
    """What jobs are sent with in this process: made with the first of them, when a worker has forked."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._options: dict[str, Any] = {}
        self._made: tuple[Deliverer, httpx.Client] | None = None

    def configure(self, options: dict[str, Any]) -> None:
        with self._lock:
            self._options = options
            if self._made is not None:
                self._made[1].close()
            self._made = None

    def settings(self) -> Settings:
        return self._options.get("settings") or Settings.from_env()

    def check(self) -> None:
        # Neither kept nor measured: processes that are forked from now on make their own.
        self._make({**self._options, "meter_provider": NoOpMeterProvider()})[1].close()

    def deliverer(self) -> Deliverer:
        with self._lock:
            if self._made is None:
                self._made = self._make(self._options)
            return self._made[0]

    def _make(self, options: dict[str, Any]) -> tuple[Deliverer, httpx.Client]:
        engine = Engine(**options)
        client = _make_client()
        cover_client(client, engine)
        return Deliverer(engine, lambda: client), client


def _make_client() -> httpx.Client:
    try:
        return httpx.Client(limits=httpx.Limits(max_connections=None))
    except Exception as error:  # noqa: BLE001  (whatever is odd in the environment has an exception of its own)
        # Not in its own words, which may hold a proxy's password.
        raise SettingsError(
            f"httpx makes no client with what this worker's environment says ({type(error).__name__}): see "
            "SSL_CERT_FILE, SSL_CERT_DIR, HTTP_PROXY, HTTPS_PROXY, ALL_PROXY and NO_PROXY"
        ) from None


_sender = _Sender()


def configure(
    settings: Settings,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    logger_provider: LoggerProvider | None = None,
) -> None:
    """Say what the workers of this app send deferred calls with; by default settings are read from the environment.

    Args:
        settings: The app's settings, as its clients have them; ``credentials`` matters most.
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: Where metrics go; the global provider by default.
        logger_provider: Where log-based events go; the global provider by default.
    """
    _sender.configure(
        {
            "settings": settings,
            "tracer_provider": tracer_provider,
            "meter_provider": meter_provider,
            "logger_provider": logger_provider,
        }
    )


def _check_at_start(**_: object) -> None:
    """Have a worker that can send nothing say so when it starts: Celery logs what is raised here."""
    _sender.check()


def _purge_at_start(**_: object) -> None:
    """Delete what of the dead letters was kept for long enough, also where nobody has celery beat run the task."""
    outbox = _sender.settings().outbox
    if outbox is not None and (url := OutboxURL.parse(outbox)).scheme == "celery":
        DeadLetters(url.queue).purge()


def _forget_revoked(sender: Any, request: Any, **_: object) -> None:
    """Forget what is left of a job that somebody discards by Celery's own means: of its message Celery does so."""
    if sender.name == TASK:
        cast("CeleryOutbox", open_outbox(OutboxURL("celery"))).forget(request.id)


def _deliver(task: Any, value: object, queue: str) -> None:
    """Send a job, and send a message for what is left to do of it.

    Args:
        task: The running task.
        value: The job's JSON.
        queue: The queue that it belongs to.
    """
    try:
        _settle(task.request, value, queue)
    except (DeadLetter, _exceptions.Reject, _exceptions.Retry) as error:
        raise bare(error) from error.__cause__
    except Exception as error:  # noqa: BLE001  (Celery would drop the message, and nobody knows that the job is kept)
        _log.error("a deferred call is left to be delivered again: %s", type(error).__name__)
        time.sleep(_TROUBLE_PAUSE)
        raise _exceptions.Reject(type(error).__name__, requeue=True) from None
    finally:
        # Celery's frames have it, too, and its signals tell the task's arguments: error reporters send all of that.
        # Nobody needs it any more. What is delivered again is the message as it came.
        if isinstance(value, dict):
            cast("dict[str, Any]", value).clear()


def _settle(request: Any, value: object, queue: str) -> None:
    outbox = cast("CeleryOutbox", open_outbox(OutboxURL("celery", queue=queue)))
    try:
        job = Job.from_json(value)
    except JobError as error:
        _bury(outbox, value, request.id, None)
        raise DeadLetter(f"{error}; it is kept in {outbox.dead_queue}") from None
    if job.stopped is not None:
        _log.error(
            "a worker reads %s, and should not: what is there was given up, and waits for people", outbox.dead_queue
        )
        _bury(outbox, value, job.id, job.stopped_at, wait=LONGEST_ETA)
        raise _exceptions.Retry(f"{job.operation}: given up already", when=LONGEST_ETA)
    now = time.time()
    if job.due > now:
        # It has to wait for longer than a message may.
        _put_back(outbox, job, "not due yet")
    if _was_delivered_before(request):
        # To a worker that is no more, or that said nothing for long. It can have sent it since it was due.
        job = interrupted(job, job.due)
    try:
        deliverer = _sender.deliverer()
    except Exception as error:  # noqa: BLE001  (whatever this worker lacks, the job waits for it)
        said = error if isinstance(error, ImportError | SettingsError) else type(error).__name__
        _log.error("deferred calls of %s wait, for they cannot be sent: %s", job.operation, said)
        _put_back(outbox, replace(job, due=now + _SETTINGS_PAUSE), "it cannot be sent")
    try:
        link = get_current_span().get_span_context()
        ending = deliverer.deliver(job, [Link(link)] if link.is_valid else [])
    except Exception as error:  # noqa: BLE001  (it is a fault of ours, and the job must not be lost)
        _log.error("a delivery of %s broke off: %s", job.operation, type(error).__name__)
        _put_back(outbox, replace(interrupted(job, now), due=now + LEASE), "the delivery broke off")
    else:
        later = ending.job
        if later is not None and later.stopped is not None:
            _bury(outbox, later.to_json(), later.id, later.stopped_at)
            raise DeadLetter(f"{later.operation} was given up: {reason_text(later)}; it is kept in {outbox.dead_queue}")
        if later is not None:
            _put_back(outbox, later, reason_text(later))
        _tell(lambda: outbox.forget(job.id))


def _was_delivered_before(request: Any) -> bool:
    delivery: Mapping[str, Any] = request.delivery_info or {}
    return bool(delivery.get("redelivered"))


def _bury(outbox: CeleryOutbox, value: object, job_id: str, stopped_at: float | None, *, wait: float = 0.0) -> None:
    """Keep a job that was given up for as long as the settings say; from now on if nobody knows since when."""
    try:
        retention = _sender.settings().outbox_retention
    except SettingsError as error:
        _log.error("a job that was given up is not put aside yet: %s", error)
        time.sleep(_TROUBLE_PAUSE)
        raise _exceptions.Reject(error, requeue=True) from None
    since = time.time() if stopped_at is None else stopped_at
    until = None if retention is None else since + retention
    _tell(lambda: outbox.bury(value, job_id, until=until, wait=wait))


def _purge(queue: str = DEFAULT_QUEUE) -> None:
    """Delete what of the dead letters was kept for long enough.

    Args:
        queue: The queue of the jobs, without ``.dead``.
    """
    DeadLetters(queue).purge()


def _put_back(outbox: CeleryOutbox, job: Job, why: str) -> NoReturn:
    """Send a message for a job that is to be sent later, and have Celery call that a retry."""
    # A broker that did not answer may have the message: whoever gets another must know that there may be two. The first
    # may be sent at any moment from now on, also long after the others, so no window is open for what is in them.
    messages = itertools.chain([job], itertools.repeat(replace(job, ambiguous_since=0.0)))
    _tell(lambda: outbox.put(next(messages)))
    raise _exceptions.Retry(f"{job.operation}: {why}", when=max(job.due - time.time(), 0.0))


def _tell(act: Callable[[], None]) -> None:
    """Have the broker know what became of a job before the message is confirmed that it came in."""
    for tries_left in reversed(range(_TELLING_TRIES)):
        try:
            return act()
        except OutboxError as error:
            if not tries_left:
                # Celery delivers the message once more, and marks it as one that was delivered before.
                raise _exceptions.Reject(error, requeue=True) from None
            _log.warning("the broker does not take what became of a job; it is told again: %s", error)
            time.sleep(_TROUBLE_PAUSE)
    return None


_signals.worker_ready.connect(_check_at_start, weak=False)
_signals.worker_ready.connect(_purge_at_start, weak=False)
_signals.task_revoked.connect(_forget_revoked, weak=False)

deliver: Any = _celery.shared_task(
    name=TASK,
    bind=True,
    # The message is confirmed when it is known what became of the job, and comes back if the worker dies before.
    acks_late=True,
    reject_on_worker_lost=True,
    acks_on_failure_or_timeout=False,
    # The app's limits are for the app's tasks.
    soft_time_limit=_SOFT_TIME_LIMIT,
    time_limit=_TIME_LIMIT,
    # Time, and not their number, ends the deliveries of a job.
    max_retries=None,
    ignore_result=True,
)(_deliver)

purge: Any = _celery.shared_task(name=PURGE_TASK, ignore_result=True)(_purge)
