"""Insider's endpoints under stable names: ``operations.toml``, and what finds an operation from a request."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Resend(StrEnum):
    """When the same request may be sent a second time."""

    IDEMPOTENT = "idempotent"
    """Always: twice is the same as once."""
    WINDOW = "window"
    """After no answer only while Insider's duplicate window holds a repeat back."""
    ANSWERED = "answered"
    """Only after an answer that says "not processed" (500, 503, 504, 520); never after silence."""
    NEVER = "never"
    """Not at all."""


@dataclass(frozen=True, slots=True)
class Limit:
    """A documented rate limit.

    Attributes:
        count: Requests, or quota units, allowed in one window.
        window: Seconds.
        calendar: Whether the window is a UTC calendar day instead of a rolling one.
        unit: What is counted: ``request`` or ``quota``.
    """

    count: int
    window: float
    calendar: bool = False
    unit: str = "request"


@dataclass(frozen=True, slots=True)
class Operation:
    """One Insider endpoint.

    Attributes:
        name: Stable name, for instance ``user.upsert``.
        product: The group it belongs to, for instance ``unification``.
        methods: HTTP methods it answers to.
        host: Its host.
        path: Path template, as in ``url.template``: ``/v1/journey/{id}``.
        pool: Name of the operations' pool that shares ``limit``; the name of the pool's first operation.
        limit: Documented limit of the pool; the lower one where sources disagree.
        max_records: Records allowed in one request.
        max_bytes: Bytes allowed in one request body.
        max_record_bytes: Bytes allowed in one record.
        resend: When it may be sent twice.
        duplicate_window: Seconds in which Insider ignores the same content for the same user.
        deferrable: Whether it makes sense to send it later.
        credentials: Names of the headers, and ``body:api_key``-like paths, that carry the credentials.
        source: The document that says so.
        note: What else the sources say, such as a second figure.
    """

    name: str
    product: str
    methods: tuple[str, ...]
    host: str
    path: str
    pool: str
    limit: Limit | None = None
    max_records: int | None = None
    max_bytes: int | None = None
    max_record_bytes: int | None = None
    resend: Resend = Resend.ANSWERED
    duplicate_window: float | None = None
    deferrable: bool = False
    credentials: tuple[str, ...] = ()
    source: str = ""
    note: str = ""


def operations() -> tuple[Operation, ...]:
    """Every documented operation, in the order of ``operations.toml``."""
    raise NotImplementedError


def hosts() -> frozenset[str]:
    """Every documented Insider host, lower case."""
    raise NotImplementedError


def find(method: str, host: str, path: str) -> Operation | None:
    """The operation that answers ``method`` and ``path`` on ``host``.

    Args:
        method: HTTP method, upper case.
        host: An Insider host in lower case, or ``*`` for any of them.
        path: Path without the query.

    Returns:
        The documented operation; an ``unlisted`` one for a path that is not documented (product named after the host,
        resend safety by the method's idempotency as RFC 9110 defines it); None if ``host`` is no Insider host.
    """
    raise NotImplementedError
