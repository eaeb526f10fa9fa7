"""The deferred calls that Celery's workers gave up: to look at, to send once more, or to forget."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from insider_otel.outbox.celery_outbox import CeleryOutbox
from insider_otel.outbox.job import Job, JobError
from insider_otel.outbox.rules import purged_text
from insider_otel.policy.outbox_url import DEFAULT_QUEUE

_ANOTHER_DAY = 86_400.0

_log = logging.getLogger("insider_otel.outbox")


class DeadLetters:
    """The queue of dead letters, ``<queue>.dead``, in the broker of the current Celery app.

        letters = DeadLetters()
        for job in letters.jobs():
            print(job.id, job.operation, job.stopped)
        letters.retry("6ab8e667abaf4b29877c8d23c56bc17e")

    Args:
        queue: The queue of the jobs, without ``.dead``.
    """

    def __init__(self, queue: str = DEFAULT_QUEUE) -> None:
        self._outbox = CeleryOutbox(queue)

    def jobs(self) -> list[Job]:
        """What was given up, the oldest first; what this version of insider-otel cannot read is left out.

        Raises:
            OutboxError: The broker cannot be asked.
        """
        found: dict[str, Job] = {}

        def look(job: Job) -> bool:
            found.setdefault(job.id, job)
            return False

        self._go_through(look)
        return list(found.values())

    def retry(self, *job_ids: str) -> int:
        """Have jobs sent now; whoever asks for it has seen what may have become of them, so that is forgotten.

        Args:
            *job_ids: The names of the jobs; none for all of them.

        Returns:
            How many there were.

        Raises:
            OutboxError: The broker is in trouble; those that were not yet sent stay where they are.
        """
        sent: dict[str, Job] = {}

        def send(job: Job) -> bool:
            if job_ids and job.id not in job_ids:
                return False
            if job.id in sent:
                # The same once more is to go with it. One that was given up anew meanwhile, or elsewhere, is to stay.
                return job == sent[job.id]
            now = time.time()
            expires = max(job.expires, now + _ANOTHER_DAY)
            self._outbox.put(
                replace(job, due=now, expires=expires, ambiguous_since=None, stopped=None, stopped_at=None)
            )
            sent[job.id] = job
            return True

        return self._go_through(send)

    def discard(self, *job_ids: str) -> int:
        """Forget jobs.

        Args:
            *job_ids: The names of the jobs; ``celery purge`` forgets all of them.

        Returns:
            How many there were.

        Raises:
            OutboxError: The broker is in trouble.
        """
        return self._go_through(lambda job: job.id in job_ids)

    def purge(self) -> int:
        """Delete those that were kept for ``outbox_retention``. On RabbitMQ there is nothing to do: it does so itself.

        Returns:
            How many there were.

        Raises:
            OutboxError: The broker is in trouble; the others stay where they are.
        """
        purged = Counter(_operation(message) for message in self._outbox.purge())
        if purged:
            _log.warning("%s", purged_text(purged))
        return purged.total()

    def _go_through(self, settle: Callable[[Job], bool]) -> int:
        """Take out those that are settled; a message leaves the queue only then.

        A broker that was slow to say that it has a message was sent another: there may be two of one job.

        Returns:
            How many jobs were settled.
        """
        settled: set[str] = set()
        kept: list[Any] = []
        with self._outbox.dead_queue_opened() as queue:
            try:
                while (message := queue.get()) is not None:
                    kept.append(message)
                    job = _job(message)
                    if job is not None and settle(job):
                        kept.pop().ack()
                        settled.add(job.id)
            finally:
                for message in kept:
                    message.requeue()
        return len(settled)


def _operation(message: Any) -> str:
    job = _job(message)
    return "unreadable" if job is None else job.operation


def _job(message: Any) -> Job | None:
    """The job of a message; None if this version of insider-otel cannot read it."""
    try:
        return Job.from_json(message.payload[0][0])
    except JobError:
        return None
