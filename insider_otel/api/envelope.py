"""The words in a reply: its messages, its code and the field it names, out of whatever envelope they come in."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice

from .body import Body

_MAX_DEPTH = 6
_MAX_KEYS = 60
_MAX_ITEMS = 20
_MAX_LINES = 12
_MAX_LINE = 1000

# Keys are compared in lower case and without "_" and "-". Order is rank: the first names the message best.
_TEXTS = (
    "message",
    "errormessage",
    "statusmessage",
    "errordescription",
    "detail",
    "description",
    "reason",
    "msg",
    "response",
    "faultstring",
    "title",
)
_LISTS = ("errors", "validations", "violations")
_CODES = ("code", "errorcode", "type")
# What tells one error as an object from an object of errors by field; a field may well be called "title".
_SINGLE_ERROR = ("message", "errormessage", "msg", "reason", "error", "code", "errorcode")
_FIELDS = ("field", "fieldname", "param", "parameter", "property", "attribute", "path", "loc")

_SPELLINGS = re.compile("[_-]")
_CODE_LIKE = re.compile(r"[\w.-]{1,80}", re.ASCII)
_MARKUP_TEXT = re.compile(r"<(title|h1|message|code)\b[^>]{0,200}>([^<]{1,500})", re.IGNORECASE)
# Cloudflare's own codes: "error code: 1020" in plain text, "Error 1015" in a page.
_CLOUDFLARE_CODE = re.compile(r"\berror(?: code)?:? (1\d{3})\b", re.IGNORECASE)
_FIELD_IN_TEXT = (
    re.compile(r"[\"'‘“`]([A-Za-z_][\w.\[\]-]{0,80})[\"'’”`]", re.ASCII),
    re.compile(
        r"^(?:the )?<?([A-Za-z_][\w.\[\]-]{0,80})>?(?: field| parameter)? "
        r"(?:(?:is|are) (?:required|missing|invalid|empty)|(?:must|should|can ?not|can't) be)\b",
        re.ASCII | re.IGNORECASE,
    ),
    re.compile(r"\bmissing (?:required )?(?:field |parameter )?([A-Za-z_][\w.\[\]-]{0,80})", re.ASCII | re.IGNORECASE),
)
# User data names a lost field with the rule it broke: "users.0.identifiers.*.regexp(^\\+[1-9]…)".
_FIELD_RULE = re.compile(r"\.(?:required|regexp|type|in)(?:\(.*)?\Z", re.DOTALL)
_NO_FIELDS = frozenset({"field", "it", "parameter", "request", "that", "there", "this", "value"})


@dataclass(slots=True)
class Envelope:
    """What a reply says.

    Attributes:
        details: Messages of single errors.
        messages: Messages about the request as a whole.
        codes: Codes, and words that stand for the status, best first.
        field: The field an error names.
    """

    details: list[str] = field(default_factory=list)
    messages: list[str] = field(default_factory=list)
    codes: list[str] = field(default_factory=list)
    field: str | None = None

    def lines(self) -> list[str]:
        """Everything said, best first; empty if the reply says nothing."""
        return [line[:_MAX_LINE] for line in [*self.details, *self.messages, *self.codes][:_MAX_LINES]]

    def message(self) -> str:
        """What to show of it: the single errors if there are any, else the best message."""
        if len(self.details) == 1:
            return self.details[0]
        if self.details:
            return "; ".join(dict.fromkeys(detail[:_MAX_LINE] for detail in self.details[:_MAX_LINES]))
        return self.messages[0] if self.messages else ""

    def named_field(self) -> str | None:
        """The field the reply names, in its envelope or else in its message."""
        if self.field is not None:
            return self.field
        text = (self.details or self.messages or [""])[0][:_MAX_LINE]
        for pattern in _FIELD_IN_TEXT:
            found = pattern.search(text)
            if found and found[1].lower() not in _NO_FIELDS:
                return found[1]
        return None


def read(body: Body) -> Envelope:
    """The words in a reply.

    Args:
        body: The reply's body.

    Returns:
        Its messages, codes and field; all empty for a body that says nothing.
    """
    envelope = Envelope()
    if body.is_json:
        _read(body.value, envelope, envelope.messages, 0)
    elif body.is_markup:
        start = body.text[: 16 * _MAX_LINE]
        envelope.messages += [html.unescape(text).strip() for _, text in _MARKUP_TEXT.findall(start)]
        _read_cloudflare_code(start, envelope)
    elif body.text:
        text = body.text[:_MAX_LINE]
        envelope.messages.append(text)
        _read_cloudflare_code(text, envelope)
    return envelope


def read_errors(errors: object) -> Envelope:
    """The words in a part of a reply that lists errors: a list of them, or an object with the fields as its keys."""
    envelope = Envelope()
    _read_errors(errors, envelope, 0)
    return envelope


def plain(key: object) -> str:
    """A JSON key without the differences between ``errorCode``, ``error_code`` and ``Error-Code``."""
    return _SPELLINGS.sub("", str(key)).lower()


def _read_cloudflare_code(text: str, envelope: Envelope) -> None:
    found = _CLOUDFLARE_CODE.search(text)
    if found:
        envelope.codes.append(found[1])


def _read(value: object, envelope: Envelope, into: list[str], depth: int) -> None:
    if depth > _MAX_DEPTH or len(into) >= _MAX_LINES:
        return
    if isinstance(value, str):
        if value.strip():
            into.append(value)
    elif isinstance(value, Mapping):
        _read_object({plain(key): item for key, item in islice(value.items(), _MAX_KEYS)}, envelope, into, depth)
    elif isinstance(value, list):
        for item in value[:_MAX_ITEMS]:
            _read(item, envelope, envelope.details, depth + 1)


def _read_object(reply: Mapping[str, object], envelope: Envelope, into: list[str], depth: int) -> None:
    before = len(envelope.details) + len(envelope.messages) + len(envelope.codes)
    for name in _LISTS:
        if reply.get(name):
            _read_errors(reply[name], envelope, depth + 1)
    said = len(into)
    for name in _TEXTS:
        if reply.get(name):
            _read(reply[name], envelope, into, depth + 1)
    _read_codes(reply, envelope)
    error = reply.get("error")
    if isinstance(error, str) and len(into) > said and _CODE_LIKE.fullmatch(error):
        envelope.codes.append(error)
    elif error:
        _read(error, envelope, into, depth + 1)
        if isinstance(error, str) and "_" in error and _CODE_LIKE.fullmatch(error):
            envelope.codes.append(error)
    status = reply.get("status")
    if isinstance(status, str) and status:
        envelope.codes.append(status)
    if envelope.field is None:
        envelope.field = _field(reply)
    if len(envelope.details) + len(envelope.messages) + len(envelope.codes) == before:
        for value in islice(reply.values(), _MAX_ITEMS):
            if isinstance(value, Mapping | list):
                _read(value, envelope, into, depth + 1)


def _read_codes(reply: Mapping[str, object], envelope: Envelope) -> None:
    for name in _CODES:
        code = reply.get(name)
        if isinstance(code, str | int) and not isinstance(code, bool) and code != "":
            envelope.codes.append(str(code)[:_MAX_LINE])


def _read_errors(errors: object, envelope: Envelope, depth: int) -> None:
    if depth > _MAX_DEPTH:
        return
    if isinstance(errors, Mapping):
        keys = {plain(key): item for key, item in islice(errors.items(), _MAX_KEYS)}
        if any(isinstance(keys.get(name), str) for name in _SINGLE_ERROR):
            _read_object(keys, envelope, envelope.details, depth)
            return
        for key, value in islice(errors.items(), _MAX_ITEMS):
            if envelope.field is None and isinstance(value, str | list) and value:
                envelope.field = _FIELD_RULE.sub("", str(key)[:_MAX_LINE])
            for item in value[:_MAX_ITEMS] if isinstance(value, list) else [value]:
                _read(item, envelope, envelope.details, depth + 1)
    elif isinstance(errors, list):
        for item in errors[:_MAX_ITEMS]:
            _read_errors(item, envelope, depth + 1)
    else:
        _read(errors, envelope, envelope.details, depth)


def _field(reply: Mapping[str, object]) -> str | None:
    for name in _FIELDS:
        value = reply.get(name)
        if isinstance(value, str) and value:
            return value[:_MAX_LINE]
        if isinstance(value, list) and value and all(isinstance(part, str | int) for part in value[:_MAX_ITEMS]):
            return ".".join(str(part) for part in value[:_MAX_ITEMS])[:_MAX_LINE]
    return None
