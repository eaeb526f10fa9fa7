"""Finding the row of ``responses.toml`` that knows a reply by what it says."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterable
from typing import NamedTuple

from insider_otel.api import body as bodies
from insider_otel.api import envelope
from insider_otel.api.envelope import Envelope
from insider_otel.api.responses import ANY, Row, class_of, table
from insider_otel.api.verdict import Category

_HUMP = re.compile(r"(?<=[a-z])(?=[A-Z][a-z])")
_NUMBER = re.compile(r"0+(?: 0+)*")
_SIGNS = "“”„‘–—…"  # noqa: RUF001
_PLAIN: dict[int, str | None] = {
    **{code: character if (character := chr(code)).isalpha() else " " for code in range(128)},
    **dict.fromkeys(map(ord, _SIGNS), " "),
    **dict.fromkeys(map(ord, "0123456789"), "0"),
    **dict.fromkeys(map(ord, "'’")),  # noqa: RUF001
}

# Statuses that say more than a sentence which merely sounds like a refused field or a missing thing.
_DEFINITE = frozenset({401, 403, 407, 408, 413, 429})
_SUCCESS = frozenset({Category.SUCCESS, Category.ACCEPTED})
_GOOD_NEWS = frozenset({Category.DUPLICATE, Category.ACCEPTED})


def words(lines: Iterable[str]) -> str:
    """Lines reduced to plain words: lower case, every number 0, punctuation a blank, no empty line.

    This is the text that the rows' regular expressions are written for; ``RateLimitExceeded`` and
    ``RATE_LIMIT_EXCEEDED`` are both ``rate limit exceeded``.
    """
    plain: list[str] = []
    for line in lines:
        text = " ".join(line.split())
        if " " not in text:
            text = _HUMP.sub(" ", text)
        text = " ".join(text.translate(_PLAIN).lower().split())
        if "0" in text:
            text = _NUMBER.sub("0", text)
        if text:
            plain.append(text)
    return "\n".join(plain)


def find(status: int | None, said: Envelope, sample: str, url: str) -> Row | None:
    """The row that knows a reply which reports a failure.

    Args:
        status: The HTTP status, if there is one.
        said: What the reply says.
        sample: Its body as text, to tell documented rows of the same words apart.
        url: The URL of the request, or nothing.

    Returns:
        The row; None if the table knows nothing but the status.
    """
    lines = said.lines()
    text = words(lines)
    if not text:
        return None if status is None or class_of(status) == "2xx" else _silent(status, sample)
    exact = _exact(status, text, sample)
    if exact is None and "\n" in text:
        exact = _exact(status, text.partition("\n")[0], sample, bound=False)
    if exact is not None and exact.meaning.category not in _SUCCESS:
        return exact
    if said.field:
        text += "\n" + words([f"field {said.field}"])
    return _speaking(_speakers(status), text, said.codes, url)


def find_good_news(status: int, said: Envelope, sample: str) -> Row | None:
    """The row that knows a reply with a 2xx status which reports no failure.

    A documented sentence keeps its meaning even here: a 200 "Invalid api key" is no success.
    """
    text = words(said.lines())
    if not text:
        return _silent(status, sample)
    return _exact(status, text, sample) or _speaking(_bearers_of_good_news(), text, said.codes, "")


def is_documented(text: str) -> bool:
    """Whether a message or a code is one of the documented samples', letter by letter; these need no redaction."""
    return text in _index().texts


class _Index(NamedTuple):
    """The documented samples by what they say.

    Attributes:
        exact: Rows by the plain words of their samples.
        silent: Rows by status whose samples say nothing.
        texts: The messages and codes of the samples.
    """

    exact: dict[str, tuple[Row, ...]]
    silent: dict[int, tuple[Row, ...]]
    texts: frozenset[str]


@functools.cache
def _index() -> _Index:
    exact: dict[str, tuple[Row, ...]] = {}
    silent: dict[int, tuple[Row, ...]] = {}
    texts: set[str] = set()
    for row in table().responses:
        said = envelope.read(bodies.parse(row.body or ""))
        text = words(said.lines())
        texts |= {" ".join(said.message().split()), *(code for code in said.codes if words([code]))}
        if text:
            exact[text] = (*exact.get(text, ()), row)
        elif row.status is not None:
            silent[row.status] = (*silent.get(row.status, ()), row)
    return _Index(exact, silent, frozenset(texts))


def _exact(status: int | None, text: str, sample: str, *, bound: bool = True) -> Row | None:
    """The documented row with these very words: under any status, unless the row says where it may speak."""
    rows = _index().exact.get(text)
    if rows is None:
        return None
    may = [row for row in rows if _may_speak_exactly(row, status) and (bound or not row.on or ANY in row.on)]
    if len(may) == 1:
        return may[0]
    return _alike([row for row in may if row.status == status] or may, sample)


def _may_speak_exactly(row: Row, status: int | None) -> bool:
    if row.on:
        return _is_on(row, status)
    return row.status == status if row.meaning.category in _SUCCESS else True


def _silent(status: int, sample: str) -> Row | None:
    """The documented row of a status whose sample says nothing; a page is never Insider's silence."""
    return None if sample.startswith("<") else _alike(_index().silent.get(status, ()), sample)


def _alike(rows: Iterable[Row], sample: str) -> Row | None:
    """Of rows that say the same, the one whose sample is this body; else the first."""
    rows = tuple(rows)
    if len(rows) > 1:
        squeezed = "".join(sample.split())
        rows = tuple(row for row in rows if "".join((row.body or "").split()) == squeezed) or rows
    return rows[0] if rows else None


_Speaker = tuple[Row, Callable[[str], object]]


def _speaking(speakers: Iterable[_Speaker], text: str, codes: Iterable[str], url: str) -> Row | None:
    for row, search in speakers:
        if (search(text) or (row.codes and not row.codes.isdisjoint(codes))) and (
            not row.url or re.search(row.url, url)
        ):
            return row
    return None


@functools.lru_cache(maxsize=64)
def _speakers(status: int | None) -> tuple[_Speaker, ...]:
    """The rows that may speak under a status, those of the strongest category first."""
    return tuple(
        (row, _search(row.match, table().unless.get(row.meaning.category, ())))
        for row in _ranked()
        if row.meaning.category not in _SUCCESS and _may_speak(row, status)
    )


@functools.cache
def _bearers_of_good_news() -> tuple[_Speaker, ...]:
    return tuple((row, _search(row.match)) for row in _ranked() if row.meaning.category in _GOOD_NEWS)


@functools.cache
def _ranked() -> tuple[Row, ...]:
    rows = [row for row in (*table().responses, *table().meanings) if row.match or row.codes]
    rank = {category: at for at, category in enumerate(table().precedence)}
    return tuple(sorted(rows, key=lambda row: rank[row.meaning.category]))


@functools.lru_cache(maxsize=256)
def _search(match: tuple[str, ...], unless: tuple[str, ...] = ()) -> Callable[[str], object]:
    if not match:
        return lambda text: None
    finds = re.compile("|".join(f"(?:{pattern})" for pattern in match), re.MULTILINE).search
    if not unless:
        return finds
    speaks_against = _search(unless)
    return lambda text: finds(text) and not speaks_against(text)


def _may_speak(row: Row, status: int | None) -> bool:
    if row.on:
        return _is_on(row, status)
    if status in _DEFINITE and row.meaning.category in (Category.VALIDATION, Category.NOT_FOUND):
        return False
    return status is None or class_of(status) in ("4xx", "2xx")


def _is_on(row: Row, status: int | None) -> bool:
    return ANY in row.on or (status is not None and (status in row.on or class_of(status) in row.on))
