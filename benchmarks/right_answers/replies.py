"""The replies that are put to everybody, and what is right: said by the documentation, never by a classifier."""

from __future__ import annotations

from dataclasses import dataclass

from tests.api.documented import DOCUMENTED as _DOCUMENTED

_NOT_A_FAILURE = frozenset({"success", "accepted", "duplicate"})
_DUPLICATE_STATUS = 504
"""The duplicate reply has no documented status of its own; it stands with this one."""


@dataclass(frozen=True, slots=True)
class Reply:
    """One reply, and what is true of it.

    Attributes:
        name: Its id, or its status and what is special about it.
        status: Its HTTP status.
        body: Its body.
        retry: Whether the same request can succeed later.
        failed: Whether Insider does not have all that it was sent.
        headers: Its headers.
        source: Who says so.
    """

    name: str
    status: int
    body: str
    retry: bool
    failed: bool
    headers: tuple[tuple[str, str], ...] = ()
    source: str = ""


DOCUMENTED = tuple(
    Reply(
        name=row.id,
        status=row.status or _DUPLICATE_STATUS,
        body=row.body,
        retry=row.retry != "never",
        failed=row.category not in _NOT_A_FAILURE,
        source="Insider's page of API status codes and sample responses",
    )
    for row in _DOCUMENTED
)
"""Insider's 97 documented responses."""


def _lost(name: str, body: str) -> Reply:
    source = "Insider's public Postman collection"
    return Reply(name, 200, body, retry=False, failed=True, source=source)


LOST = (
    _lost("upsert: one user of three", '{"data": {"successful": {"count": 2}, "fail": {"count": 1, "errors": {}}}}'),
    _lost("upsert: all users", '{"data": {"successful": {}, "fail": {"count": 3}}}'),
    _lost(
        "catalog: all items",
        '{"success": true, "message": {"valid": {"count": 0}, "invalid": {"count": 2, "details": []}}}',
    ),
    _lost("push: user not found", '{"successes": [], "errors": {"NoUserFound": [{"uuid": "42"}]}}'),
    _lost(
        "SMS: one number of two",
        '{"message": "Accepted", "messageIds": [{"phoneNumber": "+905550000001", "messageSid": "s"}],'
        ' "errors": [{"field": "messages[1].phoneNumber", "error": "invalid phone number"}]}',
    ),
    _lost("live activity: two skipped", '{"activity_id": "a", "skipped": {"no_token": ["u1", "u2"]}}'),
    _lost("live activity: 40 not processed", '{"partial": true, "unprocessed_insider_id_count": 40}'),
)
"""Replies with status 200 that lost records: none of the 97 is such a one."""


def _standard(name: str, status: int, source: str, *, retry: bool, body: str = "", wait: str | None = None) -> Reply:
    headers = () if wait is None else (("Retry-After", wait),)
    return Reply(name, status, body, retry=retry, failed=True, headers=headers, source=source)


_PROXY = "<html><head><title>502 Bad Gateway</title></head><body><center>cloudflare</center></body></html>"
STANDARD = (
    _standard("408", 408, "RFC 9110, 15.5.9", retry=True),
    _standard("410", 410, "RFC 9110, 15.5.11", retry=False),
    _standard("413 with Retry-After", 413, "RFC 9110, 15.5.14", retry=True, wait="30"),
    _standard("425", 425, "RFC 8470, 5.2", retry=True),
    _standard("429 without a body", 429, "RFC 6585, 4", retry=True),
    _standard("429 of a proxy", 429, "RFC 6585, 4", retry=True, body="error code: 1015"),
    _standard("501", 501, "RFC 9110, 15.6.2", retry=False),
    _standard("502, a page of a proxy", 502, "RFC 9110, 15.6.3", retry=True, body=_PROXY),
    _standard("505", 505, "RFC 9110, 15.6.6", retry=False),
    _standard("521", 521, "Cloudflare: the origin is down", retry=True),
    _standard("522", 522, "Cloudflare: the connection timed out", retry=True),
    _standard("524", 524, "Cloudflare: a timeout occurred", retry=True),
)
"""Replies that Insider does not document, but a standard does or the proxy before it."""
