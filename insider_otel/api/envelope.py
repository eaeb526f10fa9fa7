"""The words in a reply: its messages, its code and the field it names, out of whatever envelope they come in."""

from __future__ import annotations

import functools
import html
import re
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from typing import Any

from insider_otel.api.body import Body, is_array, is_object

# Bounds of the search, so that no reply takes long to read.
_MAX_DEPTH = 6
_MAX_NODES = 300
_MAX_KEYS = 60
_MAX_ITEMS = 20
_MAX_LINES = 12
_MAX_LINE = 1000
_LONGEST_CODE = 80

# Keys are compared in lower case and without "_" and "-"; of several of one kind, the first here counts most.
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
_FIELDS = ("field", "fieldname", "param", "parameter", "property", "attribute", "path", "loc")
_RANK = {name: at for at, name in enumerate((*_LISTS, *_TEXTS, "error", *_CODES, *_FIELDS, "status"))}
# What tells one error as an object from an object of errors by field; a field may well be called "title".
_SINGLE_ERROR = frozenset({"message", "errormessage", "msg", "reason", "error", "code", "errorcode"})

_PART_OF_PATH = (str, int)
# Compiled at their first use, which most processes never come to.
_MARKUP_TEXT = r"(?i)<(title|h1|message|code)\b[^>]{0,200}>([^<]{1,500})"
# What a page without any of these says stands between its tags, outside of scripts and styles.
_MARKUP = r"(?i)<(?:script|style)\b[^<>]{0,500}>[^<]*|<[^<>]{0,500}>"
# Cloudflare's own codes: "error code: 1020" in plain text, "Error 1015" in a page. In lower case, and beginning with
# letters and not with \b, it is found eight times as fast: in 15 µs, not 114, in 5 kB.
_CLOUDFLARE_CODE = r"error(?<!\werror)(?: code)?:? (1\d{3})\b"
_FIELD_IN_TEXT = (
    r"(?a)[\"'‘“`]([A-Za-z_][\w.\[\]-]{0,80})[\"'’”`]",  # noqa: RUF001
    (
        r"(?ai)^(?:the )?<?([A-Za-z_][\w.\[\]-]{0,80})>?(?: field| parameter)? "
        r"(?:(?:is|are) (?:required|missing|invalid|empty)|(?:must|should|can ?not|can't) be)\b"
    ),
    r"(?ai)\bmissing (?:required )?(?:field |parameter )?([A-Za-z_][\w.\[\]-]{0,80})",
)
# User data names a lost field with the rule it broke: "users.0.identifiers.*.regexp(^\\+[1-9]…)".
_FIELD_RULE = r"(?s)\.(?:required|regexp|type|in)(?:\(.*)?\Z"
_NO_FIELDS = frozenset({"field", "it", "parameter", "request", "that", "there", "this", "value"})


class Envelope:
    """What a reply says.

    Attributes:
        details: Messages of single errors.
        messages: Messages about the request as a whole.
        codes: Codes, and words that stand for the status, best first.
        field: The field an error names.
    """

    __slots__ = ("_nodes_left", "codes", "details", "field", "messages")

    def __init__(self, *, details: Iterable[str] = (), messages: Iterable[str] = (), codes: Iterable[str] = ()) -> None:
        self.details: list[str] = list(details)
        self.messages: list[str] = list(messages)
        self.codes: list[str] = list(codes)
        self.field: str | None = None
        self._nodes_left = _MAX_NODES

    def may_go_on(self, depth: int) -> bool:
        """Whether the search for words may look at one more node."""
        self._nodes_left -= 1
        return depth <= _MAX_DEPTH and self._nodes_left >= 0

    def size(self) -> int:
        """How many things are said."""
        return len(self.details) + len(self.messages) + len(self.codes)

    def lines(self) -> list[str]:
        """Everything said, best first; empty if the reply says nothing."""
        return [line[:_MAX_LINE] for line in [*self.details, *self.messages, *self.codes][:_MAX_LINES]]

    def message(self) -> str:
        """What to show of it: the single errors if there are any, else the best message."""
        if len(self.details) > 1:
            return "; ".join(dict.fromkeys(detail[:_MAX_LINE] for detail in self.details[:_MAX_LINES]))
        said = self.details or self.messages
        return said[0][:_MAX_LINE] if said else ""

    def named_field(self) -> str | None:
        """The field the reply names, in its envelope or else in its message."""
        if self.field is not None:
            return self.field
        text = (self.details or self.messages or [""])[0][:_MAX_LINE]
        for search in _searches_for_fields():
            found = search(text)
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
        texts = [text for _, text in re.findall(_MARKUP_TEXT, start)] or [re.sub(_MARKUP, " ", start)[:_MAX_LINE]]
        envelope.messages += filter(None, (html.unescape(text).strip() for text in texts))
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


@functools.cache
def _searches_for_fields() -> tuple[Callable[[str], re.Match[str] | None], ...]:
    return tuple(re.compile(pattern).search for pattern in _FIELD_IN_TEXT)


def _read_cloudflare_code(text: str, envelope: Envelope) -> None:
    found = re.search(_CLOUDFLARE_CODE, text.lower())
    if found:
        envelope.codes.append(found[1])


def _plain(key: str) -> str:
    return key.replace("_", "").replace("-", "").lower()


def _read(value: object, envelope: Envelope, into: list[str], depth: int) -> None:
    if not envelope.may_go_on(depth):
        return
    if isinstance(value, str):
        if value.strip():
            into.append(value)
    elif is_object(value):
        _read_object(value, envelope, into, depth)
    elif is_array(value):
        for item in value[:_MAX_ITEMS]:
            _read(item, envelope, envelope.details, depth + 1)


def _read_object(node: Mapping[str, Any], envelope: Envelope, into: list[str], depth: int) -> None:
    known: dict[str, Any] = {}
    for key in islice(node, _MAX_KEYS):
        name = key if key in _RANK else _plain(key)
        if name in _RANK:
            known[name] = node[key]
    before = envelope.size()
    said = len(into)
    for name in sorted(known, key=_RANK.__getitem__) if len(known) > 1 else known:
        value = known[name]
        if name in _LISTS:
            _read_errors(value, envelope, depth + 1)
        elif name in _TEXTS:
            _read(value, envelope, into, depth + 1)
        elif name == "error":
            _read_error(value, envelope, into, depth, said_before=len(into) > said)
        elif name in _CODES or name == "status":
            _read_code(name, value, envelope)
        elif envelope.field is None:
            envelope.field = _field(value)
    if envelope.size() == before:
        for value in islice(node.values(), _MAX_ITEMS):
            if is_object(value) or is_array(value):
                _read(value, envelope, into, depth + 1)


def _read_error(error: object, envelope: Envelope, into: list[str], depth: int, *, said_before: bool) -> None:
    """``error`` is the message itself, a code beside a message, or an object."""
    is_code = isinstance(error, str) and len(error) <= _LONGEST_CODE and len(error.split()) == 1
    if not (is_code and said_before):
        _read(error, envelope, into, depth + 1)
    if isinstance(error, str) and is_code and (said_before or "_" in error):
        envelope.codes.append(error)


def _read_code(name: str, code: object, envelope: Envelope) -> None:
    if isinstance(code, str):
        envelope.codes.append(code[:_MAX_LINE])
    elif name != "status" and type(code) is int:
        envelope.codes.append(str(code))


def _read_errors(errors: object, envelope: Envelope, depth: int) -> None:
    if not envelope.may_go_on(depth):
        return
    if is_object(errors):
        if _is_single_error(errors):
            _read_object(errors, envelope, envelope.details, depth)
        else:
            _read_errors_by_field(errors, envelope, depth)
    elif is_array(errors):
        for item in errors[:_MAX_ITEMS]:
            _read_errors(item, envelope, depth + 1)
    else:
        _read(errors, envelope, envelope.details, depth)


def _is_single_error(errors: Mapping[str, Any]) -> bool:
    for key in islice(errors, _MAX_KEYS):
        if (key in _SINGLE_ERROR or _plain(key) in _SINGLE_ERROR) and isinstance(errors[key], str):
            return True
    return False


def _read_errors_by_field(errors: Mapping[str, Any], envelope: Envelope, depth: int) -> None:
    for name, value in islice(errors.items(), _MAX_ITEMS):
        if envelope.field is None and value and (isinstance(value, str) or is_array(value)):
            envelope.field = re.sub(_FIELD_RULE, "", name[:_MAX_LINE])
        for item in value[:_MAX_ITEMS] if is_array(value) else [value]:
            _read(item, envelope, envelope.details, depth + 1)


def _field(value: object) -> str | None:
    if isinstance(value, str):
        return value[:_MAX_LINE] or None
    if is_array(value) and value and all(isinstance(part, _PART_OF_PATH) for part in value[:_MAX_ITEMS]):
        return ".".join(str(part) for part in value[:_MAX_ITEMS])[:_MAX_LINE]
    return None
