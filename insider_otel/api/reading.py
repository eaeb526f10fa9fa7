"""How a reply, or an exception in its place, is read: what ``classify`` does."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from insider_otel.api import envelope, matching, rate_hints, success
from insider_otel.api.body import Body, is_object, parse
from insider_otel.api.envelope import Envelope
from insider_otel.api.responses import Meaning, Row, of_exception, of_status, table
from insider_otel.api.safe_text import safe_code, safe_field, safe_text, vocabulary
from insider_otel.api.verdict import Category, RateLimit, Retry, Verdict

_OK = range(200, 300)
_GOOD = frozenset({Category.SUCCESS, Category.ACCEPTED, Category.DUPLICATE})
_NO_CODES = frozenset({"error", "fail", "failed", "failure", "ok", "success"})
_CODES_TRIED = 4
_FAILED = range(400, 600)
_NAMES_FIELDS = frozenset({Category.VALIDATION, Category.PAYLOAD_LIMIT, Category.PARTIAL_FAILURE})


def read(
    status: int | None,
    body: bytes | str,
    headers: Mapping[str, str] | None,
    url: str | None,
    exception: BaseException | None,
    truncated: bool,
    now: float | None,
) -> Verdict:
    """Read a reply; see ``classify`` for the arguments and the verdict."""
    if not isinstance(status, int):
        status = None
    if exception is not None and status not in _FAILED:
        # A broken body leaves a 2xx unknown; what an error status says stays true.
        return _verdict(of_exception(exception), Envelope(), {}, None)
    content = parse(body, truncated=truncated)
    fields = rate_hints.relevant(headers)
    if status is not None and status in _OK:
        return _of_success(status, content, fields, now)
    said = envelope.read(content)
    row = matching.find(status, said, content.text, url or "")
    told = _refused_for_a_while(status, row, fields, now) if "retry-after" in fields else None
    meaning = told or (row.meaning if row else of_status(status))
    return _verdict(meaning, said, fields, now)


def _refused_for_a_while(
    status: int | None, row: Row | None, fields: Mapping[str, str], now: float | None
) -> Meaning | None:
    """What a reply means that would say "never" if it did not name the moment to come back."""
    told = table().with_retry_after.get(status) if status is not None else None
    if told is None or rate_hints.from_headers(fields, now)[0] is None:
        return None
    meaning = row.meaning if row else of_status(status)
    if meaning.retry is not Retry.NEVER:
        return None
    # What says that it is too much says no more than a 413 does, and does not say of what.
    return told if row is None or row.is_silent or meaning.category is Category.PAYLOAD_LIMIT else None


def _of_success(status: int, content: Body, fields: Mapping[str, str], now: float | None) -> Verdict:
    content = success.unwrapped(content)
    reply = content.value
    counts = None
    if is_object(reply):
        counts = success.count(reply)
        if counts is not None and counts.partial:
            return _verdict(_named("hidden_partial_failure"), _said_of_lost_records(counts), fields, now, counts)
        if success.refuses(reply):
            return _of_refusal(status, content, reply, fields, now)
        quota = success.quota(reply) if "quota" in reply else None
        if quota is not None:
            return replace(_usual_success(status, "", None, None), rate_limit=quota)
    elif content.is_markup and _is_page(content.text):
        return _verdict(_named("html_page"), envelope.read(content), fields, now)
    message = success.message(content)
    if not fields and (not message or matching.is_documented(message) or message.lower() in vocabulary()):
        return _usual_success(status, message, counts.accepted if counts else None, counts.failed if counts else None)
    said = Envelope(messages=[message] if message else ())
    return _verdict(_meaning_of_success(status, said, content.text), said, fields, now, counts)


def _of_refusal(
    status: int, content: Body, reply: Mapping[str, Any], fields: Mapping[str, str], now: float | None
) -> Verdict:
    said = envelope.read(content)
    inner = success.failed_status(reply)
    row = matching.find(inner or status, said, content.text, "")
    if row is not None:
        return _verdict(row.meaning, said, fields, now)
    if inner is not None:
        return _verdict(of_status(inner), said, fields, now)
    if success.lists_errors(reply):
        counts = success.Counts(failed=len(reply["errors"]), partial=True)
        return _verdict(_named("hidden_partial_failure"), said, fields, now, counts)
    return _verdict(
        _named("search_fallback" if success.is_failed_search(reply) else "hidden_refusal"), said, fields, now
    )


def _meaning_of_success(status: int, said: Envelope, sample: str) -> Meaning:
    row = matching.find_good_news(status, said, sample)
    by_status = of_status(status)
    if row is None or (row.meaning.category is Category.SUCCESS and by_status.category is Category.ACCEPTED):
        return by_status
    return row.meaning


@functools.lru_cache(maxsize=1024)
def _usual_success(status: int, message: str, accepted: int | None, failed: int | None) -> Verdict:
    """The verdict on a reply that says one harmless word at most, and how many records were taken."""
    said = Envelope(messages=[message] if message else ())
    return _verdict(_meaning_of_success(status, said, ""), said, {}, None, success.Counts(accepted, failed))


def _said_of_lost_records(counts: success.Counts) -> Envelope:
    if not counts.reasons:
        return envelope.read_errors(counts.errors)
    reasons = ", ".join(f"{reason} ({size})" for reason, size in counts.reasons.items())
    return Envelope(details=[reasons], codes=sorted(counts.reasons, key=lambda reason: -counts.reasons[reason]))


def _verdict(
    meaning: Meaning,
    said: Envelope,
    fields: Mapping[str, str],
    now: float | None,
    counts: success.Counts | None = None,
) -> Verdict:
    category = meaning.category
    message = " ".join(said.message().split())
    retry_after, limit = _when(meaning, message, fields, now)
    field = said.named_field() if category in _NAMES_FIELDS else said.field
    return Verdict(
        category=category,
        rule=meaning.rule,
        fault=meaning.fault,
        retry=meaning.retry,
        message=message if not message or matching.is_documented(message) else safe_text(message),
        code=_code(said) if said.codes else None,
        field=safe_field(field) if field else None,
        accepted=counts.accepted if counts else None,
        failed=counts.failed if counts else None,
        retry_after=retry_after,
        advice=meaning.advice,
        rate_limit=limit,
    )


def _when(
    meaning: Meaning, message: str, fields: Mapping[str, str], now: float | None
) -> tuple[float | None, RateLimit | None]:
    """Seconds to wait, and the limit the reply tells of. Headers win over the message, ``Retry-After`` over all."""
    if not fields and meaning.retry is Retry.NEVER:
        return None, None
    told, limit = rate_hints.from_headers(fields, now) if fields else (None, None)
    if meaning.category in _GOOD:
        return None, limit
    in_text = rate_hints.from_text(message) if meaning.retry is not Retry.NEVER and message else None
    if told is None and in_text is not None and in_text.explicit and not (limit and limit.explicit):
        told = in_text.reset
    if meaning.category is not Category.RATE_LIMIT:
        return (limit.reset if told is None and limit and limit.explicit else told), limit
    limit = rate_hints.merge(limit, in_text, told)
    if limit is None:
        return None, None
    return (limit.reset if limit.explicit else limit.window), limit


def _code(said: Envelope) -> str | None:
    for code in said.codes[:_CODES_TRIED]:
        if code.lower() in _NO_CODES or not any(map(str.isalnum, code)):
            continue
        safe = code if matching.is_documented(code) else safe_code(code, _numeric_codes())
        if safe is not None:
            return safe
    return None


@functools.cache
def _numeric_codes() -> frozenset[str]:
    return frozenset(code for row in table().meanings for code in row.codes)


def _named(meaning: str) -> Meaning:
    return table().by_id[meaning].meaning


def _is_page(text: str) -> bool:
    return re.match("<[a-zA-Z!?]", text) is not None
