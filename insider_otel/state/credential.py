"""Whose limit a request counts against, and whose content it is, without keeping the credential itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import cast
from urllib.parse import parse_qsl

from insider_otel.api.operations import Operation

NOBODY = b"\0" * 16
"""The owner of what is sent without credentials: all such calls of an operation share its limit."""

_PARTNER = "X-PARTNER-NAME"
_IN_BODY = "body:"
_LONGEST_BODY = 1024 * 1024


def owner_of(operation: Operation, headers: Mapping[str, str], body: bytes | None) -> bytes | None:
    """Whose limit a request counts against: a hash of its credentials, the same in every process.

    Args:
        operation: Says which headers, or fields of the body, carry credentials.
        headers: The request's headers; a mapping that ignores case.
        body: The request's body; None if it cannot be read twice.

    Returns:
        16 bytes: ``NOBODY`` if the operation has no credentials; None if they are in the body and cannot be read there,
        so that nobody can say whose request it is. Headers that are missing are not: a proxy may add them.
    """
    if not operation.credentials:
        return NOBODY
    from_headers, from_body = _credentials(operation, headers, body)
    if from_body and not _complete(from_headers) and not _complete(from_body):
        return None
    return _digest(b"insider-otel", headers, from_headers, from_body)


def content_secret(operation: Operation, headers: Mapping[str, str], body: bytes | None) -> bytes | None:
    """What to key the hashes of content with, so that who reads a store cannot try out what was sent.

    It comes from the credentials, so all who send with them have it, and no store ever sees it.

    Args:
        operation: As for ``owner_of``, and so are ``headers`` and ``body``.
        headers: The request's headers.
        body: The request's body.

    Returns:
        16 bytes; None if the request has no credentials.
    """
    from_headers, from_body = _credentials(operation, headers, body)
    if not _complete(from_headers) and not _complete(from_body):
        return None
    return _digest(b"insider-secret", headers, from_headers, from_body)


def _credentials(operation: Operation, headers: Mapping[str, str], body: bytes | None) -> tuple[list[str], list[str]]:
    """The values in the headers and in the body, empty where they are missing; where both may be, either will do."""
    fields = [name.removeprefix(_IN_BODY) for name in operation.credentials if name.startswith(_IN_BODY)]
    from_headers = [headers.get(name, "") for name in operation.credentials if not name.startswith(_IN_BODY)]
    return from_headers, _values(fields, body) if fields else []


def _complete(values: list[str]) -> bool:
    return bool(values) and all(values)


def _digest(purpose: bytes, headers: Mapping[str, str], from_headers: list[str], from_body: list[str]) -> bytes:
    # No key that all processes would have to share is needed to keep the credential a secret: its token is long and
    # random, so nobody finds it by trying. The partner's name could be guessed; it is hashed together with the token.
    digest = hashlib.blake2b(person=purpose, digest_size=16)
    for value in (headers.get(_PARTNER, ""), *from_headers, *from_body):
        encoded = value.encode("utf-8", "surrogatepass")
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()


def _values(names: list[str], body: bytes | None) -> list[str]:
    """Fields of a body; empty where they are missing."""
    members: Mapping[str, object] = {}
    if body is not None and len(body) <= _LONGEST_BODY:
        try:
            value: object = json.loads(body)
            members = cast("dict[str, object]", value) if isinstance(value, dict) else {}
        except (ValueError, RecursionError):
            # OAuth asks for its token with a form.
            members = dict(parse_qsl(body.decode("ascii", "replace")))
    return [value if isinstance(value := members.get(name), str) else "" for name in names]
