"""The benchmark of the herd as a whole: its numbers, its options and its picture."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import herd
from benchmarks.herd.plot import draw
from benchmarks.herd.scenarios import BLIP, BURST, OURS, SCENARIOS, STEADY, STRATEGIES, play


def test_it_keeps_to_its_bars_with_a_thousand_clients(monkeypatch: pytest.MonkeyPatch) -> None:
    """And leaves the picture of a hundred thousand alone."""
    before = herd.PICTURE.read_bytes()
    monkeypatch.setenv(herd.VARIABLE, "1000")
    result = herd.run()
    assert [measure.what for measure in result.measures if not measure.passes] == []
    assert [table.title for table in result.tables[:-1]] == [scenario.title for scenario in SCENARIOS]
    for table in result.tables[:-1]:
        assert [row[0] for row in table.rows] == [*STRATEGIES]
    assert herd.PICTURE.read_bytes() == before


def test_a_run_can_be_repeated() -> None:
    """Also where a library draws from the random numbers of the process."""
    for name in ("stamina", "httpx-retries, as in its README", OURS):
        assert play(STEADY, name, 1_000).load.tolist() == play(STEADY, name, 1_000).load.tolist()


def test_spreading_keeps_the_peak_below_the_room_and_a_cap_without_jitter_does_not() -> None:
    """When all calls come at once."""
    ours, synchronous = play(BURST, OURS, 6_000), play(BURST, "exponential", 6_000)
    assert ours.peak is not None
    assert synchronous.peak is not None
    assert ours.peak < 1
    assert synchronous.peak > 10


def test_a_blip_is_where_spreading_is_slow() -> None:
    """The price of it: peers with a short backoff have everybody served within seconds."""
    ours, peer = play(BLIP, OURS, 6_000), play(BLIP, "stamina", 6_000)
    assert peer.lost == ours.lost == 0
    assert ours.all_served is not None
    assert peer.all_served is not None
    assert peer.all_served < 15
    assert ours.all_served > 100


@pytest.mark.parametrize("text", ["", "many", "999", "1000001", "-5", "1e5", "²"])
def test_a_wrong_number_of_clients_is_refused_with_what_would_do(text: str) -> None:
    """It names the variable."""
    with pytest.raises(ValueError, match=r"HERD_CLIENTS is .* from 1000 to 1000000"):
        herd.clients_asked({herd.VARIABLE: text})


def test_the_number_of_clients_is_taken_from_the_environment() -> None:
    """A hundred thousand if it says nothing."""
    assert herd.clients_asked({herd.VARIABLE: "5000"}) == 5_000
    assert herd.clients_asked({}) == herd.DEFAULT_CLIENTS


def test_the_same_loads_give_the_same_picture_with_its_text_as_text(tmp_path: Path) -> None:
    """So that it can be kept with the code."""
    loads = {f"strategy {number}": np.linspace(0, 30, 50) for number in range(4)}
    for name in ("one.svg", "two.svg"):
        draw(tmp_path / name, loads, loads, outage=10.0, until=60.0)
    picture = (tmp_path / "one.svg").read_text("utf-8")
    assert picture == (tmp_path / "two.svg").read_text("utf-8")
    assert "strategy 3</text>" in picture
    assert "date" not in picture.lower()
