"""What a 2xx reply says of what was done: how many records were taken, how many were not, and whether it was done at all.

Insider answers 200 to lost records. Only the places where it is known to say so are looked at: what a shop stores under a
name like "errors" comes back in ordinary replies, too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence, Sized
from dataclasses import dataclass, field
from typing import Any

from .body import Body

_MESSAGE_KEYS = ("message", "status_message", "statusMessage", "response")
_LONGEST_MESSAGE = 1000
_MOST_DIGITS = 12
_INDEX = re.compile(r"users\.([0-9]{1,9})\.")
_FALSE = (False, "false", "False")
_FIRST_FAILED_STATUS, _LAST_FAILED_STATUS = 400, 599
# Only search replies have these keys; elsewhere "status" may be the state of a campaign.
_SEARCH_KEYS = frozenset({"appliedSearchStrategy", "partnerResources"})
_FAILED_WORDS = frozenset({"error", "fail", "successfallback", "ratelimitexceeded", "queryinvalidlength", "businessexception"})


@dataclass(frozen=True, slots=True)
class Counts:
    """How many records a reply says were taken and were not.

    Attributes:
        accepted: Records taken; None if the reply does not say.
        failed: Records not taken; None if the reply says only that there are some.
        partial: Whether there are records that were not taken.
        errors: The part of the reply that says why.
        reasons: How many there are of each of Insider's reasons, such as ``NoUserFound`` and ``OptOut``.
    """

    accepted: int | None = None
    failed: int | None = None
    partial: bool = False
    errors: Any = None
    reasons: Mapping[str, int] = field(default_factory=dict)


def count(reply: Mapping[str, Any]) -> Counts | None:
    """The record counts in a 2xx reply; None if it holds none.

    Args:
        reply: The JSON object at the root of the reply. Of one that was cut, lists are as long as what is left of them.
    """
    for key, reader in _READERS:
        if key in reply:
            counts = reader(reply)
            if counts is not None:
                return counts
    return None


def message(body: Body) -> str:
    """What a 2xx reply says in words, at the places known for it; what a shop stored is not looked at."""
    reply = body.value
    if isinstance(reply, Mapping):
        for key in _MESSAGE_KEYS:
            if key in reply and isinstance(reply[key], str):
                return str(reply[key])
        content = reply.get("content")
        inner = content.get("message") if isinstance(content, Mapping) else None
        return inner if isinstance(inner, str) else ""
    if isinstance(reply, str):
        return reply
    return "" if body.is_json or body.is_markup else body.text[:_LONGEST_MESSAGE]


def failed_status(reply: Mapping[str, Any]) -> int | None:
    """The status of a failure that a reply names in its body, if it names one."""
    for key in ("status", "status_code", "statusCode"):
        status = reply.get(key)
        if isinstance(status, int) and _FIRST_FAILED_STATUS <= status <= _LAST_FAILED_STATUS:
            return status
    return None


def refuses(reply: Mapping[str, Any]) -> bool:
    """Whether a 2xx reply says that it was not done.

    Args:
        reply: The JSON object at the root of the reply.
    """
    status = reply.get("status")
    if reply.get("success") in _FALSE or status in _FALSE or failed_status(reply) is not None:
        return True
    if isinstance(status, str) and status.lower() != "success":
        word = re.sub("[^a-z]", "", status.lower()) if len(status) < 40 else ""  # noqa: PLR2004 - longer than any
        if word in _FAILED_WORDS or not _SEARCH_KEYS.isdisjoint(reply):
            return True
    error = reply.get("error")
    return (isinstance(error, str | Mapping) and _says_something(error)) or _lists_errors(reply.get("errors"))


def _lists_errors(errors: object) -> bool:
    if isinstance(errors, Mapping):
        return any(_says_something(value) if isinstance(value, str) else _lists_errors(value) for value in errors.values())
    return isinstance(errors, list) and any(_says_something(item) for item in errors)


def _says_something(error: object) -> bool:
    if isinstance(error, Mapping):
        return any(isinstance(error.get(key), str) and error[key].strip() for key in ("message", "error", "msg", "reason"))
    return isinstance(error, str) and bool(error.strip())


def _users(reply: Mapping[str, Any]) -> Counts | None:
    """User data: ``{"data": {"successful": {"count": 2}, "fail": {"count": 1, "errors": {…}}}}``; counts may be absent."""
    data = reply["data"]
    if not isinstance(data, Mapping) or not ("successful" in data or "fail" in data):
        return None
    successful, fail = data.get("successful"), data.get("fail")
    if not isinstance(successful, Mapping | None) or not isinstance(fail, Mapping | None):
        return None
    errors = fail.get("errors") if fail else None
    failed = _number(fail.get("count")) if fail else 0
    if failed is None and isinstance(errors, Mapping):
        failed = len({index[1] for key in errors if (index := _INDEX.match(str(key)))}) or None
    accepted = _number(successful.get("count", 0)) if successful is not None else None
    return Counts(accepted, failed, bool(failed or errors), errors)


def _catalog(reply: Mapping[str, Any]) -> Counts | None:
    """Catalog: ``{"success": true, "message": {"valid": {"count": 2}, "invalid": {"count": 1, "details": […]}}}``."""
    message = reply["message"]
    if not isinstance(message, Mapping):
        return None
    valid, invalid = message.get("valid"), message.get("invalid")
    if not isinstance(valid, Mapping) and not isinstance(invalid, Mapping):
        return None
    details = invalid.get("details") if isinstance(invalid, Mapping) else None
    failed = _number(invalid.get("count", 0)) if isinstance(invalid, Mapping) else 0
    accepted = _number(valid.get("count", 0)) if isinstance(valid, Mapping) else None
    return Counts(accepted, failed, bool(failed or details), details)


def _push(reply: Mapping[str, Any]) -> Counts | None:
    """Push: ``{"successes": […], "errors": {"NoUserFound": […], "OptOut": […]}}``."""
    successes, errors = reply["successes"], reply.get("errors")
    if not isinstance(successes, list):
        return None
    if isinstance(errors, list):
        return Counts(len(successes), len(errors), bool(errors), errors)
    reasons = _by_reason(errors)
    failed = sum(reasons.values())
    return Counts(len(successes), failed, failed > 0, reasons=reasons)


def _messages(reply: Mapping[str, Any]) -> Counts | None:
    """SMS in bulk: ``{"messageIds": […], "errors": [{"field": "messages[1].phoneNumber", "error": "…"}]}``."""
    ids, errors = reply["messageIds"], reply.get("errors") or []
    if not isinstance(ids, list) or not isinstance(errors, list):
        return None
    return Counts(len(ids), len(errors), bool(errors), errors)


def _keys(reply: Mapping[str, Any]) -> Counts | None:
    """WhatsApp: ``{"keys": ["whatsapp-…"]}``, one for each message."""
    keys = reply["keys"]
    return Counts(len(keys), 0) if isinstance(keys, list) and all(isinstance(key, str) for key in keys) else None


def _live_activity(reply: Mapping[str, Any]) -> Counts | None:
    """Live activities: ``skipped`` by reason, ``skipped_not_synced``, ``partial`` and ``unprocessed_insider_id_count``."""
    skipped = reply.get("skipped")
    reasons = _by_reason(skipped)
    failed = sum(reasons.values()) if isinstance(skipped, Mapping) else _size(skipped)
    failed += _size(reply.get("skipped_not_synced")) + _size(reply.get("unprocessed_insider_id_count"))
    partial = failed > 0 or reply.get("partial") is True
    return Counts(None, failed or None, partial, reasons=reasons) if partial else None


_READERS = (
    ("data", _users),
    ("message", _catalog),
    ("successes", _push),
    ("messageIds", _messages),
    ("keys", _keys),
    ("skipped", _live_activity),
    ("skipped_not_synced", _live_activity),
    ("unprocessed_insider_id_count", _live_activity),
    ("partial", _live_activity),
)


def _by_reason(listed: object) -> dict[str, int]:
    if not isinstance(listed, Mapping):
        return {}
    return {str(reason): size for reason, items in listed.items() if (size := _size(items))}


def _number(value: object) -> int | None:
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


def _size(value: object) -> int:
    """How many are meant by a number, a list of them, or one of them."""
    number = _number(value)
    if number is not None:
        return number
    if isinstance(value, str):
        return 1 if value else 0
    return len(value) if isinstance(value, Sized) and isinstance(value, Sequence | Mapping) else 0
