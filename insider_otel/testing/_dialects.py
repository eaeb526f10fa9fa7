"""How each host refuses: ``dialects.toml``."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib.resources import files
from typing import Any

from insider_otel.api.operations import Operation
from insider_otel.testing._documented import documented_reply
from insider_otel.testing._wire import Reply


def refusal(operation: Operation, reason: str) -> Reply | None:
    """What the operation's host answers when it refuses a request.

    Args:
        operation: The operation called.
        reason: Why: a key of ``dialects.toml``, such as ``wrong_key``.

    Returns:
        The reply; None if the host does not refuse for this reason.
    """
    table = _table()
    for section in (operation.name, operation.host, "default"):
        said = table.get(section, {}).get(reason)
        if isinstance(said, str):
            return documented_reply(said)
        if said is not None:
            return Reply.of(said["status"], said["body"])
    return None


@cache
def _table() -> dict[str, dict[str, Any]]:
    return tomllib.loads(files("insider_otel.testing").joinpath("dialects.toml").read_text("utf-8"))
