"""What a 2xx reply says of what was done: how many records were taken and were not, and whether it was done at all.

Insider answers 200 to lost records. Only the places where it is known to say so are looked at: what a shop stores
under a name like "errors" comes back in ordinary replies, too.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from insider_otel.api.body import Body, is_array, is_object, parse
from insider_otel.api.verdict import RateLimit

_MESSAGE_KEYS = ("message", "status_message", "statusMessage", "response")
_SAYINGS = (*_MESSAGE_KEYS, "error")
_LONGEST_MESSAGE = 1000
_MOST_DIGITS = 12
_INDEX = r"users\.([0-9]{1,9})\."
_FIRST_FAILED_STATUS, _LAST_FAILED_STATUS = 400, 599
# Only search replies have these keys; elsewhere "status" may be the state of a campaign.
_SEARCH_KEYS = frozenset({"appliedSearchStrategy", "partnerResources"})
_FAILED_WORDS = frozenset(
    {"error", "fail", "successfallback", "ratelimitexceeded", "queryinvalidlength", "businessexception"}
)
_LONGEST_WORD = 40
_TELLING = frozenset({"success", "status", "status_code", "statusCode", "error", "errors"})
_ERROR_TEXTS = ("message", "error", "msg", "reason")
# Why a push does not reach a user, by Insider's own names: without its "successes" a reply is known by them.
_REASONS_OF_PUSH = frozenset(
    {"NoUserFound", "OptOut", "Unregistered", "UserGloballyCapped", "UserGloballyCappedForInapp", "InvalidCertificate"}
)


class Counts(NamedTuple):
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
    reasons: Mapping[str, int] = MappingProxyType({})


def unwrapped(body: Body) -> Body:
    """What a 2xx body holds, out of what may be around it: quotes, if it was encoded twice, or the brackets of a list.

    Args:
        body: The body.

    Returns:
        The object in it, if it holds one that is a reply of Insider's and no record of the shop's; else ``body``.
    """
    value = body.value
    if isinstance(value, str) and value.lstrip().startswith("{"):
        inner = parse(value)
        return inner if is_object(inner.value) else body
    if is_array(value) and len(value) == 1 and _is_refusal_in_words(value[0]):
        return body._replace(value=value[0])
    return body


def count(reply: Mapping[str, Any]) -> Counts | None:
    """The record counts in a 2xx reply; None if it holds none.

    Args:
        reply: The JSON object at the root of the reply. Of one that was cut, lists are as long as what is left of them.
    """
    for key, read in _READERS.items():
        if key in reply:
            counts = read(reply)
            if counts is not None:
                return counts
    return None


def quota(reply: Mapping[str, Any]) -> RateLimit | None:
    """What a reply says of its quota: profile reads tell it when they are asked to.

    Args:
        reply: The reply's object.

    Returns:
        What it cost and what is left; None if it does not tell. Source: the page of the profile endpoint in Insider's
        Postman collection (``"quota": {"cost", "used", "total"}``).
    """
    told = reply.get("quota")
    if not is_object(told):
        return None
    cost, used, total = (_number(told.get(name)) for name in ("cost", "used", "total"))
    if cost is None:
        return None
    left = max(total - used, 0) if total and used is not None else None
    return RateLimit(limit=total or None, remaining=left, cost=cost)


def message(body: Body) -> str:
    """What a 2xx reply says in words, at the places known for it; what a shop stored is not looked at."""
    reply = body.value
    if is_object(reply):
        for key in _MESSAGE_KEYS:
            if key in reply and isinstance(reply[key], str):
                return str(reply[key])
        content = reply.get("content")
        inner = content.get("message") if is_object(content) else None
        return inner if isinstance(inner, str) else ""
    if isinstance(reply, str):
        return reply
    return "" if body.is_json or body.is_markup else body.text[:_LONGEST_MESSAGE]


def failed_status(reply: Mapping[str, Any]) -> int | None:
    """The status of a failure that a reply names in its body, if it names one."""
    for key in ("status", "status_code", "statusCode"):
        status = _number(reply.get(key))
        if status is not None and _FIRST_FAILED_STATUS <= status <= _LAST_FAILED_STATUS:
            return status
    return None


def refuses(reply: Mapping[str, Any]) -> bool:
    """Whether a 2xx reply says that it was not done.

    Args:
        reply: The JSON object at the root of the reply.
    """
    if _TELLING.isdisjoint(reply):
        return False
    status = reply.get("status")
    if _is_false(reply.get("success")) or _is_false(status) or failed_status(reply) is not None:
        return True
    if isinstance(status, str) and re.sub("[^a-z]", "", status[:_LONGEST_WORD].lower()) in _FAILED_WORDS:
        return True
    return _is_error(reply.get("error")) or lists_errors(reply) or is_failed_search(reply)


def is_failed_search(reply: Mapping[str, Any]) -> bool:
    """Whether it is the reply of a search with another status than "Success"."""
    status = reply.get("status")
    return isinstance(status, str) and status.lower() != "success" and not _SEARCH_KEYS.isdisjoint(reply)


def lists_errors(reply: Mapping[str, Any]) -> bool:
    """Whether a reply has a list of errors at its root, or errors by field."""
    errors = reply.get("errors")
    if is_array(errors):
        return any(map(_is_error, errors))
    if is_object(errors):
        return any(any(map(_is_error, value)) if is_array(value) else _is_error(value) for value in errors.values())
    return False


def _is_false(value: object) -> bool:
    return value is False or (isinstance(value, str) and value.lower() == "false")


def _is_refusal_in_words(item: object) -> bool:
    """Whether it says no and what is wrong, as no record of a shop's would."""
    return (
        is_object(item) and _is_false(item.get("success")) and any(isinstance(item.get(key), str) for key in _SAYINGS)
    )


def _is_error(error: object) -> bool:
    """Whether it is words that say what is wrong: a statistic may well count its errors under the same name."""
    if is_object(error):
        return any(_is_error(error[key]) for key in _ERROR_TEXTS if isinstance(error.get(key), str))
    return isinstance(error, str) and any(map(str.isalpha, error))


def _users(reply: Mapping[str, Any]) -> Counts | None:
    """User data: ``{"data": {"successful": {"count": 2}, "fail": {"count": 1, "errors": {…}}}}``, or ``{}``."""
    data = reply["data"]
    if not is_object(data):
        return None
    successful, fail = data.get("successful"), data.get("fail")
    accepted = _number(successful.get("count", 0)) if is_object(successful) else None
    if not is_object(fail):
        # Alone, or beside a number, it may be a statistic.
        lost = _size(fail) if _counts(fail) and (is_object(successful) or is_array(successful)) else 0
        if lost:
            return Counts(accepted, lost, True, fail if is_array(fail) else None)
        return None if accepted is None else Counts(accepted)
    if not fail:
        return Counts(accepted, 0)
    errors, failed = fail.get("errors"), _number(fail.get("count"))
    if failed is None and is_object(errors):
        failed = len({index[1] for key in errors if (index := re.match(_INDEX, key))}) or None
    return Counts(accepted, failed, bool(failed or errors), errors)


def _catalog(reply: Mapping[str, Any]) -> Counts | None:
    """Catalog: ``{"success": true, "message": {"valid": {"count": 2}, "invalid": {"count": 1, "details": […]}}}``."""
    message = reply["message"]
    if not is_object(message):
        return None
    valid, invalid = message.get("valid"), message.get("invalid")
    if not is_object(valid) and not is_object(invalid):
        return None
    details = invalid.get("details") if is_object(invalid) else None
    failed = _number(invalid.get("count", 0)) if is_object(invalid) else _size(invalid) if _counts(invalid) else 0
    accepted = _number(valid.get("count", 0)) if is_object(valid) else None
    return Counts(accepted, failed, bool(failed or details), details)


def _push(reply: Mapping[str, Any]) -> Counts | None:
    """Push: ``{"successes": […], "errors": {"NoUserFound": […], "OptOut": […]}}``; null or nothing for none taken."""
    successes: object = reply.get("successes")
    errors: object = reply.get("errors")
    if "successes" not in reply:
        if not is_object(errors) or not any(is_array(errors.get(reason)) for reason in _REASONS_OF_PUSH):
            return None
    elif not is_array(successes) and (successes is not None or not is_object(errors)):
        return None
    accepted = len(successes) if is_array(successes) else 0 if "successes" in reply else None
    if is_array(errors):
        return Counts(accepted, len(errors), bool(errors), errors)
    reasons = _by_reason(errors)
    failed = sum(reasons.values())
    return Counts(accepted, failed, failed > 0, reasons=reasons)


def _messages(reply: Mapping[str, Any]) -> Counts | None:
    """SMS in bulk: ``{"messageIds": […], "errors": [{"field": "messages[1].phoneNumber", "error": "…"}]}``."""
    ids: object = reply["messageIds"]
    errors: object = reply.get("errors") or []
    if not is_array(ids) or not is_array(errors):
        return None
    return Counts(len(ids), len(errors), bool(errors), errors)


def _keys(reply: Mapping[str, Any]) -> Counts | None:
    """WhatsApp: ``{"keys": ["whatsapp-…"]}``, one for each message."""
    keys = reply["keys"]
    return Counts(len(keys), 0) if is_array(keys) and all(isinstance(key, str) for key in keys) else None


def _live_activity(reply: Mapping[str, Any]) -> Counts | None:
    """Live activities: ``skipped`` by reason, ``skipped_not_synced``, ``partial``, ``unprocessed_insider_id_count``."""
    skipped = reply.get("skipped")
    reasons = _by_reason(skipped)
    failed = sum(reasons.values()) if is_object(skipped) else _size(skipped)
    failed += _size(reply.get("skipped_not_synced")) + _size(reply.get("unprocessed_insider_id_count"))
    partial = failed > 0 or reply.get("partial") is True
    return Counts(None, failed or None, partial, reasons=reasons) if partial else None


_READERS: Mapping[str, Callable[[Mapping[str, Any]], Counts | None]] = {
    "data": _users,
    "message": _catalog,
    "successes": _push,
    "errors": _push,
    "messageIds": _messages,
    "keys": _keys,
    "skipped": _live_activity,
    "skipped_not_synced": _live_activity,
    "unprocessed_insider_id_count": _live_activity,
    "partial": _live_activity,
}


def _by_reason(listed: object) -> dict[str, int]:
    if not is_object(listed):
        return {}
    return {str(reason): size for reason, items in listed.items() if (size := _size(items))}


def _number(value: object) -> int | None:
    if type(value) is int and 0 <= value < 10**_MOST_DIGITS:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= _MOST_DIGITS:
        return int(value)
    if isinstance(value, float) and 0 <= value < 10**_MOST_DIGITS and value.is_integer():
        return int(value)
    return None


def _counts(value: object) -> bool:
    """Whether it is a number, or a list, of what was lost; a word may as well say that nothing was."""
    return is_array(value) or _number(value) is not None


def _size(value: object) -> int:
    """How many are meant by a number, a list of them, or one of them."""
    number = _number(value)
    if number is not None:
        return number
    if isinstance(value, str):
        return 1
    return len(value) if is_array(value) or is_object(value) else 0
