"""Whose limit a request counts against, without keeping the credential itself."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Mapping

from insider_otel.api.operations import Operation

# New for each process: a fingerprint is good for comparing within it and for nothing else.
_KEY = secrets.token_bytes(32)
_PARTNER = "x-partner-name"


def fingerprint(operation: Operation, headers: Mapping[str, str]) -> bytes:
    """A keyed hash of the credential headers of a request.

    Args:
        operation: Says which headers carry credentials.
        headers: The request's headers; a mapping that ignores case.
    """
    digest = hashlib.blake2b(key=_KEY, digest_size=16)
    for name in (_PARTNER, *operation.credentials):
        value = headers.get(name, "").encode()
        digest.update(len(value).to_bytes(4, "big") + value)
    return digest.digest()
