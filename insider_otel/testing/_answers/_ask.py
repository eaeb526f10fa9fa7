"""What an answer is made from, and the shapes that answers share."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from insider_otel.api.operations import Operation
from insider_otel.testing._account import Account
from insider_otel.testing._checks import refuse
from insider_otel.testing._wire import Reply, Request, as_dict

PHONE = re.compile(r"\+[1-9]\d{6,14}")
EMAIL = re.compile(r".+@.+\..+")


@dataclass(slots=True)
class Ask:
    """A request that passed the checks of its host.

    Attributes:
        operation: The operation called.
        request: The request.
        payload: Its body, read from JSON or from a form; None if it has none.
        account: What Insider holds.
        now: The present moment, in seconds.
        used: Requests, or quota units, used of the limit before this one.
        cost: What this one uses; the answer may raise it.
    """

    operation: Operation
    request: Request
    payload: Any
    account: Account
    now: float
    used: float = 0.0
    cost: float = 1.0

    @property
    def fields(self) -> dict[str, Any]:
        """The payload as a JSON object; an empty one if it is something else."""
        return as_dict(self.payload)

    def text(self, field: str) -> str:
        """A field that is read as text; empty if it is missing.

        Raises:
            Refused: It is a list or an object. Insider then cannot read the body.
        """
        value: object = self.fields.get(field)
        if type(value) in {list, dict}:
            refuse(self.operation, "not_json")
        return "" if value is None else str(value)


Answer = Callable[[Ask], Reply]


def field_error(field: str, message: str = "this field is required", status: int = 400) -> Reply:
    """The envelope of SMS, WhatsApp and verify: ``{"errors": [{"message", "field"}]}``."""
    return Reply.of(status, {"errors": [{"message": message, "field": field}]})


def is_phone(value: object) -> bool:
    """Whether a value is a phone number in the E.164 form that Insider asks for."""
    return isinstance(value, str) and PHONE.fullmatch(value) is not None


def is_email(value: object) -> bool:
    """Whether a value passes Insider's check of e-mail addresses."""
    return isinstance(value, str) and EMAIL.fullmatch(value) is not None
