"""The deferred calls that Celery's workers gave up: to look at, to send once more, or to forget."""

from __future__ import annotations

import logging
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from functools import partial
from typing import Any

from insider_otel.outbox.celery_outbox import CeleryOutbox
from insider_otel.outbox.celery_redis import Settle
from insider_otel.outbox.job import Job, JobError
from insider_otel.outbox.rules import purged_text
from insider_otel.policy.frames import raises_bare
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

    @raises_bare
    def jobs(self) -> list[Job]:
        """What was given up, the oldest first; what this version of insider-otel cannot read is left out.

        Raises:
            OutboxError: The broker cannot be asked.
        """
        with self._outbox.dead_letters() as letters:
            return [job for job, _ in _by_job(letters)]

    def retry(self, *job_ids: str) -> int:
        """Have jobs sent now; whoever asks for it has seen what may have become of them, so that is forgotten.

        All dead letters of a job that are there when it is asked for go with it; one that is given up anew stays.

        Args:
            *job_ids: The names of the jobs; none for all of them.

        Returns:
            How many there were.

        Raises:
            OutboxError: The broker is in trouble; those that were not yet sent stay where they are. One of them may be
                back only after Celery's visibility timeout, if the broker is Redis.
        """

        def send(job: Job) -> None:
            now = time.time()
            expires = max(job.expires, now + _ANOTHER_DAY)
            self._outbox.put(
                replace(job, due=now, expires=expires, ambiguous_since=None, stopped=None, stopped_at=None)
            )

        return self._settle(lambda job: not job_ids or job.id in job_ids, send)

    def discard(self, *job_ids: str) -> int:
        """Forget jobs.

        Args:
            *job_ids: The names of the jobs; ``celery purge`` forgets all of them.

        Returns:
            How many there were.

        Raises:
            OutboxError: The broker is in trouble.
        """
        return self._settle(lambda job: job.id in job_ids)

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

    @raises_bare
    def _settle(self, is_meant: Callable[[Job], bool], act: Callable[[Job], None] = lambda job: None) -> int:
        """Do something about jobs; the messages of others stay.

        Returns:
            How many jobs were settled.
        """
        settled = 0
        with self._outbox.dead_letters() as letters:
            for job, settles in _by_job(letters):
                if not is_meant(job):
                    continue
                # All that there are of it are taken before anything is done: who asks meanwhile finds none. One that
                # another has taken already is that one's to send.
                step: Callable[[], object] = partial(act, job)
                for settle in reversed(settles):
                    step = partial(settle, step)
                settled += bool(step())
        return settled


def _by_job(letters: Iterable[tuple[Any, Settle]]) -> Collection[tuple[Job, list[Settle]]]:
    """The jobs, each with what settles its letters; what this version of insider-otel cannot read is left out.

    There may be several of one job: a broker that was slow to say that it has one was sent another, and a worker that
    was killed before it confirmed the job had it given up once more.
    """
    found: dict[str, tuple[Job, list[Settle]]] = {}
    for message, settle in letters:
        job = _job(message)
        if job is not None:
            found.setdefault(job.id, (job, []))[1].append(settle)
    return found.values()


def _operation(message: Any) -> str:
    job = _job(message)
    return "unreadable" if job is None else job.operation


def _job(message: Any) -> Job | None:
    """The job of a message; None if this version of insider-otel cannot read it."""
    try:
        return Job.from_json(message.payload[0][0])
    except JobError:
        return None
