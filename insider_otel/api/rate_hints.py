"""When to come back: ``Retry-After``, the RateLimit fields, and the limits that messages speak of."""

from __future__ import annotations

import re
import time
from collections.abc import Collection, Mapping
from dataclasses import replace
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, TypeGuard

from insider_otel.api.body import is_array
from insider_otel.api.verdict import RateLimit

LONGEST = 86_400.0
"""Seconds. The longest window Insider documents is a UTC day; nobody can mean more."""

_FIELDS = (
    "retry-after",
    "date",
    "ratelimit",
    "ratelimit-policy",
    "ratelimit-limit",
    "ratelimit-remaining",
    "ratelimit-reset",
    "x-ratelimit-limit",
    "x-ratelimit-remaining",
    "x-ratelimit-reset",
)
_TEXT = (str, bytes)
_WANTED: dict[str | bytes | None, str] = {
    **{name: name for name in _FIELDS},
    **{name.encode(): name for name in _FIELDS},
}
# The date alone tells nothing.
_TELLING = _WANTED.keys() - {"date", b"date"}
_LONGEST_NUMBER = 15
_EPOCH = 1_000_000_000
_EPOCH_MILLISECONDS = 1000 * _EPOCH

_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_LONG_DAY = "(?:Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday)"
_MONTH = "(?:Jan|Feb|Mar|Apr|May|Jun|Jul|Aug|Sep|Oct|Nov|Dec)"
_CLOCK = "[0-9]{2}:[0-9]{2}:[0-9]{2}"
# The patterns are compiled at their first use. This one: the three forms of RFC 9110, section 5.6.7; as urllib3 does,
# a one-digit day and "UTC" pass in the first.
_HTTP_DATE = (
    f"{_DAY}, [0-9]{{1,2}} {_MONTH} [0-9]{{4}} {_CLOCK} (?:GMT|UTC)"
    f"|{_LONG_DAY}, [0-9]{{2}}-{_MONTH}-[0-9]{{2}} {_CLOCK} GMT"
    f"|{_DAY} {_MONTH} (?:[0-9]{{2}}| [0-9]) {_CLOCK} [0-9]{{4}}"
)
_ITEM = (
    r'(?a)\s*(?:"(?P<quoted>[^"]{0,80})"|(?P<token>[A-Za-z*][\w.*:/-]{0,80}))(?P<parameters>(?:\s*;[^;,]{0,80})*)\s*'
)
_LEGACY_LIMIT = r"(?s)\s*([0-9]{1,15})\s*(?:,.*)?"
_LEGACY_WINDOW = r",\s*[0-9]{1,15}\s*;\s*w=([0-9]{1,15})\b"

_UNITS = {
    "ms": 0.001,
    "mil": 0.001,
    "s": 1.0,
    "sec": 1.0,
    "m": 60.0,
    "min": 60.0,
    "h": 3600.0,
    "hr": 3600.0,
    "hou": 3600.0,
    "d": 86_400.0,
}
_UNIT = r"(ms|milliseconds?|s|secs?|seconds?|m|mins?|minutes?|h|hrs?|hours?|d|days?)\b"
# "timed out after 900 seconds" names no moment: only what tells the caller to come back does.
_COME_BACK = (
    r"(?i)(?:(?<!after )(?<!on )\bretry(?:ing)?(?: again| your request| the request)?"
    r"|\b(?:try|come|send)(?: \w+)? (?:again|back|later)"
    r"|(?:^|[.,;:!(] ?|\b(?:please|must|should|need to|have to|and|or) )wait"
    r"|\bavailable again|\b(?:will be|becomes?|be back) available"
    r"|\b(?:resets|(?:limit|quota|window|counter|will|be) reset)"
    r"|\b(?:you|ip|address|account|client|key)(?: (?:are|is|was|were|has|have|will|be|been|temporarily)){1,3} blocked)"
    r"(?: (?:in|after|for|within))?(?: about| at least| the next| another)?"
    rf" ([0-9]{{1,9}}(?:\.[0-9]{{1,3}})?) ?{_UNIT}"
)
# 2.500 are 2,500 and never 500; and 0.5 are not 5.
_COUNT = r"(?<![0-9][.,])\b([0-9]{1,3}(?:[., ][0-9]{3}){1,4}(?![0-9])|[0-9]{1,15})"
_LIMIT_IN_TEXT = (
    rf"(?i){_COUNT} ?((?:[a-z]{{1,12}} ){{0,2}}(?:[a-z]{{1,12}} ?)?(?:/|\b(?:per|in|every|each|a|an|within)\b))"
    rf" ?(?:([0-9]{{1,6}}) ?)?{_UNIT}"
)
# "5 messages per second" is no limit of requests, and "error 429 in 5 seconds" none at all.
_OF_REQUESTS = r"(?i)(?:(?:api |http )?(?:requests?|calls?|hits?)\b|/|per\b)"
# What one user or one address may is not what a key may.
_OF_SOMEBODY = (
    r"(?i)\b(?:same|users?|visitors?|shoppers?|customers?|contacts|profiles?|subscribers?|recipients?|receivers?|senders?"
    r"|persons?|people|ips?|address(?:es)?|e-?mails?|phones?|mobiles?|msisdns?|devices?|sessions?|connections?"
    r"|identifiers?|uuids?|templates?|campaigns?|journeys?|segments?)\b"
    rf"|(?:\b(?:per|each|every)\b|;/)(?! ?(?:[0-9]+ ?)?{_UNIT})"
    r"(?! ?(?:api |auth )?(?:keys?|tokens?|accounts?|partners?|clients?|endpoints?)\b)"
)
_SENTENCE = r"[.!?;] "
# What was sent, or is left, or is too many, is no limit either.
_USED = r"(?i)\b(?:sent|made|received|got|used|seen|issued|left|remain(?:s|ing)?|over|above|beyond)\b"


def relevant(headers: object) -> dict[str, str]:
    """The fields of a reply that say when to come back, by lower-case name.

    Args:
        headers: A mapping with names in any case, or the headers of httpx or httpx2.

    Returns:
        What there is of them; values of a repeated field joined by a comma.
    """
    pairs = _pairs(headers)
    # Most replies say nothing of it, and are through with this.
    if _TELLING.isdisjoint([name.lower() for name, _ in pairs if isinstance(name, _TEXT)]):
        return {}
    found: dict[str, str] = {}
    for name, value in pairs:
        wanted = _WANTED.get(name.lower() if isinstance(name, _TEXT) else None)
        if wanted is not None:
            text = value.decode("latin-1") if isinstance(value, bytes) else str(value)
            found[wanted] = f"{found[wanted]}, {text}" if wanted in found else text
    return found


def _pairs(headers: object) -> Collection[tuple[Any, Any]]:
    if headers is None:
        return ()
    # httpx decodes every header when asked for one; its raw list is there already.
    raw: object = getattr(headers, "raw", None)
    if is_array(raw):
        return raw
    return list(headers.items()) if _is_mapping(headers) else ()


def _is_mapping(headers: object) -> TypeGuard[Mapping[Any, Any]]:
    return isinstance(headers, Mapping)


def retry_after(value: str, now: float) -> float | None:
    """Seconds from a ``Retry-After`` value (RFC 9110, section 10.2.3).

    Args:
        value: The field's value: digits, or a date in one of the three forms.
        now: The present, in seconds since the epoch.

    Returns:
        Seconds to wait, 86,400 at most; None for a moment that is past and for anything that is not in the RFC,
        such as a sign, a fraction or a list.
    """
    value = value.strip(" \t\r\n")
    if value.isascii() and value.isdigit():
        return _seconds(value)
    moment = http_date(value)
    if moment is None or moment <= now:
        return None
    return min(moment - now, LONGEST)


def http_date(value: str) -> float | None:
    """Seconds since the epoch from an HTTP-date; None if it is none."""
    value = value.strip(" \t\r\n")
    if not re.fullmatch(_HTTP_DATE, value):
        return None
    try:
        date = parsedate_to_datetime(value)
    except ValueError:  # 31 Feb, 25:00
        return None
    return (date if date.tzinfo else date.replace(tzinfo=UTC)).timestamp()


def from_headers(fields: Mapping[str, str], now: float | None) -> tuple[float | None, RateLimit | None]:
    """What the fields say of the wait and of the limit.

    Args:
        fields: Fields as :func:`relevant` returns them.
        now: The present, in seconds since the epoch; by default the reply's own ``Date``, or else this machine's clock.

    Returns:
        Seconds from ``Retry-After``, and the limit from the RateLimit fields. A malformed field counts as absent.
    """
    if now is None:
        now = http_date(fields.get("date", ""))
    now = time.time() if now is None else now
    limit = _structured(fields) or _three_fields(fields, "", now) or _three_fields(fields, "x-", now)
    return retry_after(fields.get("retry-after", ""), now), limit


def _structured(fields: Mapping[str, str]) -> RateLimit | None:
    """``RateLimit-Policy`` and ``RateLimit``, names quoted or not: of several policies the one with the least left."""
    policies = _items(fields.get("ratelimit-policy", ""))
    states = {name: state for name, state in _items(fields.get("ratelimit", "")).items() if "r" in state}
    if states:
        name, state = min(states.items(), key=lambda item: item[1]["r"])
        policy = policies.get(name) or (next(iter(policies.values())) if len(policies) == 1 else {})
        remaining, reset = state["r"], state.get("t")
    elif len(policies) == 1:
        policy, remaining, reset = next(iter(policies.values())), None, None
    else:
        return None
    return _limit(policy.get("q"), policy.get("w"), remaining, reset)


def _items(value: str) -> dict[str, dict[str, int]]:
    """``"default";r=50;t=30, "hourly";r=800`` → parameters by name; nothing at all if any of it is malformed."""
    items: dict[str, dict[str, int]] = {}
    for part in value[:1000].split(",") if value else ():
        item = re.fullmatch(_ITEM, part)
        if not item:
            return {}
        parameters: dict[str, int] = {}
        for parameter in item["parameters"].split(";")[1:]:
            key, _, number = parameter.strip().partition("=")
            if key in ("q", "w", "r", "t"):
                if not _is_number(number):
                    return {}
                parameters[key] = int(number)
        items[item["quoted"] or item["token"] or ""] = parameters
    return items


def _three_fields(fields: Mapping[str, str], prefix: str, now: float) -> RateLimit | None:
    """``RateLimit-Limit`` (``100`` or ``100, 100;w=10``), ``RateLimit-Remaining`` and ``RateLimit-Reset``."""
    limit = fields.get(prefix + "ratelimit-limit", "")
    remaining = fields.get(prefix + "ratelimit-remaining", "").strip()
    reset = fields.get(prefix + "ratelimit-reset", "").strip()
    count = re.fullmatch(_LEGACY_LIMIT, limit)
    window = re.search(_LEGACY_WINDOW, limit) if count else None
    seconds = int(reset) if _is_number(reset) else None
    if seconds is not None and seconds >= _EPOCH:  # GitHub's habit: a moment instead of a span
        moment = seconds / 1000 if seconds >= _EPOCH_MILLISECONDS else seconds
        seconds = max(0, round(moment - now))
    if not count and not _is_number(remaining) and seconds is None:
        return None
    return _limit(
        int(count[1]) if count else None,
        int(window[1]) if window else None,
        int(remaining) if _is_number(remaining) else None,
        seconds,
    )


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= _LONGEST_NUMBER


def _seconds(digits: str) -> float:
    digits = digits.lstrip("0") or "0"
    return min(float(digits), LONGEST) if len(digits) <= _LONGEST_NUMBER else LONGEST


def _limit(count: int | None, window: int | None, remaining: int | None, reset: int | None) -> RateLimit:
    return RateLimit(
        limit=count,
        window=min(float(window), LONGEST) if window else None,
        remaining=remaining,
        reset=None if reset is None else min(float(reset), LONGEST),
        explicit=remaining == 0 and reset is not None,
    )


def from_text(text: str) -> RateLimit | None:
    """The limit that a message speaks of.

    Args:
        text: A message, such as "30 Requests/minute is allowed" or "retry after 1 second".

    Returns:
        The limit and its window, and the seconds to wait where a moment is named; None if the message names neither.
        The window alone where it is not said plainly that so many requests are what all calls with a key may make.
    """
    come_back = re.search(_COME_BACK, text)
    # "429, try again in 5 seconds" is no limit of 429.
    rest = text.replace(come_back[0], ";") if come_back else text
    limit = re.search(_LIMIT_IN_TEXT, rest)
    found = RateLimit() if limit or come_back else None
    if found and limit:
        window = min(float(limit[3] or 1) * _unit(limit[4]), LONGEST)
        count = int(re.sub("[., ]", "", limit[1])) if _is_of_all(rest, limit) else None
        found = replace(found, limit=count, window=window, in_words=True)
    if found and come_back:
        reset = min(float(come_back[1]) * _unit(come_back[2]), LONGEST)
        found = replace(found, reset=reset, explicit=True)
    return found


def _is_of_all(text: str, limit: re.Match[str]) -> bool:
    """Whether a message says of a limit that it is one of requests, for all calls with a key together.

    To doubt one that is costs no more than what its window does; to believe one that is not slows all calls down.
    """
    # "Please contact your customer success manager" beside it says nothing of it.
    around = f"{re.split(_SENTENCE, text[: limit.start()])[-1]};{re.split(_SENTENCE, text[limit.end() :])[0]}"
    return (
        bool(re.match(_OF_REQUESTS, limit[2])) and not re.search(_OF_SOMEBODY, around) and not re.search(_USED, around)
    )


def merge(fields: RateLimit | None, text: RateLimit | None, told: float | None) -> RateLimit | None:
    """One limit out of what a rate-limited reply says in its RateLimit fields, in its text and in seconds to wait."""
    limit = fields or text
    if fields and text:
        in_words = text.in_words and not (fields.limit and fields.window)
        limit = replace(
            fields, limit=fields.limit or text.limit, window=fields.window or text.window, in_words=in_words
        )
    if told is not None:
        return replace(limit or RateLimit(), reset=told, explicit=True)
    if limit and limit.reset is not None and limit.remaining is None:
        # A refusal that names a reset means it, even if it does not say that nothing remains.
        return replace(limit, explicit=True)
    return limit


def _unit(name: str) -> float:
    name = name.lower()
    return _UNITS.get(name[:3]) or _UNITS[name[0]]
