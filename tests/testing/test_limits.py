"""The fake's windows are exact: no request more than allowed in any window, and none refused that would fit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from insider_otel.api.operations import Limit
from insider_otel.testing._limits import DAY, Windows

pauses = st.lists(st.integers(0, 40), max_size=80)


@given(pauses=pauses, count=st.integers(1, 5), window=st.integers(1, 60))
def test_a_rolling_window_lets_through_exactly_what_fits(pauses: list[int], count: int, window: int) -> None:
    windows, limit = Windows(), Limit(count, window)
    now = 0
    let_in: list[int] = []
    for pause in pauses:
        now += pause
        recent = [moment for moment in let_in if moment > now - window]
        wait = windows.wait("pool", "key", limit, now)
        assert (wait is None) == (len(recent) < count)
        if wait is None:
            windows.use("pool", "key", now, 1)
            let_in.append(now)
        else:
            assert wait == recent[-count] + window - now


@given(pauses=pauses, count=st.integers(1, 5))
def test_after_the_wait_it_is_told_there_is_room(pauses: list[int], count: int) -> None:
    windows, limit = Windows(), Limit(count, 60)
    now = 0.0
    for pause in pauses:
        now += pause
        now += windows.wait("pool", "key", limit, now) or 0
        assert windows.wait("pool", "key", limit, now) is None
        windows.use("pool", "key", now, 1)


def test_units_leave_the_window_with_their_request() -> None:
    windows, limit = Windows(), Limit(10, 60, unit="quota")
    for now, cost in ((0, 1), (10, 9), (20, 4)):
        windows.use("pool", "key", now, cost)
    assert windows.used("pool", "key", limit, 30) == 14
    # Without the first it is still 13; without the second 4.
    assert windows.wait("pool", "key", limit, 30) == 40
    assert windows.wait("pool", "key", limit, 70) is None


def test_a_calendar_day_begins_at_midnight() -> None:
    windows, limit = Windows(), Limit(1, DAY, calendar=True)
    windows.use("pool", "key", DAY - 1, 1)
    assert windows.wait("pool", "key", limit, DAY - 0.5) == 0.5
    assert windows.wait("pool", "key", limit, DAY) is None


def test_a_day_that_allows_nothing_and_a_window_too_small_for_its_costs_still_end() -> None:
    windows = Windows()
    windows.use("pool", "key", 0, 50)
    assert windows.wait("pool", "key", Limit(10, 60, unit="quota"), 1) == 59


def test_pools_and_keys_do_not_mix() -> None:
    windows, limit = Windows(), Limit(1, 60)
    windows.use("pool", "key", 0, 1)
    assert windows.wait("pool", "key", limit, 1) == 59
    assert windows.wait("pool", "another", limit, 1) is None
    assert windows.wait("another", "key", limit, 1) is None
