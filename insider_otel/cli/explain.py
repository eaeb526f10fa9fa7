"""``insider-otel explain``: what a reply of Insider means and what to do about it."""

from __future__ import annotations

import argparse
import os
import sys
import textwrap
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import httpx

from insider_otel.api.classify import classify
from insider_otel.api.operations import Operation, find
from insider_otel.api.verdict import Fault, Retry, Verdict
from insider_otel.cli.documented_path import path_remark
from insider_otel.cli.output import UsageError, print_json
from insider_otel.cli.resending import Resending, resending

_NO_REPLY = "none"

FAULTS = {
    Fault.NONE: "nobody has to act",
    Fault.CALLER: "your side has to act",
    Fault.INSIDER: "Insider has to act",
    Fault.NETWORK: "look at what lies between you and Insider",
}
"""Who has to act, in words."""

_RETRIES = {
    Retry.NEVER: "the same request would get the same answer",
    Retry.BACKOFF: "try again at a random moment of the next five minutes",
    Retry.AFTER_WINDOW: "try again when the window of the rate limit is over",
}
_SPREAD_BY_INSIDER = frozenset({500, 503, 504, 520})
"""Statuses after which Insider's documentation asks for a retry spread over five minutes."""
_LABEL_WIDTH = 10


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``insider-otel``."""
    parser = commands.add_parser(
        "explain",
        help="say what a reply means and what to do",
        description="Say what a reply of Insider means and what to do about it.",
        epilog="""example: insider-otel explain 403 '{"message": "Too many attempts"}' --header 'Retry-After: 30'""",
    )
    parser.add_argument(
        "status",
        help="the HTTP status; none if it is not known, or if there was no reply; or an httpx exception: ReadTimeout",
    )
    parser.add_argument("body", nargs="?", default="", help="the reply's body; - reads it from standard input")
    parser.add_argument(
        "--header", action="append", default=[], metavar="'NAME: VALUE'", help="a header of the reply; may be repeated"
    )
    parser.add_argument(
        "--url",
        help="the URL that was called: the same reply can mean two things on two hosts, and not every operation may be "
        "sent twice",
    )
    parser.add_argument("--method", help="the HTTP method of the call to --url (default: POST)")
    parser.add_argument("--json", action="store_true", help="print the verdict as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    headers = _headers(arguments.header)
    url = _url(arguments.url)
    operation = _operation(arguments.method, url)
    path = _path_remark(operation, arguments.method, url)
    body = sys.stdin.buffer.read() if arguments.body == "-" else os.fsencode(arguments.body)
    status, exception = _status(arguments.status, body)
    verdict = classify(status, body, headers=headers, url=None if url is None else arguments.url, exception=exception)
    after = resending(operation, verdict, status=status, exception=exception) if operation else None
    if arguments.json:
        print_json(asdict(verdict) | _facts(operation, after) | ({"path": path} if path else {}))
    else:
        for line in _lines(verdict, status, operation, path, after):
            print(line)
    return 0


def _operation(method: str | None, url: httpx.URL | None) -> Operation | None:
    if url is None:
        if method is not None:
            raise UsageError("--method says nothing without --url")
        return None
    return find(_method(method), url.host.lower(), url.path)


def _path_remark(operation: Operation | None, method: str | None, url: httpx.URL | None) -> str | None:
    if operation is None or url is None:
        return None
    return path_remark(operation, _method(method), url.host.lower(), url.path)


def _method(given: str | None) -> str:
    return (given or "POST").upper()


def _facts(operation: Operation | None, after: Resending | None) -> dict[str, Any]:
    if operation is None or after is None:
        return {}
    return {"operation": operation.name, "resend": operation.resend, "resends": after.resends}


def _status(text: str, body: bytes) -> tuple[int | None, Exception | None]:
    if text.lower() == _NO_REPLY:
        # A body without a status is a reply out of a log; without either there was none.
        return None, None if body else httpx.TransportError("")
    if text.isascii() and text.isdigit():
        status = int(text)
        if 100 <= status <= 599:
            return status, None
        raise UsageError(f"STATUS is {text}; an HTTP status is a number from 100 to 599")
    name = text.rpartition(".")[2]
    kind = getattr(httpx, name, None)
    if isinstance(kind, type) and issubclass(kind, httpx.TransportError):
        return None, kind("")
    raise UsageError(
        f"STATUS is {text!r}; it accepts an HTTP status (403), {_NO_REPLY}, "
        "or the name of an httpx transport exception (ReadTimeout)"
    )


def _headers(lines: Sequence[str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        name, value = name.strip(), value.strip()
        if not colon or not name:
            raise UsageError(f"--header is {line!r}; it accepts 'Name: value'")
        # Lines of one name are one list (RFC 9110, section 5.3).
        headers[name.lower()] = f"{headers[name.lower()]}, {value}" if name.lower() in headers else value
    return headers


def _url(text: str | None) -> httpx.URL | None:
    if text is None:
        return None
    try:
        url = httpx.URL(text)
    except httpx.InvalidURL as error:
        raise UsageError(f"--url cannot be read: {error}") from None
    if url.scheme not in ("http", "https") or not url.host:
        raise UsageError("--url accepts a whole URL, such as https://mail.useinsider.com/mail/v1/send")
    return url


def _lines(
    verdict: Verdict, status: int | None, operation: Operation | None, path: str | None, after: Resending | None
) -> list[str]:
    facts = {
        "operation": operation and operation.name,
        "path": path,
        "category": verdict.category,
        "rule": verdict.rule,
        "fault": f"{verdict.fault}: {FAULTS[verdict.fault]}",
        "retry": f"{verdict.retry}: {_retry_words(verdict, status, after)}",
        "resend": after and after.words,
        "message": verdict.message,
        "code": verdict.code,
        "field": verdict.field,
        "records": _records(verdict),
        "limit": _limit(verdict),
        "wait": None if verdict.retry_after is None else f"{verdict.retry_after:g} s",
        "advice": verdict.advice,
    }
    lines: list[str] = []
    for label, fact in facts.items():
        if fact:
            indent = " " * (_LABEL_WIDTH + 2)
            wrapped = textwrap.wrap(str(fact), width=100, initial_indent=indent, subsequent_indent=indent)
            lines += [f"{label:<{_LABEL_WIDTH}}  {wrapped[0].lstrip()}", *wrapped[1:]] if wrapped else []
    return lines


def _retry_words(verdict: Verdict, status: int | None, after: Resending | None) -> str:
    if verdict.ok:
        return "no need to, Insider has it"
    if after is not None and after.resends is False:
        return "it may succeed later; whether to send it again is for you to decide"
    words = _RETRIES[verdict.retry]
    return f"{words}, as Insider asks" if verdict.retry is Retry.BACKOFF and status in _SPREAD_BY_INSIDER else words


def _records(verdict: Verdict) -> str | None:
    counts = {"accepted": verdict.accepted, "failed": verdict.failed}
    return ", ".join(f"{count} {name}" for name, count in counts.items() if count is not None) or None


def _limit(verdict: Verdict) -> str | None:
    told = verdict.rate_limit
    if told is None:
        return None
    facts = (
        (told.limit, "{} allowed"),
        (told.window, "in {:g} s"),
        (told.remaining, "{} left"),
        (told.reset, "more in {:g} s"),
    )
    return ", ".join(words.format(value) for value, words in facts if value is not None) or None
