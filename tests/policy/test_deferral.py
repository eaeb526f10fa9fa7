"""When a job may be sent, until when, and how far apart: pure decisions."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel import Limit, Stop
from insider_otel.api.operations import Operation, Resend, find
from insider_otel.policy.call import TRANSIT
from insider_otel.policy.deferral import LONGEST_RETRY_WINDOW, ambiguity, pace, retry_window

MAIL = find("POST", "mail.useinsider.com", "/mail/v1/send")
assert MAIL is not None


def operation(resend: Resend) -> Operation:
    assert MAIL is not None
    return replace(MAIL, resend=resend)


@pytest.mark.parametrize("resend", Resend)
def test_what_has_surely_not_arrived_may_be_sent(resend: Resend) -> None:
    bounds = ambiguity(operation(resend), None, 1e9, duplicate_window=900)
    assert (bounds.stopped, bounds.until) == (None, None)


@given(since=st.floats(0, 1e9), later=st.floats(0, 1e6), window=st.floats(0, 900))
def test_what_insider_would_ignore_may_be_sent_only_while_it_does(since: float, later: float, window: float) -> None:
    now = since + later
    bounds = ambiguity(operation(Resend.WINDOW), since, now, duplicate_window=window)
    if now < since + window - TRANSIT:
        assert (bounds.stopped, bounds.until) == (None, since + window - TRANSIT)
    else:
        assert bounds.stopped is Stop.DUPLICATE_WINDOW


@pytest.mark.parametrize(
    ("resend", "stopped"),
    [(Resend.IDEMPOTENT, None), (Resend.ANSWERED, Stop.UNSAFE), (Resend.NEVER, Stop.UNSAFE)],
)
def test_what_may_have_arrived_is_sent_again_where_twice_is_as_once(resend: Resend, stopped: Stop | None) -> None:
    assert ambiguity(operation(resend), 0.0, 1.0, duplicate_window=900).stopped is stopped


def test_the_window_of_the_next_delivery_doubles_up_to_an_hour() -> None:
    assert [retry_window(300.0, deliveries) for deliveries in range(6)] == [300, 600, 1200, 2400, 3600, 3600]


@given(base=st.floats(0, 1e5), deliveries=st.integers(0, 10_000))
def test_it_is_never_shorter_than_the_setting_says(base: float, deliveries: int) -> None:
    assert base <= retry_window(base, deliveries) <= max(base, LONGEST_RETRY_WINDOW)


@given(count=st.integers(1, 10**6), window=st.floats(0.1, 86_400))
def test_deliveries_of_a_pool_leave_a_part_of_its_limit_to_others(count: int, window: float) -> None:
    assert window / pace(Limit(count, window)) == pytest.approx(0.9 * count)


def test_there_is_no_pace_without_a_limit_nor_for_a_day() -> None:
    assert pace(None) == pace(Limit(1, 86_400, calendar=True)) == 0.0
