"""A limit as text: as the table has it, and as settings and the command line take it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel.api.operations import Limit


@given(count=st.integers(1, 999_999_999), window=st.integers(1, 999_999))
def test_a_limit_is_read_from_its_short_spelling(count: int, window: int) -> None:
    assert Limit.parse(f" {count}/{window}s ") == Limit(count, window)


@pytest.mark.parametrize(
    ("text", "limit"),
    [
        ("25000/60s", Limit(25_000, 60)),
        ("3/0.5s", Limit(3, 0.5)),
        ("1/UTC day", Limit(1, 86_400, calendar=True)),
        ("1000 quota/60s", Limit(1_000, 60, unit="quota")),
        ("1 successful/UTC day", Limit(1, 86_400, calendar=True, counts_failures=False)),
    ],
)
def test_a_limit_has_a_text(text: str, limit: Limit) -> None:
    assert str(limit) == text
    assert Limit.parse(text) == limit


def test_a_day_is_one_of_the_utc_calendar() -> None:
    assert Limit.parse("1/day") == Limit(1, 86_400, calendar=True)
    assert Limit.parse("1/86400s") == Limit(1, 86_400)


@given(
    count=st.integers(1, 10**15 - 1),
    window=st.floats(0, exclude_min=True, allow_infinity=False) | st.none(),
    unit=st.sampled_from(["request", "quota"]),
    counts_failures=st.booleans(),
)
def test_a_limit_is_read_back_from_its_text(count: int, window: float | None, unit: str, counts_failures: bool) -> None:
    limit = Limit(count, window or 86_400, calendar=window is None, unit=unit, counts_failures=counts_failures)
    assert Limit.parse(str(limit)) == limit


@given(text=st.from_regex(r"[0-9]{1,20}( successful)?( quota)?/([0-9.e+-]{1,12}s|day)", fullmatch=True) | st.text())
def test_any_text_is_a_limit_or_an_error_about_it(text: str) -> None:
    try:
        limit = Limit.parse(text)
    except ValueError as error:
        assert "25000/60s" in str(error)  # noqa: PT017  (either outcome is right)
    else:
        assert limit.count > 0
        assert limit.window > 0


@pytest.mark.parametrize(("count", "window"), [(0, 60.0), (-1, 60.0), (5, 0.0), (5, -1.0), (5, float("nan"))])
def test_a_limit_allows_something_in_some_time(count: int, window: float) -> None:
    with pytest.raises(ValueError, match="above 0"):
        Limit(count, window)


@pytest.mark.parametrize(
    "text",
    ["", "25000", "25000/60", "0/60s", "0/day", "5/0s", "-1/60s", "5/1m", "5/60s/2", "five/60s", "1e3/1s", "1/1e999s"],
)
def test_a_limit_that_cannot_be_read_is_an_error_that_shows_the_form(text: str) -> None:
    with pytest.raises(ValueError, match="25000/60s"):
        Limit.parse(text)
