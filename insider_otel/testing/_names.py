"""Errors for names that do not exist, with the one that was probably meant."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import TypeVar

Value = TypeVar("Value")


def known(table: Mapping[str, Value], name: str, what: str, remedy: str) -> Value:
    """The entry of a name.

    Args:
        table: What there is.
        name: The name.
        what: What kind of thing it names.
        remedy: Where to look for the right one.

    Raises:
        ValueError: The table has no such name.
    """
    if name in table:
        return table[name]
    close = get_close_matches(name, table, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    raise ValueError(f"no {what} is called {name!r}; {hint}{remedy}")
