"""The time scale of a waterfall: every moment has its place on it, and round times stand beside it."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel.cli.segments import Segment
from insider_otel.cli.timescale import Scale

MS = 10**6

scales = st.builds(Scale, st.integers(0, 2 * 10**18), st.integers(1, 10**15))


def test_it_reaches_from_the_first_beginning_to_the_last_end() -> None:
    assert Scale.of([Segment("late", 5, 90, 1), Segment("early", 2, 7, 2)]) == Scale(2, 88)


def test_spans_of_no_length_have_a_scale_too() -> None:
    assert Scale.of([Segment("moment", 5, 5, 1)]) == Scale(5, 1)


@pytest.mark.parametrize(
    ("length", "ticks"),
    [
        (306 * MS, [0, 100 * MS, 200 * MS, 300 * MS]),
        (1310 * MS, [0, 500 * MS, 1000 * MS]),
        (5 * MS, [0, 1 * MS, 2 * MS, 3 * MS, 4 * MS, 5 * MS]),
        (1, [0, 1]),
    ],
)
def test_ticks_are_at_round_times(length: int, ticks: list[int]) -> None:
    assert Scale(0, length).ticks(5) == ticks


@given(scales, st.integers(1, 20))
def test_ticks_are_few_evenly_apart_and_on_the_scale(scale: Scale, most: int) -> None:
    ticks = scale.ticks(most)
    assert ticks[0] == 0
    assert len(ticks) <= most + 1
    assert ticks[-1] <= scale.length_ns
    steps = {later - earlier for earlier, later in pairwise(ticks)}
    assert len(steps) <= 1
    for step in steps:
        assert str(step).rstrip("0") in {"1", "2", "5"}
        assert scale.length_ns < ticks[-1] + step


@given(scales)
def test_five_ticks_at_most_are_two_at_least(scale: Scale) -> None:
    """The page takes the distance of the lines behind its bars from the second."""
    assert len(scale.ticks(5)) >= 2


@given(scales, st.lists(st.integers(0, 2 * 10**18 + 10**16), min_size=2), st.floats(1, 1000))
def test_what_is_later_is_never_further_left_and_nothing_is_off_the_line(
    scale: Scale, times: list[int], length: float
) -> None:
    places = [scale.place(time, length) for time in sorted(times)]
    assert places == sorted(places)
    assert 0 <= places[0] <= places[-1] <= length


@given(scales)
def test_its_ends_are_the_ends_of_the_line(scale: Scale) -> None:
    assert scale.place(scale.start_ns, 100) == 0
    assert scale.place(scale.start_ns + scale.length_ns, 100) == 100
