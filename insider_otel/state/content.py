"""Whether two requests say the same: a keyed hash of what they ask for, from which nobody can tell what that is.

A JSON body counts by its meaning: the order of keys, white space, escapes and the spelling of numbers do not matter.
Any other body counts by its bytes, and so does one whose meaning is not clear, such as an object that has a key twice.
"""

from __future__ import annotations

import hashlib
import json
from typing import NoReturn

from insider_otel.api.operations import Operation

_LONGEST_JSON = 1024 * 1024
"""Bytes. A longer body counts by its bytes: reading it would hold up an event loop for a tenth of a second and more."""

_NUL = "\0"
# The escape with which valid JSON spells a NUL. An escaped backslash before "u0000" looks the same, which is harmless.
_NUL_ESCAPE = b"\\u0000"


def content_key(
    operation: Operation, secret: bytes, url_path_and_query: bytes | str, content_type: str | None, body: bytes
) -> bytes:
    """A keyed hash of what a request asks for.

    Args:
        operation: The operation called.
        secret: A secret of the account, up to 64 bytes: the same content of another account is another content.
        url_path_and_query: The URL's path and query as sent.
        content_type: The request's ``Content-Type``; None if it has none.
        body: The request's body.

    Returns:
        16 bytes.
    """
    target = url_path_and_query.encode() if isinstance(url_path_and_query, str) else url_path_and_query
    meaning = canonical_json(body) if _may_be_json(content_type) else None
    # A body by its bytes never equals one by its meaning, though the text should be the same.
    parts = (operation.name.encode(), target, b"bytes" if meaning is None else b"json")
    digest = hashlib.blake2b(key=secret, person=b"insider-content", digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "big") + part)
    digest.update(body if meaning is None else meaning)
    return digest.digest()


def canonical_json(body: bytes) -> bytes | None:
    """A spelling that all JSON bodies of the same meaning have in common.

    Args:
        body: The body.

    Returns:
        The spelling; None if the body is no JSON, or its meaning is not clear.
    """
    if len(body) > _LONGEST_JSON or _NUL_ESCAPE in body:
        return None
    try:
        value: object = _DECODER.decode(body.decode())
        return _ENCODER.encode(value).encode()
    except (ValueError, RecursionError):
        return None


def _may_be_json(content_type: str | None) -> bool:
    return not content_type or content_type.partition(";")[0].strip().lower().endswith("json")


def _number(text: str) -> str:
    """One spelling for a number, exact at any length, after a NUL: no string of a body begins with one."""
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.removeprefix("-").partition(".")
    digits = (whole + fraction).rstrip("0")
    if not digits:
        return f"{_NUL}0"
    shift = int(exponent or 0) + len(whole) - len(digits)
    sign = "-" if text.startswith("-") else ""
    return f"{_NUL}{sign}{digits.lstrip('0')}e{shift}"


def _integer(text: str) -> str:
    return _number(text) if text.endswith("0") else f"{_NUL}{text}e0"


def _object(pairs: list[tuple[str, object]]) -> dict[str, object]:
    members = dict(pairs)
    if len(members) < len(pairs):
        raise ValueError("a key stands there twice, and readers differ in which they take")
    return members


def _no_json(text: str) -> NoReturn:
    raise ValueError(f"{text} is no JSON")


# Made once: json.loads and json.dumps make theirs anew for each call that does not go by the defaults.
_DECODER = json.JSONDecoder(parse_int=_integer, parse_float=_number, parse_constant=_no_json, object_pairs_hook=_object)
# Not ensure_ascii: half a surrogate pair then has no spelling, and the body counts by its bytes.
_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"))
