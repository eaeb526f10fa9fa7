"""Answers of catalog.api.useinsider.com: 200 even if every record is invalid."""

from __future__ import annotations

import json
from typing import Any

from insider_otel.testing._answers._ask import Answer, Ask
from insider_otel.testing._documented import documented_reply
from insider_otel.testing._wire import Reply, as_dict, as_list


def _ingest(ask: Ask) -> Reply:
    if ask.operation.count_records(ask.payload) is None:
        return documented_reply("body_not_json")
    records = as_list(ask.payload)
    invalid: dict[tuple[str, str], list[str]] = {}
    for record in records:
        wrong = _record_error(as_dict(record), ask.operation.max_record_bytes)
        if wrong is not None:
            invalid.setdefault(wrong, []).append(str(as_dict(record).get("item_id") or ""))
    failed = sum(len(ids) for ids in invalid.values())
    details = [
        {"field": field, "message": message, "count": len(ids), "document_ids": [each for each in ids if each]}
        for (field, message), ids in invalid.items()
    ]
    message: dict[str, Any] = {
        "valid": {"count": len(records) - failed},
        "invalid": {"count": failed, "details": details},
        "warnings": {"count": 0, "details": []},
        "invalidRatio": failed / len(records) if records else 0,
    }
    return Reply.of(200, {"success": True, "message": message})


def _record_error(record: dict[str, Any], max_bytes: int | None) -> tuple[str, str] | None:
    """The field that is wrong with a record, and why; None if it is good."""
    if not record.get("item_id"):
        return "item_id", "Field is invalidated: 'item_id' is required"
    for name in ("url", "image_url"):
        value = record.get(name)
        if value is not None and not str(value).startswith(("http://", "https://")):
            return name, f"Field is invalidated: '{name}' must match pattern"
    if max_bytes is not None and len(json.dumps(record)) > max_bytes:
        return "record", "Maximum allowed record size is exceeded."
    return None


def _locales(ask: Ask) -> Reply:
    if not as_list(ask.payload):
        return Reply.of(400, {"success": False, "message": "No locales sent in payload"})
    return Reply.of(200, {"success": True, "created_locale_count": len(as_list(ask.payload))})


ANSWERS: dict[str, Answer] = {
    "catalog.ingest": _ingest,
    "catalog.ingest_nested": _ingest,
    "catalog.update": _ingest,
    "catalog.update_nested": _ingest,
    "catalog.locales_batch": _locales,
}
