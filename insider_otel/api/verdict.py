"""The words for what a reply from Insider means."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Category(StrEnum):
    """What a reply, or the lack of one, means."""

    SUCCESS = "success"
    ACCEPTED = "accepted"
    PARTIAL_FAILURE = "partial_failure"
    DUPLICATE = "duplicate"
    VALIDATION = "validation"
    PAYLOAD_LIMIT = "payload_limit"
    AUTHENTICATION = "authentication"
    PERMISSION = "permission"
    CONFIGURATION = "configuration"
    VERIFICATION = "verification"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    RATE_LIMIT = "rate_limit"
    DEPENDENCY = "dependency"
    SERVER_ERROR = "server_error"
    UNAVAILABLE = "unavailable"
    TIMEOUT = "timeout"
    NETWORK = "network"
    UNEXPECTED = "unexpected"


class Fault(StrEnum):
    """Who has to act."""

    NONE = "none"
    CALLER = "caller"
    INSIDER = "insider"
    NETWORK = "network"


class Retry(StrEnum):
    """Whether sending the same request again can help."""

    NEVER = "never"
    BACKOFF = "backoff"
    AFTER_WINDOW = "after_window"


FAULT_OF = {
    Category.SUCCESS: Fault.NONE,
    Category.ACCEPTED: Fault.NONE,
    Category.PARTIAL_FAILURE: Fault.CALLER,
    Category.DUPLICATE: Fault.NONE,
    Category.VALIDATION: Fault.CALLER,
    Category.PAYLOAD_LIMIT: Fault.CALLER,
    Category.AUTHENTICATION: Fault.CALLER,
    Category.PERMISSION: Fault.CALLER,
    Category.CONFIGURATION: Fault.CALLER,
    # A shopper mistyped a one-time code: nobody is to be paged for it.
    Category.VERIFICATION: Fault.NONE,
    Category.NOT_FOUND: Fault.CALLER,
    Category.CONFLICT: Fault.CALLER,
    Category.RATE_LIMIT: Fault.CALLER,
    Category.DEPENDENCY: Fault.INSIDER,
    Category.SERVER_ERROR: Fault.INSIDER,
    Category.UNAVAILABLE: Fault.INSIDER,
    Category.TIMEOUT: Fault.INSIDER,
    Category.NETWORK: Fault.NETWORK,
    Category.UNEXPECTED: Fault.INSIDER,
}
"""Who has to act, by category; a row of ``responses.toml`` may say otherwise."""


@dataclass(frozen=True, slots=True)
class RateLimit:
    """What a reply says of the limit it was judged by.

    Attributes:
        limit: Requests (or quota units) allowed in one window.
        window: Length of the window in seconds.
        remaining: Requests left in the current window.
        reset: Seconds until more are allowed.
        explicit: Whether the reply names a moment to come back at
            (``Retry-After``, a reset, "retry after 1 second") and not just the length of a window.
        cost: What the request took of the limit, where the reply tells (quota units of profile reads).
        in_words: Whether limit or window stand in a message for people, and not in a field made for programs.
    """

    limit: int | None = None
    window: float | None = None
    remaining: int | None = None
    reset: float | None = None
    explicit: bool = False
    cost: int | None = None
    in_words: bool = False


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one reply of Insider, or one exception in its place, means.

    Attributes:
        category: The meaning, by which alerts and code should decide.
        rule: Which rule said so: a row of ``responses.toml``, ``status.503``, ``exception.ReadTimeout`` …
        fault: Who has to act.
        retry: Whether the same request can succeed later.
        message: What Insider said, safe to export: no e-mail, phone, key or token in it. Empty if it said nothing.
        code: Insider's own error code, where the envelope has one.
        field: The field of the request that Insider names, where it names one.
        accepted: Records Insider says it took.
        failed: Records Insider says it did not take.
        retry_after: Seconds to wait before the next request, from ``Retry-After``, a rate-limit field or the text.
        advice: What to do about it, in one or two sentences.
        rate_limit: The limit the reply tells of, if it tells of one.
    """

    category: Category
    rule: str
    fault: Fault
    retry: Retry
    message: str = ""
    code: str | None = None
    field: str | None = None
    accepted: int | None = None
    failed: int | None = None
    retry_after: float | None = None
    advice: str = ""
    rate_limit: RateLimit | None = None

    @property
    def ok(self) -> bool:
        """Whether Insider has what it was sent: success, accepted, or a duplicate of what it already has."""
        return self.category in _OK


_OK = frozenset({Category.SUCCESS, Category.ACCEPTED, Category.DUPLICATE})
