"""The outbox in the admin: what waits, what was given up and why. Nothing of what the calls hold is shown."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast

from django.contrib import admin, messages
from django.db.models.functions import Length

from insider_otel.outbox.protocol import OutboxError
from insider_otel_django.outbox.models import OutboxJob
from insider_otel_django.outbox.store import DjangoOutbox
from insider_otel_django.site import read_options

if TYPE_CHECKING:
    from django.db.models import QuerySet
    from django.http import HttpRequest

    _ModelAdmin = admin.ModelAdmin[OutboxJob]
else:
    _ModelAdmin = admin.ModelAdmin


def _moment(column: str, name: str) -> Callable[[OutboxJob], Any]:
    """What shows seconds since 1970 as a date."""

    @admin.display(description=name, ordering=column)
    def shown(row: OutboxJob) -> datetime | None:
        seconds = getattr(row, column)
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)

    return shown


@admin.display(description="deleted at")
def _deleted(row: OutboxJob) -> datetime | None:
    retention = read_options().settings.outbox_retention
    if row.stopped_at is None or retention is None:
        return None
    return datetime.fromtimestamp(row.stopped_at + retention, UTC)


def _verdict(part: str) -> Callable[[OutboxJob], str]:
    """What shows a part of what the last answer meant."""

    @admin.display(description=part)
    def shown(row: OutboxJob) -> str:
        return str(row.verdict.get(part, ""))

    return shown


@admin.display(description="trace")
def _trace(row: OutboxJob) -> str:
    return str(row.context.get("traceparent", "")).partition("-")[2].partition("-")[0]


@admin.display(description="content")
def _content(row: Any) -> str:
    return f"{row.size} bytes, which are not shown: they may hold personal data"


_created = _moment("created", "deferred")
_due = _moment("due", "due")
_expires = _moment("expires", "expires")
_stopped_at = _moment("stopped_at", "given up")
_ambiguous = _moment("ambiguous_since", "ambiguous since")
_category, _rule, _message = _verdict("category"), _verdict("rule"), _verdict("message")

_SHOWN: Any = (
    *("job_id", "operation", "pool", "account", "state", "stopped", _stopped_at, _deleted, _created, _due, _expires),
    *("attempts", "deliveries", _ambiguous, _category, _rule, _message, _trace, _content),
)


@admin.register(OutboxJob)
class OutboxJobAdmin(_ModelAdmin):
    """Nothing is edited. Who may change jobs can have them sent again, and who may delete them can discard them."""

    list_display = ("job_id", "operation", "state", _due, "attempts", "deliveries", _category, "stopped")
    list_filter = ("state", "operation", "stopped")
    search_fields = ("job_id",)
    ordering = ("-number",)
    actions = ("retry", "discard")
    fields = readonly_fields = _SHOWN

    def get_queryset(self, request: HttpRequest) -> QuerySet[OutboxJob]:
        """Jobs without what they hold."""
        return super().get_queryset(request).defer("content").annotate(size=Length("content"))

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Calls defer jobs, and nobody else."""
        return False

    def has_change_permission(self, request: HttpRequest, obj: OutboxJob | None = None) -> bool:
        """A job is what was called."""
        return False

    def has_delete_permission(self, request: HttpRequest, obj: OutboxJob | None = None) -> bool:
        """Nor is a job deleted that is being sent: ``discard`` looks."""
        return False

    def has_view_permission(self, request: HttpRequest, obj: OutboxJob | None = None) -> bool:
        """Whoever may do anything may look."""
        return super().has_view_permission(request, obj) or self.has_retry_permission(request)

    def has_retry_permission(self, request: HttpRequest) -> bool:
        """Whether somebody may have jobs sent again."""
        return super().has_change_permission(request)

    def has_discard_permission(self, request: HttpRequest) -> bool:
        """Whether somebody may discard jobs."""
        return super().has_delete_permission(request)

    @admin.action(description="Send selected deferred calls now", permissions=["retry"])
    def retry(self, request: HttpRequest, queryset: QuerySet[OutboxJob]) -> None:
        """Have jobs sent once more."""
        now = time.time()
        expires = now + read_options().settings.outbox_horizon
        for row in self._act(request, queryset, "to be sent now", lambda row: _retry(row, now, expires)):
            self.log_change(request, row, "To be sent now.")

    @admin.action(description="Discard selected deferred calls, which are never sent", permissions=["discard"])
    def discard(self, request: HttpRequest, queryset: QuerySet[OutboxJob]) -> None:
        """Forget jobs."""
        rows = self._act(request, queryset, "discarded", lambda row: DjangoOutbox().discard(row.job_id))
        if rows:
            # Django only goes through them.
            self.log_deletions(request, cast("Any", rows))

    def _act(
        self, request: HttpRequest, queryset: QuerySet[OutboxJob], done: str, act: Callable[[OutboxJob], bool]
    ) -> list[OutboxJob]:
        """Act on jobs, and say of how many; returns those."""
        changed: list[OutboxJob] = []
        left = 0
        try:
            for row in queryset:
                if act(row):
                    changed.append(row)
                else:
                    left += 1
        except OutboxError as error:
            # What was done until then is done.
            self.message_user(request, str(error), messages.ERROR)
        if changed:
            self.message_user(request, f"Deferred calls {done}: {len(changed)}.", messages.SUCCESS)
        if left:
            self.message_user(request, f"Left alone, for they are being sent or gone: {left}.", messages.WARNING)
        return changed


def _retry(row: OutboxJob, now: float, expires: float) -> bool:
    return DjangoOutbox().retry(row.job_id, now=now, expires=expires)
