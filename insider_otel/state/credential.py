"""Whose limit a request counts against, without keeping the credential itself."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping
from typing import cast
from urllib.parse import parse_qsl

from insider_otel.api.operations import Operation

# New for each process: a fingerprint is good for comparing within it and for nothing else.
_KEY = secrets.token_bytes(32)
_PARTNER = "X-PARTNER-NAME"
_IN_BODY = "body:"
_LONGEST_BODY = 1024 * 1024


def fingerprint(operation: Operation, headers: Mapping[str, str], body: bytes | None) -> bytes | None:
    """A keyed hash of the credentials of a request.

    Args:
        operation: Says which headers, or fields of the body, carry credentials.
        headers: The request's headers; a mapping that ignores case.
        body: The request's body; None if it cannot be read twice.

    Returns:
        The fingerprint; None if the credentials are not to be had, so that nobody can say whose request it is.
    """
    if not operation.credentials:
        return None
    in_body = any(name.startswith(_IN_BODY) for name in operation.credentials)
    fields: Mapping[str, object] = _fields(body) if in_body else {}
    digest = hashlib.blake2b(key=_KEY, digest_size=16)
    for name in (_PARTNER, *operation.credentials):
        value = fields.get(name.removeprefix(_IN_BODY)) if name.startswith(_IN_BODY) else headers.get(name, "")
        if not isinstance(value, str):
            return None
        encoded = value.encode()
        digest.update(len(encoded).to_bytes(4, "big") + encoded)
    return digest.digest()


def _fields(body: bytes | None) -> Mapping[str, object]:
    if body is None or len(body) > _LONGEST_BODY:
        return {}
    try:
        value: object = json.loads(body)
    except (ValueError, RecursionError):
        # OAuth asks for its token with a form.
        return dict(parse_qsl(body.decode("ascii", "replace")))
    return cast("dict[str, object]", value) if isinstance(value, dict) else {}
