"""Jobs as the commands show them: without what could tell whom a call was about, unless that is asked for."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from insider_otel.api.operations import Operation, operations_by_name
from insider_otel.cli.durations import seconds_text
from insider_otel.outbox.content import Codec, Parcel
from insider_otel.outbox.job import Job

HEADER = ("JOB", "OPERATION", "STATE", "DUE IN", "ATTEMPTS", "DELIVERIES", "LAST VERDICT", "GIVEN UP", "DELETED AT")


def cells(job: Job, now: float, retention: float | None) -> tuple[object, ...]:
    """A job as a row below ``HEADER``.

    Args:
        job: The job.
        now: The present moment, in seconds since 1970.
        retention: Seconds for which dead letters are kept; None for ever.
    """
    due = "" if job.stopped else "now" if job.due <= now else seconds_text(job.due - now)
    verdict = "/".join(job.verdict[name] for name in ("category", "rule") if name in job.verdict)
    return (
        job.id,
        job.operation,
        _state(job),
        due,
        job.attempts,
        job.deliveries,
        verdict,
        job.stopped,
        _deleted_at(job, retention),
    )


def facts(job: Job, retention: float | None) -> dict[str, Any]:
    """All that is known of a job but what is sent, as JSON can hold it.

    Args:
        job: The job.
        retention: Seconds for which dead letters are kept; None for ever.
    """
    return {
        "id": job.id,
        "operation": job.operation,
        "product": job.product,
        "pool": job.pool,
        "account": job.account,
        "state": _state(job),
        "stopped": job.stopped,
        "stopped_at": None if job.stopped_at is None else moment_text(job.stopped_at),
        "deleted_at": _deleted_at(job, retention),
        "created": moment_text(job.created),
        "due": moment_text(job.due),
        "expires": moment_text(job.expires),
        "attempts": job.attempts,
        "deliveries": job.deliveries,
        "ambiguous_since": None if job.ambiguous_since is None else moment_text(job.ambiguous_since),
        "verdict": dict(job.verdict),
        "line": job.line,
        "trace_id": _trace_id(job),
    }


def request_revealed(job: Job, codec: Codec) -> dict[str, Any]:
    """What a job sends, with the personal data in it. Credentials are not kept, so they are not shown.

    Args:
        job: The job.
        codec: Reads what is stored.

    Raises:
        ValueError: It cannot be read, and why.
    """
    parcel = codec.decode(job.content)
    return {
        "method": parcel.method,
        "url": parcel.url,
        "headers": [list(pair) for pair in parcel.headers],
        "body": parcel.body.decode("utf-8", "backslashreplace"),
        "credentials": list(parcel.places),
    }


def request_masked(job: Job, codec: Codec) -> dict[str, Any]:
    """What a job sends, without what could tell whom it is about.

    Args:
        job: The job.
        codec: Reads what is stored; of what it cannot read nothing but that is told.
    """
    try:
        parcel = codec.decode(job.content)
    except ValueError as error:
        return {"unreadable": str(error)}
    operation = operations_by_name().get(job.operation)
    return {
        "method": parcel.method,
        "host": None if operation is None else operation.host,
        "path": None if operation is None else operation.path,
        "headers": [name for name, _ in parcel.headers],
        "body_bytes": len(parcel.body),
        "records": _records(parcel, operation),
        "credentials": list(parcel.places),
    }


def lines(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Facts as rows of two cells, for a table; what is not known is left out.

    Args:
        values: The facts.
    """
    known = ((name, value) for name, value in values.items() if value not in (None, {}, []))
    return [(name.replace("_", " "), _printable(_text(value))) for name, value in known]


def moment_text(moment: float) -> str:
    """A moment in UTC: ``2026-01-01T09:00:00Z``.

    Args:
        moment: Seconds since 1970.
    """
    return datetime.fromtimestamp(moment, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _state(job: Job) -> str:
    return "waiting" if job.stopped is None else "dead"


def _deleted_at(job: Job, retention: float | None) -> str | None:
    """When a worker deletes a dead letter, at the earliest; None if that is not known, or never."""
    return None if job.stopped_at is None or retention is None else moment_text(job.stopped_at + retention)


def _trace_id(job: Job) -> str | None:
    parts = job.context.get("traceparent", "").split("-")
    return parts[1] if len(parts) > 2 else None


def _records(parcel: Parcel, operation: Operation | None) -> int | None:
    try:
        payload: object = json.loads(parcel.body)
    except (ValueError, RecursionError):
        return None
    return None if operation is None else operation.count_records(payload)


def _printable(text: str) -> str:
    """What was sent must not drive the terminal."""
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def _text(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name}: {_text(each)}" for name, each in value.items())  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return ", ".join(": ".join(each) if isinstance(each, list) else str(each) for each in value)  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    return str(value)
