"""What Insider checks before it looks at what a request means: credentials, content type, size, JSON, records."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import parse_qsl

from insider_otel.api.operations import IN_BODY, Operation
from insider_otel.testing._dialects import refusal
from insider_otel.testing._wire import Reply, Request, as_dict, read_json
from insider_otel.testing.samples import PARTNER_HEADER, exchanges

_BEARER = "bearer "
_JSON = "application/json"


class Refused(Exception):  # noqa: N818  (an answer, not an error)
    """The request is answered with a refusal.

    Attributes:
        reply: The refusal.
    """

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


def read_body(operation: Operation, request: Request) -> Any:
    """The request's body, read from JSON or from a form; None if there is none.

    Raises:
        Refused: The content type, the size or the form of the body is not accepted.
    """
    body = request.body
    if operation.max_bytes is not None and len(body) > operation.max_bytes:
        refuse(operation, "too_many_bytes")
    exchange = exchanges()[operation.name]
    if exchange.form:
        return dict(parse_qsl(body.decode("utf-8", "replace")))
    if exchange.request is None and not body:
        return None
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != _JSON:
        refuse(operation, "not_json_type")
    try:
        return read_json(body)
    except ValueError:
        refuse(operation, "not_json")


def check_credentials(operation: Operation, request: Request, payload: Any, accepted: Mapping[str, str] | None) -> None:
    """Refuse a request whose credentials are missing or wrong.

    Args:
        operation: The operation called.
        request: The request.
        payload: Its body.
        accepted: The right value of credentials, by name in lower case; any value is right for one that is not there.

    Raises:
        Refused: They are missing or wrong.
    """
    accepted = accepted or {}
    for name, value in given_credentials(operation, request, payload).items():
        if not value:
            refuse(operation, "no_key")
        right = accepted.get(name.lower())
        if (right is not None and value != right) or (name == PARTNER_HEADER and value != value.lower()):
            refuse(operation, "wrong_key")


def given_credentials(operation: Operation, request: Request, payload: Any) -> dict[str, str]:
    """The credentials of a request, by name; empty where they are missing.

    A bearer token comes without the word ``Bearer``. An operation that takes its credentials in a header or in the body
    (``gateway.token``) has those it was given.
    """
    found = {name: _credential(name, request, payload) for name in operation.credentials}
    in_header = [name for name in found if not name.startswith(IN_BODY)]
    in_body = [name for name in found if name.startswith(IN_BODY)]
    if in_header and in_body:
        chosen = in_header if any(found[name] for name in in_header) else in_body
        return {name: found[name] for name in chosen}
    return found


def _credential(name: str, request: Request, payload: Any) -> str:
    if name.startswith(IN_BODY):
        value = as_dict(payload).get(name.removeprefix(IN_BODY))
        return value if isinstance(value, str) else ""
    value = request.headers.get(name.lower(), "").strip()
    if name == "Authorization" and value.lower().startswith(_BEARER):
        return value[len(_BEARER) :].strip()
    return value


def check_records(operation: Operation, payload: Any) -> None:
    """Refuse a request that holds more records than one may.

    Raises:
        Refused: It does.
    """
    count = operation.count_records(payload)
    if count is not None and operation.max_records is not None and count > operation.max_records:
        refuse(operation, "too_many_records")


def refuse(operation: Operation, reason: str) -> None:
    """Answer as the operation's host refuses a request; go on if it does not refuse for this reason.

    Args:
        operation: The operation called.
        reason: Why: a key of ``dialects.toml``.

    Raises:
        Refused: It does.
    """
    reply = refusal(operation, reason)
    if reply is not None:
        raise Refused(reply)
