"""Insider itself: what it answers to a request that reaches it, and what it remembers."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

from insider_otel.api.operations import ANY_HOST, IN_BODY, Limit, Operation, find, hosts, operations_by_name
from insider_otel.policy.setting_checks import read_limit
from insider_otel.testing._account import Account
from insider_otel.testing._answers import Ask, answer
from insider_otel.testing._checks import Refused, check_credentials, check_records, given_credentials, read_body
from insider_otel.testing._dialects import refusal
from insider_otel.testing._documented import documented_reply
from insider_otel.testing._limits import Windows
from insider_otel.testing._names import known
from insider_otel.testing._wire import Reply, Request, as_dict

_DUPLICATE = "duplicate_within_15_minutes"


class Insider:
    """One account of Insider.

    Args:
        clock: Tells the time in seconds since 1970.
        credentials: The right values, by name; any value is right for one that is not named.
        limits: Limits by pool, in place of the documented ones.
        retry_after: Whether a reply to one request too many says when to come back.
        duplicate_status: Status of the reply to a duplicate.

    Raises:
        ValueError: A limit cannot be read, or its pool does not exist.
    """

    def __init__(
        self,
        clock: Callable[[], float],
        credentials: Mapping[str, str],
        limits: Mapping[str, str | Limit | None],
        retry_after: bool,
        duplicate_status: int,
    ) -> None:
        self._clock = clock
        self._credentials = {name.lower(): value for name, value in credentials.items()}
        self._limits = {pool: _limit(pool, limit) for pool, limit in limits.items()}
        self._retry_after = retry_after
        self._duplicate = replace(documented_reply(_DUPLICATE), status=duplicate_status)
        self.account = Account()
        self._windows = Windows()

    def forget(self) -> None:
        """Back to an empty account with unused limits."""
        self.account = Account()
        self._windows = Windows()

    def answer(self, operation: Operation, request: Request) -> tuple[Reply, bool]:
        """What Insider answers, and whether it took the request: not if it refused it, nor if it was a duplicate.

        Args:
            operation: The operation called.
            request: The request.
        """
        if operation.name == "unlisted" or not _is_exact(operation.path, request.path):
            return Reply.of(404, "404 page not found"), False
        try:
            return self._answer(operation, request)
        except Refused as refused:
            return refused.reply, False

    def _answer(self, operation: Operation, request: Request) -> tuple[Reply, bool]:
        if not any(name.startswith(IN_BODY) for name in operation.credentials):
            check_credentials(operation, request, None, self._credentials)
        payload = read_body(operation, request)
        check_credentials(operation, request, payload, self._credentials)
        check_records(operation, payload)
        whose = json.dumps(given_credentials(operation, request, payload), sort_keys=True)
        now = self._clock()
        pool = operation.pool
        limit = self._limits.get(pool, operation.limit)
        used = 0.0
        if limit is not None:
            wait = self._windows.wait(pool, whose, limit, now)
            if wait is not None:
                return self._too_many(operation, wait), False
            used = self._windows.used(pool, whose, limit, now)
        seen = (operation.name, whose, _digest(payload))
        ask = Ask(replace(operation, limit=limit), request, payload, self.account, now, used)
        duplicate = self._is_duplicate(operation, seen, now)
        reply = self._duplicate if duplicate else answer(ask)
        taken = reply.status < 300 and not duplicate
        if limit is not None and (taken or limit.counts_failures):
            self._windows.use(pool, whose, now, ask.cost)
        if taken and operation.duplicate_window is not None:
            self.account.seen[seen] = now
        return reply, taken

    def _is_duplicate(self, operation: Operation, seen: tuple[str, str, str], now: float) -> bool:
        moment = self.account.seen.get(seen)
        window = operation.duplicate_window
        return moment is not None and window is not None and now - moment < window

    def _too_many(self, operation: Operation, wait: float) -> Reply:
        reply = refusal(operation, "too_many_requests") or documented_reply("rate_limit_exceeded")
        if self._retry_after:
            return replace(reply, headers={**reply.headers, "retry-after": str(max(1, math.ceil(wait)))})
        return reply


def operation_of(request: Request) -> Operation:
    """The operation that a request calls: by its host, or by its path alone if the host is none of Insider's.

    Args:
        request: The request.
    """
    host = request.host if request.host in hosts() else ANY_HOST
    # Every Insider host, and "*", finds something.
    operation = cast("Operation", find(request.method, host, request.path))
    # The one path that two hosts share; a WhatsApp message is in a list, a short message is not.
    if host == ANY_HOST and operation.name == "sms.send" and "messages" in as_dict(request.json()):
        return operations_by_name()["whatsapp.send"]
    return operation


def _limit(pool: str, limit: str | Limit | None) -> Limit | None:
    first = known(operations_by_name(), pool, "pool", "a pool has the name of its first operation")
    if first.pool != pool:
        raise ValueError(f"limit of {pool!r}: it shares the limit of {first.pool!r}, set that")
    return read_limit(limit, first.limit)


def _digest(payload: Any) -> str:
    """A digest of a request's content, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()


def _is_exact(template: str, path: str) -> bool:
    """Whether a path is the documented one to the letter: Insider need not forgive what ``find`` forgives."""
    if "{" not in template:
        return path == template
    pattern = re.sub(r"\\\{(\\\+)?[a-z_]+\\\}", lambda match: ".+" if match[1] else "[^/]+", re.escape(template))
    return re.fullmatch(pattern, path) is not None
