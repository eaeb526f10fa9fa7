"""Whose limit a request counts against, and whose content it is, without keeping the credential itself."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import cast
from urllib.parse import parse_qsl

from insider_otel.api.operations import Operation

OWNER = b"insider-otel"
"""Names a pool's owner: every store sees this fingerprint."""

CONTENT = b"insider-secret"
"""Keys the hashes of content: no store sees this fingerprint, so that who reads a store cannot try what was sent."""

NOBODY = b"\0" * 16
"""The owner of what is sent without credentials: all such calls of an operation share its limit."""

_PARTNER = "X-PARTNER-NAME"
_IN_BODY = "body:"
_LONGEST_BODY = 1024 * 1024


def fingerprint(
    operation: Operation, headers: Mapping[str, str], body: bytes | None, purpose: bytes = OWNER
) -> bytes | None:
    """A hash of the credentials of a request, the same in every process.

    Args:
        operation: Says which headers, or fields of the body, carry credentials. Where both do, either will do.
        headers: The request's headers; a mapping that ignores case.
        body: The request's body; None if it cannot be read twice.
        purpose: ``OWNER`` or ``CONTENT``: fingerprints of different purposes do not tell of each other.

    Returns:
        16 bytes: the fingerprint, or ``NOBODY`` if the operation has no credentials. Requests without the headers, such
        as a proxy may add, have one fingerprint. None if a body does not show its credentials, so that nobody can say
        whose it is.
    """
    if not operation.credentials:
        return NOBODY
    fields = [name.removeprefix(_IN_BODY) for name in operation.credentials if name.startswith(_IN_BODY)]
    from_headers = [headers.get(name, "") for name in operation.credentials if not name.startswith(_IN_BODY)]
    from_body = _values(fields, body) if fields else []
    if not all(from_body) and not (from_headers and all(from_headers)):
        return None
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
