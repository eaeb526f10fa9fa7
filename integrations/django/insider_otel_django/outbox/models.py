"""The outbox's tables."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING, Any

from django.db import models

from insider_otel.outbox.job import Job

if TYPE_CHECKING:
    _Text = models.Field[str, str]
    _TextOrNone = models.Field[str | None, str | None]
    _Bytes = models.Field[Any, bytes]
    _Count = models.Field[int, int]
    _Seconds = models.Field[float, float]
    _SecondsOrNone = models.Field[float | None, float | None]

_FIELDS = {("job_id" if field.name == "id" else field.name): field.name for field in fields(Job)}
"""Each column of a job, and the name that the job itself has for it."""


class OutboxJob(models.Model):
    """One deferred call. All moments are seconds since 1970, as in every outbox."""

    # The order they came in.
    number: _Count = models.BigAutoField(primary_key=True)
    job_id: _Text = models.CharField("job", max_length=64, unique=True)
    state: _Text = models.CharField(
        max_length=8, choices=[("waiting", "waiting"), ("dead", "dead letter")], default="waiting"
    )
    operation: _Text = models.CharField(max_length=100)
    product: _Text = models.CharField(max_length=100)
    pool: _Text = models.CharField(max_length=255)
    content: _Bytes = models.BinaryField()
    account: _TextOrNone = models.TextField(null=True)
    line: _TextOrNone = models.CharField(max_length=64, null=True)
    context = models.JSONField(default=dict)
    created: _Seconds = models.FloatField()
    due: _Seconds = models.FloatField()
    expires: _Seconds = models.FloatField()
    attempts: _Count = models.IntegerField()
    deliveries: _Count = models.IntegerField()
    ambiguous_since: _SecondsOrNone = models.FloatField(null=True)
    verdict = models.JSONField(default=dict)
    stopped: _TextOrNone = models.CharField(max_length=64, null=True)
    stopped_at: _SecondsOrNone = models.FloatField(null=True)
    # What only workers write: whose it is, until when, and when that worker began to send it.
    token: _TextOrNone = models.CharField(max_length=64, null=True)
    leased_until: _Seconds = models.FloatField(default=0)
    sent_at: _SecondsOrNone = models.FloatField(null=True)

    class Meta:
        db_table = "insider_outbox_job"
        verbose_name = "deferred call"
        indexes = (
            models.Index(fields=["state", "pool", "due"], name="insider_outbox_due"),
            models.Index(fields=["state", "created"], name="insider_outbox_created"),
            models.Index(fields=["line", "number"], name="insider_outbox_line"),
            models.Index(fields=["state", "stopped_at"], name="insider_outbox_stopped"),
        )

    def __str__(self) -> str:
        return f"{self.operation} {self.job_id}"

    @classmethod
    def of(cls, job: Job) -> OutboxJob:
        """The row of a job that comes in."""
        return cls(**{column: getattr(job, name) for column, name in _FIELDS.items()})

    def job(self) -> Job:
        """The job."""
        values = {name: getattr(self, column) for column, name in _FIELDS.items()}
        # Some drivers return a memoryview.
        return Job(**{**values, "content": bytes(self.content)})


class OutboxPool(models.Model):
    """When the next delivery of a pool may start, whichever worker makes it."""

    name: _Text = models.CharField(max_length=255, primary_key=True)
    free_at: _Seconds = models.FloatField(default=0)
    # Counts changes: of two workers that have read the same, one may go on.
    turn: _Count = models.BigIntegerField(default=0)

    class Meta:
        db_table = "insider_outbox_pool"
        verbose_name = "pool"

    def __str__(self) -> str:
        return self.name
