"""Whose limit a request counts against, and whose content it is, without keeping the credential itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, cast
from urllib.parse import parse_qsl

from insider_otel.api.operations import IN_BODY, Operation

if TYPE_CHECKING:
    import httpx

NOBODY = b"\0" * 16
"""The owner of what is sent without credentials: all such calls of an operation share its limit."""

_PARTNER = b"x-partner-name"
_LONGEST_BODY = 1024 * 1024


class Credentials:
    """The credentials of one request, read once.

    Args:
        operation: Says which headers, or fields of the body, carry credentials; where both may, either will do.
        headers: The request's headers.
        body: The request's body; None if it cannot be read twice.
    """

    __slots__ = ("_from_body", "_from_headers", "_partner")

    def __init__(self, operation: Operation, headers: httpx.Headers, body: bytes | None) -> None:
        names, fields = _places(operation.credentials)
        # The raw ones: asking httpx for one by its name makes it decode them all.
        sent = {name.lower(): value for name, value in headers.raw} if operation.credentials else {}
        # Empty where they are missing.
        self._partner = sent.get(_PARTNER, b"")
        self._from_headers = [sent.get(name, b"") for name in names]
        self._from_body = _values(fields, body) if fields else []

    def owner(self) -> bytes | None:
        """Whose limit the request counts against: a hash of its credentials, the same in every process.

        Returns:
            16 bytes: ``NOBODY`` if the operation has no credentials; None if they are in the body and cannot be read
            there, so that nobody can say whose request it is. Headers that are missing are not: a proxy may add them.
        """
        if not self._from_headers and not self._from_body:
            return NOBODY
        if self._from_body and not self._are_complete():
            return None
        return self._digest(b"insider-otel")

    def content_secret(self) -> bytes | None:
        """What to key the hashes of content with, so that who reads a store cannot try out what was sent.

        It comes from the credentials, so all who send with them have it, and no store ever sees it.

        Returns:
            16 bytes; None if the request has no credentials.
        """
        return self._digest(b"insider-secret") if self._are_complete() else None

    def _are_complete(self) -> bool:
        return _complete(self._from_headers) or _complete(self._from_body)

    def _digest(self, purpose: bytes) -> bytes:
        # No key that all processes would have to share is needed to keep the credential a secret: its token is long and
        # random, so nobody finds it by trying. The partner's name could be guessed; it is hashed together with the
        # token.
        message = b""
        for value in (self._partner, *self._from_headers, *self._from_body):
            message += len(value).to_bytes(4, "big") + value
        return hashlib.blake2b(message, person=purpose, digest_size=16).digest()


def _complete(values: list[bytes]) -> bool:
    return bool(values) and all(values)


@cache
def _places(credentials: tuple[str, ...]) -> tuple[tuple[bytes, ...], tuple[str, ...]]:
    """The headers, in lower case, and the fields of the body that carry an operation's credentials."""
    headers = tuple(name.lower().encode() for name in credentials if not name.startswith(IN_BODY))
    fields = tuple(name.removeprefix(IN_BODY) for name in credentials if name.startswith(IN_BODY))
    return headers, fields


def _values(names: tuple[str, ...], body: bytes | None) -> list[bytes]:
    """Fields of a body; empty where they are missing."""
    members: Mapping[str, object] = {}
    if body is not None and len(body) <= _LONGEST_BODY:
        try:
            value: object = json.loads(body)
            members = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        except (ValueError, RecursionError):
            # OAuth asks for its token with a form.
            members = dict(parse_qsl(body.decode("ascii", "replace")))
    found = (value if isinstance(value := members.get(name), str) else "" for name in names)
    return [value.encode("utf-8", "surrogatepass") for value in found]
