"""The rows of ``responses.toml``: what Insider's replies, statuses and the exceptions in their place mean."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Mapping
from importlib import resources
from traceback import walk_tb
from typing import Any, NamedTuple

from insider_otel.api.verdict import FAULT_OF, Category, Fault, Retry

CLASSES = ("1xx", "2xx", "3xx", "4xx", "5xx")
OTHER = "other"
ANY = "any"

_LOCAL, _REMOTE = "LocalProtocolError", "RemoteProtocolError"
_SENDS_HEADERS = "send_headers"


class Meaning(NamedTuple):
    """What a row says of the replies it stands for: the part of a verdict that comes from the table.

    Attributes:
        rule: The row's name, as in ``Verdict.rule``.
        category: What the reply means.
        retry: Whether the same request can succeed later.
        fault: Who has to act.
        advice: What to do about it.
    """

    rule: str
    category: Category
    retry: Retry
    fault: Fault
    advice: str


class Row(NamedTuple):
    """A reply that is known by what it says.

    Attributes:
        id: Its name in ``responses.toml``.
        meaning: What it means.
        status: The documented status; None if there is none, or if the row is no documented response.
        title: The documented title.
        body: The documented sample; None if the row is no documented response.
        match: Regular expressions over the reply's plain words, one of which must be found.
        codes: Insider's codes that say the same.
        url: A regular expression the URL must fit as well.
        on: Statuses and classes where the row may speak; empty for the usual ones.
    """

    id: str
    meaning: Meaning
    status: int | None = None
    title: str = ""
    body: str | None = None
    match: tuple[str, ...] = ()
    codes: frozenset[str] = frozenset()
    url: str = ""
    on: tuple[int | str, ...] = ()

    @property
    def is_silent(self) -> bool:
        """Whether it stands for replies that say nothing: these are known by their status alone."""
        return not self.match and not self.codes


class Table(NamedTuple):
    """All of ``responses.toml``.

    Attributes:
        responses: The documented responses, in the order of the documentation.
        meanings: What is known beyond them.
        precedence: Categories, those that win over others first.
        unless: Regular expressions, one of which keeps the rows of a category silent.
        statuses: What a status or a class means when nothing is known of the words.
        with_retry_after: What a status means in a reply with ``Retry-After``, where that makes a difference.
        ambiguous: Statuses, and classes, by which a gateway may speak for a server that has done the work.
        exceptions: What an exception means, by the name of its class.
        causes: Names that are looked for behind an exception as well.
        unsent: Names of exceptions after which the request cannot have reached Insider.
        by_id: The responses and the meanings by their ids.
    """

    responses: tuple[Row, ...]
    meanings: tuple[Row, ...]
    precedence: tuple[Category, ...]
    unless: Mapping[Category, tuple[str, ...]]
    statuses: Mapping[int | str, Meaning]
    with_retry_after: Mapping[int, Meaning]
    ambiguous: frozenset[int | str]
    exceptions: Mapping[str, Meaning]
    causes: frozenset[str]
    unsent: frozenset[str]
    by_id: Mapping[str, Row]


@functools.cache
def table() -> Table:
    """The table, read once and only when the first reply is classified."""
    import tomllib  # noqa: PLC0415 - costs time that an import of insider_otel must not take

    source = resources.files("insider_otel.api").joinpath("responses.toml").read_text("utf-8")
    return _table(tomllib.loads(source))


def responses() -> tuple[Row, ...]:
    """Every documented response, in the order of the documentation."""
    return table().responses


def of_status(status: int | None) -> Meaning:
    """What a status means by itself: its own row, else its class, else ``other``."""
    statuses = table().statuses
    if status is None:
        return statuses[OTHER]
    return statuses.get(status) or statuses.get(class_of(status)) or statuses[OTHER]


def class_of(status: int) -> str:
    """The class of a status, such as ``4xx``; ``other`` for a number that is no HTTP status."""
    return CLASSES[status // 100 - 1] if 100 <= status <= 599 else OTHER


def of_exception(exception: BaseException) -> Meaning:
    """What an exception in place of a reply means.

    Classes are looked up by name, nearest first, because httpx and httpx2 have different classes of the same names.
    """
    return table().exceptions[_name(exception)]


def may_have_arrived(exception: BaseException) -> bool:
    """Whether the request may have reached Insider before the exception; in doubt it may.

    Args:
        exception: What was raised in place of a reply.

    Returns:
        False only where no connection came about or nothing was sent: sending again cannot do the work twice.
    """
    return _name(exception) not in table().unsent


def answer_is_ambiguous(status: int) -> bool:
    """Whether a gateway may speak, by this status, for a server that has done the work: 502, 524, 5xx nobody knows.

    Args:
        status: The HTTP status.

    Returns:
        False for statuses that Insider documents as "not processed", and for all that a server says of itself.
    """
    rows = table()
    return (status if status in rows.statuses else class_of(status)) in rows.ambiguous


def _name(exception: BaseException) -> str:
    rows = table()
    for error in _chain(exception):
        for base in type(error).__mro__:
            if base.__name__ in rows.causes:
                return base.__name__
    name = next(base.__name__ for base in type(exception).__mro__ if base.__name__ in rows.exceptions)
    return _REMOTE if name == _LOCAL and any(map(_broke_after_headers, _chain(exception))) else name


def _broke_after_headers(error: BaseException) -> bool:
    """Whether it is an error of h2's that came up when the request's headers had left.

    h2 has one class for the rules that a server breaks and those that its user does, and httpcore takes all of them for
    ours. What can be wrong with a request of ours is noticed in ``send_headers``, before any of it leaves.
    """
    if not type(error).__module__.startswith("h2."):
        return False
    names = (frame.f_code.co_name for frame, _ in walk_tb(error.__traceback__))
    return _SENDS_HEADERS not in names


def _chain(exception: BaseException) -> Iterator[BaseException]:
    # The clients raise "from" what they translate; httpcore's pool drops that again ("from None"), but what was
    # translated is the error's argument. A context may be what the app was handling when it made the call.
    error: BaseException | None = exception
    for _ in range(8):
        if error is None:
            return
        yield error
        translated: object = error.args[0] if error.args else None
        error = error.__cause__ or (translated if isinstance(translated, BaseException) else None)


def _table(source: Mapping[str, Any]) -> Table:
    responses = tuple(_row(row, row["id"]) for row in source["response"])
    meanings = tuple(_row(row, f"meaning.{row['id']}") for row in source["meaning"])
    statuses = {status: _meaning(row, f"status.{status}") for row in source["status"] for status in row["statuses"]}
    with_retry_after = {
        status: _meaning(row, f"retry_after.{status}") for row in source["retry_after"] for status in row["statuses"]
    }
    exceptions = {name: _meaning(row, f"exception.{name}") for row in source["exception"] for name in row["names"]}
    return Table(
        responses=responses,
        meanings=meanings,
        precedence=tuple(Category(name) for name in source["precedence"]),
        unless={Category(name): tuple(patterns) for name, patterns in source["unless"].items()},
        statuses=statuses,
        with_retry_after=with_retry_after,
        ambiguous=frozenset(status for row in source["status"] if row.get("ambiguous") for status in row["statuses"]),
        exceptions=exceptions,
        causes=frozenset(name for row in source["exception"] if row.get("cause") for name in row["names"]),
        unsent=frozenset(name for row in source["exception"] if not row.get("sent", True) for name in row["names"]),
        by_id={row.id: row for row in (*responses, *meanings)},
    )


def _row(row: Mapping[str, Any], rule: str) -> Row:
    return Row(
        id=row["id"],
        meaning=_meaning(row, rule),
        status=row.get("status"),
        title=row.get("title", ""),
        body=row.get("body"),
        match=tuple(row.get("match", ())),
        codes=frozenset(row.get("codes", ())),
        url=row.get("url", ""),
        on=tuple(row.get("on", ())),
    )


def _meaning(row: Mapping[str, Any], rule: str) -> Meaning:
    category = Category(row["category"])
    fault = Fault(row["fault"]) if "fault" in row else FAULT_OF[category]
    return Meaning(rule, category, Retry(row["retry"]), fault, row["advice"])
