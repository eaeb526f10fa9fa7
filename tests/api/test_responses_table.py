"""responses.toml: a table that someone adds a row to without looking at the code."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from importlib import resources
from typing import Any

import pytest

from insider_otel.api import body, envelope
from insider_otel.api.matching import words
from insider_otel.api.responses import Row, class_of, responses, table
from insider_otel.api.verdict import Category, Fault, Retry

from .documented import BY_ID, DOCUMENTED

LONGEST_ADVICE = 300
KEYS = {
    "response": {
        "id",
        "status",
        "title",
        "body",
        "match",
        "codes",
        "url",
        "on",
        "category",
        "retry",
        "fault",
        "advice",
    },
    "meaning": {"id", "match", "codes", "url", "on", "category", "retry", "fault", "advice"},
    "status": {"statuses", "category", "retry", "fault", "advice", "ambiguous"},
    "retry_after": {"statuses", "category", "retry", "fault", "advice"},
    "exception": {"names", "category", "retry", "fault", "advice", "sent", "cause"},
}
NAMED_BY_CODE = {"hidden_partial_failure", "hidden_refusal", "html_page"}


@pytest.fixture(scope="module")
def source() -> dict[str, Any]:
    return tomllib.loads(resources.files("insider_otel.api").joinpath("responses.toml").read_text("utf-8"))


def said(row: Row) -> str:
    """The plain words of a row's own sample, as patterns see them."""
    read = envelope.read(body.parse(row.body or ""))
    return "\n".join(filter(None, [words(read.lines()), words([f"field {read.field}"]) if read.field else ""]))


def patterns() -> list[Row]:
    return [row for row in (*table().responses, *table().meanings) if row.match]


def test_every_documented_response_has_its_row_in_the_order_of_the_documentation() -> None:
    """Nothing of the documentation is left out, changed or put elsewhere."""
    rows = [(row.id, row.status, row.title, row.body, row.meaning.category, row.meaning.retry) for row in responses()]
    assert rows == [tuple(row) for row in DOCUMENTED]


def test_there_are_97_documented_responses() -> None:
    """A sample that got lost on the way would not be missed otherwise."""
    assert len(responses()) == len(BY_ID) == 97


def test_no_two_rows_share_an_id(source: dict[str, Any]) -> None:
    """A rule in a verdict names one row."""
    ids = Counter(row["id"] for row in source["response"] + source["meaning"])
    assert [id_ for id_, count in ids.items() if count > 1] == []


def test_no_status_and_no_exception_has_two_rows(source: dict[str, Any]) -> None:
    """The later of two would silently win."""
    statuses = Counter(status for row in source["status"] for status in row["statuses"])
    names = Counter(name for row in source["exception"] for name in row["names"])
    told = Counter(status for row in source["retry_after"] for status in row["statuses"])
    assert [key for counted in (statuses, names, told) for key, count in counted.items() if count > 1] == []


@pytest.mark.parametrize("section", KEYS)
def test_rows_have_only_the_keys_that_are_explained(source: dict[str, Any], section: str) -> None:
    """A misspelt key would be ignored without a word."""
    assert [row for row in source[section] if not row.keys() <= KEYS[section]] == []


@pytest.mark.parametrize("section", KEYS)
def test_every_row_says_what_it_means_and_what_to_do(source: dict[str, Any], section: str) -> None:
    """Category, retry and fault are known words; the advice is there, and short enough to be read at night."""
    for row in source[section]:
        assert Category(row["category"])
        assert Retry(row["retry"])
        assert "fault" not in row or Fault(row["fault"])
        assert 10 < len(row["advice"]) <= LONGEST_ADVICE, row
        assert row["advice"].endswith("."), row


def test_precedence_ranks_every_category_that_patterns_can_give() -> None:
    """A category without a rank would make the table unusable."""
    assert {row.meaning.category for row in (*table().responses, *table().meanings) if row.match or row.codes} <= set(
        table().precedence
    )
    assert len(set(table().precedence)) == len(table().precedence)


def test_words_that_silence_a_category_are_in_none_of_its_samples() -> None:
    """They are written for plain words, too, and for categories that have rows with patterns."""
    assert set(table().unless) <= {row.meaning.category for row in patterns()}
    for category, silencing in table().unless.items():
        assert not any(re.search("[A-Z1-9'\"]", re.sub(r"\\[a-zA-Z]", "", pattern)) for pattern in silencing)
        for row in responses():
            if row.meaning.category is category:
                assert not any(re.search(pattern, said(row), re.MULTILINE) for pattern in silencing), row.id


def test_rows_may_speak_only_where_there_are_statuses() -> None:
    """``on`` holds statuses, their classes or "any"."""
    for row in (*table().responses, *table().meanings):
        for on in row.on:
            assert on in ("any", "2xx", "4xx", "5xx") or (isinstance(on, int) and class_of(on) != "other"), row.id


@pytest.mark.parametrize("row", patterns(), ids=lambda row: row.id)
def test_every_pattern_compiles(row: Row) -> None:
    """A broken pattern would show only when the first unknown reply arrives."""
    for pattern in row.match:
        re.compile(pattern, re.MULTILINE)


@pytest.mark.parametrize("row", [row for row in responses() if row.match], ids=lambda row: row.id)
def test_every_pattern_knows_the_sample_of_its_own_row(row: Row) -> None:
    """So that a variation of the sample finds the row, too."""
    assert any(re.search(pattern, said(row), re.MULTILINE) for pattern in row.match), said(row)


@pytest.mark.parametrize("row", patterns(), ids=lambda row: row.id)
def test_patterns_are_written_for_plain_words(row: Row) -> None:
    """Lines are lower case without punctuation, and every number is 0: other letters could never match."""
    literal = re.sub(r"\\[a-zA-Z]|\(\?[=!<:]+|\{\d+,?\d*\}", "", "".join(row.match))
    assert not re.search(r"[A-Z1-9'\"]", literal), row.match


@pytest.mark.parametrize("row", [row for row in responses() if row.match], ids=lambda row: row.id)
def test_no_pattern_of_another_category_that_wins_knows_the_sample(row: Row) -> None:
    """Precedence must not hand a documented sentence's variations to another category."""
    rank = {category: at for at, category in enumerate(table().precedence)}
    thieves = [
        other.id
        for other in patterns()
        if rank[other.meaning.category] < rank[row.meaning.category]
        and (not other.on or "any" in other.on or row.status in other.on or class_of(row.status or 0) in other.on)
        and any(re.search(pattern, said(row), re.MULTILINE) for pattern in other.match)
    ]
    assert thieves == []


def test_rows_without_pattern_or_code_are_the_ones_that_say_nothing_or_are_named_by_the_code() -> None:
    """Any other could never be found."""
    mute = {row.id for row in (*table().responses, *table().meanings) if not row.match and not row.codes}
    silent = {row.id for row in responses() if not said(row)}
    assert mute == silent | NAMED_BY_CODE


def test_every_status_class_and_everything_else_has_a_meaning() -> None:
    """There is no status without a verdict."""
    assert {"1xx", "2xx", "3xx", "4xx", "5xx", "other"} <= table().statuses.keys()


def test_every_exception_has_a_meaning() -> None:
    """BaseException is the end of every chain of classes."""
    assert "BaseException" in table().exceptions
