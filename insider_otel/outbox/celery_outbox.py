"""An outbox in the app's own Celery: a job is a message for its workers, and retries and monitoring are Celery's."""

from __future__ import annotations

import os
import selectors
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from importlib import import_module
from typing import Any

from insider_otel.outbox import celery_redis
from insider_otel.outbox.content import CannotDefer
from insider_otel.outbox.job import Job
from insider_otel.outbox.protocol import OutboxError
from insider_otel.state.event_loops import OUTBOX_THREADS, limiter

TASK = "insider_otel.outbox.deliver"
"""The name of the task that delivers a job; ``insider_otel.outbox.celery`` registers it."""

PURGE_TASK = "insider_otel.outbox.purge"
"""The name of the task that deletes dead letters which were kept for long enough; celery beat may run it."""

LONGEST_ETA = 600.0
"""Seconds. A message that has to wait for longer is sent anew after that: brokers deliver one again that a worker holds
for long without a word (RabbitMQ: half an hour, Redis: the visibility timeout, which is an hour unless set)."""

_STEP_TIMEOUT = 1.0
"""Seconds that each step may take: getting a connection, opening it, and each answer of the broker. Somebody waits."""

_NO_ROUTE = 312
"""Of AMQP: with it a message is given back."""

_NOT_TAKEN = "did not take the job"
_GOING_THROUGH = "was in trouble while its dead letters were gone through"

_CONNECTION_OPTIONS = {
    # RabbitMQ: the message is stored when it says so. For Redis the answer to the command says it.
    "confirm_publish": True,
    "read_timeout": _STEP_TIMEOUT,
    "write_timeout": _STEP_TIMEOUT,
    # Nobody sends any between two jobs, and a server that waits for them closes the connection.
    "heartbeat": 0,
    # Redis, whose client would otherwise wait for an answer for ever.
    "socket_timeout": _STEP_TIMEOUT,
    "socket_connect_timeout": _STEP_TIMEOUT,
    "retry_on_timeout": False,
    # Opening a connection is tried at each of several brokers; nothing was sent yet.
    "max_retries": 3,
    "interval_start": 0.05,
    "interval_step": 0.05,
    "interval_max": 0.2,
}


class CeleryOutbox:
    """Sends jobs to a queue of the app's Celery.

    Args:
        queue: The queue.

    Raises:
        ImportError: Celery is not installed.
    """

    name = "celery"

    def __init__(self, queue: str) -> None:
        try:
            self._celery: Any = import_module("celery")
        except ModuleNotFoundError as error:
            raise ImportError('outbox="celery" needs Celery: pip install "insider-otel[celery]"') from error
        self._queue = queue
        self._lock = threading.Lock()
        self._app: Any = self._current_app()
        self._connections: tuple[int, Any, Any] | None = None

    @property
    def dead_queue(self) -> str:
        """The queue that jobs are kept in that were given up."""
        return f"{self._queue}.dead"

    def put(self, job: Job) -> None:
        """Send a job to the queue; when this returns, the broker has it.

        Raises:
            CannotDefer: It is to be kept in order.
            OutboxError: It is not kept, as far as anybody knows.
        """
        if job.line is not None:
            raise CannotDefer(
                f"{job.operation} cannot be deferred with an ordering_key: Celery's workers keep no order; leave it "
                'out, or keep calls in outbox="sqlite:///…" or "django"'
            )
        app = self._find_app()
        due = min(job.due, time.time() + longest_eta(app))
        with self._connection(app) as connection:
            try:
                self._send(app, connection, self._queue, job.to_json(), job.id, due)
            except Exception as error:
                if not _came_back(error):
                    raise
                # The queue was deleted. A connection that is opened anew declares it again.
                connection.collect(socket_timeout=_STEP_TIMEOUT)
                self._send(app, connection, self._queue, job.to_json(), job.id, due)

    async def put_async(self, job: Job) -> None:
        """``put``, in a thread. A thread that has begun is waited for, also by a call that was cancelled."""
        from anyio import to_thread  # noqa: PLC0415  (sync clients need no anyio)

        # Here it is known; in the thread it may not be.
        self._find_app()
        await to_thread.run_sync(self.put, job, limiter=limiter("outbox", OUTBOX_THREADS))

    def forget(self, job_id: str) -> None:
        """A job is over: nothing of it is to come back.

        Args:
            job_id: The name of the job.

        Raises:
            OutboxError: It may come back.
        """
        with self._connection(self._find_app(), "did not forget a job, which may come back") as connection:
            if celery_redis.is_redis(connection.transport_cls):
                celery_redis.forget(connection.default_channel, job_id)

    def bury(self, value: object, job_id: str, *, until: float | None = None, wait: float = 0.0) -> None:
        """Keep a job that was given up, in a queue that workers do not read.

        Args:
            value: The job's JSON; what cannot be read is kept too.
            job_id: The name of the job.
            until: When it is to be deleted, in seconds since 1970; None for never.
            wait: Seconds for which a worker that reads the queue all the same leaves it alone.

        Raises:
            OutboxError: It is not kept, or may come back.
        """
        app = self._find_app()
        with self._refusing(), _connect(app) as connection:
            self._send(app, connection, self._dead_queue(app), value, job_id, time.time() + wait, until)
        self.forget(job_id)

    def purge(self) -> list[Any]:
        """Delete what was given up and kept for long enough; RabbitMQ does so by itself.

        Returns:
            The messages, as kombu has them.

        Raises:
            OutboxError: The broker cannot be asked.
        """
        with self._refusing(_GOING_THROUGH), _connect(self._find_app()) as connection:
            if not celery_redis.is_redis(connection.get_transport_cls()):
                return []
            return celery_redis.drop_expired(connection.default_channel, self.dead_queue, time.time())

    @contextmanager
    def dead_letters(self) -> Generator[list[tuple[Any, celery_redis.Settle]]]:
        """What was given up until now, the oldest first. What is not settled stays.

        Returns:
            A context manager that gives the messages, as kombu has them, each with what settles it.

        Raises:
            OutboxError: The broker is in trouble.
        """
        app = self._find_app()
        with self._refusing(_GOING_THROUGH), _connect(app) as connection:
            if celery_redis.is_redis(connection.get_transport_cls()):
                yield celery_redis.look(connection.default_channel, self.dead_queue)
                return
            queue = self._dead_queue(app)(connection.default_channel)
            queue.declare()
            messages: list[Any] = []
            try:
                while (message := queue.get()) is not None:
                    messages.append(message)
                yield [(message, partial(_settle, message)) for message in messages]
            finally:
                for message in messages:
                    if not message.acknowledged:
                        message.requeue()

    def _dead_queue(self, app: Any) -> Any:
        if self.dead_queue in app.amqp.queues:
            return app.amqp.queues[self.dead_queue]
        # By its name alone it would become one of those that a worker reads unless told which.
        return import_module("kombu").Queue(self.dead_queue)

    def close(self) -> None:
        """Close its connections; whoever uses the outbox again opens them again."""
        with self._lock:
            if self._connections is not None and self._connections[0] == os.getpid():
                self._connections[2].force_close_all()
            self._connections = None

    def _send(
        self,
        app: Any,
        connection: Any,
        queue: Any,
        value: object,
        job_id: str,
        due: float,
        expires: float | None = None,
    ) -> None:
        app.send_task(
            TASK,
            # It says where it belongs, so workers need no setting for that.
            args=[value, self._queue],
            # What monitors show of it: nothing of what it holds.
            argsrepr=f"(…, {self._queue!r})",
            task_id=job_id,
            queue=queue,
            eta=datetime.fromtimestamp(due, UTC) if due > time.time() else None,
            expires=None if expires is None else datetime.fromtimestamp(expires, UTC),
            serializer="json",
            ignore_result=True,
            add_to_parent=False,
            # What was sent and not confirmed may be stored; a second message would be a second delivery.
            retry=False,
            # RabbitMQ also confirms what it has no queue for, and drops it; so it is to give it back.
            mandatory=True,
            connection=connection,
        )

    @contextmanager
    def _connection(self, app: Any, refusal: str = _NOT_TAKEN) -> Generator[Any]:
        with self._refusing(refusal):
            connection = self._pool(app).acquire(block=True, timeout=_STEP_TIMEOUT)
            try:
                if _was_closed(connection):
                    # By a restart or a load balancer; nothing was sent yet.
                    connection.collect(socket_timeout=_STEP_TIMEOUT)
                yield connection
            except Exception:
                # What it still has to say belongs to the message that failed.
                connection.collect(socket_timeout=_STEP_TIMEOUT)
                raise
            finally:
                connection.release()

    def _pool(self, app: Any) -> Any:
        """Connections of this process; Celery's own wait for as long as the app says, which need not suit a caller."""
        with self._lock:
            if self._connections is None or self._connections[:2] != (os.getpid(), app):
                connection = _connect(app)
                transport = connection.get_transport_cls()
                if celery_redis.is_redis(transport):
                    connection.transport_cls = celery_redis.keeping_copies(transport)
                self._connections = (os.getpid(), app, connection.Pool(app.conf.broker_pool_limit))
            return self._connections[2]

    @contextmanager
    def _refusing(self, refusal: str = _NOT_TAKEN) -> Generator[None]:
        try:
            yield
        except OutboxError:
            raise
        except Exception as error:  # noqa: BLE001  (every broker has exceptions of its own, and its address in them)
            raise OutboxError(
                f"Celery's broker {refusal} ({type(error.__cause__ or error).__name__}): see that it runs, "
                "that broker_url and its user and password are right, and that the queue "
                f"{self._queue} is there or may be declared"
            ) from None

    def _find_app(self) -> Any:
        """The app's Celery. Its current app is one of each thread, and web servers have threads that know of none."""
        for app in (self._current_app(), self._app):
            if app.conf.broker_write_url:
                self._app = app
                return app
        raise OutboxError(
            "there is no Celery app with a broker here: let this process import the module that makes it, call its "
            "set_default(), and see that its broker_url is set"
        )

    def _current_app(self) -> Any:
        return self._celery.current_app._get_current_object()


def _connect(app: Any) -> Any:
    return app.connection_for_write(connect_timeout=_STEP_TIMEOUT, transport_options=_CONNECTION_OPTIONS)


def _settle(message: Any, act: Callable[[], object]) -> bool:
    act()
    message.ack()
    return True


def _was_closed(connection: Any) -> bool:
    """Whether a connection to RabbitMQ was closed while it was idle; the client of Redis sees to that itself."""
    sock = getattr(connection.connection, "sock", None) if connection.connected else None
    if sock is None:
        return False
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        # Nothing was asked, so what there is to read is its end.
        return bool(selector.select(0))


def _came_back(error: Exception) -> bool:
    """Whether RabbitMQ has given a message back that it has no queue for: it is certainly not stored."""
    return getattr(error.__cause__ or error, "reply_code", None) == _NO_ROUTE


def longest_eta(app: Any) -> float:
    """Seconds that a message may wait at a worker without being delivered to another meanwhile.

    Args:
        app: The app's Celery.
    """
    visibility_timeout = app.conf.broker_transport_options.get("visibility_timeout")
    return LONGEST_ETA if visibility_timeout is None else min(LONGEST_ETA, visibility_timeout / 2)
