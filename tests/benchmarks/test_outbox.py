"""The benchmark of the outbox, in small: nothing is lost, nothing is sent twice, and the picture that is kept stays."""

from __future__ import annotations

import pytest

from benchmarks import outbox
from benchmarks.outbox import backlog, enqueue, outage
from benchmarks.outbox.plot import draw
from benchmarks.outbox.shop import Curve, curve


def test_requests_are_counted_by_the_second() -> None:
    assert curve([0.0, 0.9, 1.0, 3.5]) == [2, 1, 0, 1]


def test_the_peak_is_looked_for_where_the_limit_holds_jobs_back() -> None:
    found = Curve(seconds=[90, 10, 12, 8, 1], drained=slice(1, 4), refused=0, delivered=121, twice=0, left=0)
    assert found.peak_over_mean == pytest.approx(1.2)


@pytest.mark.once
def test_an_outage_loses_nothing_and_its_backlog_is_worked_off_evenly() -> None:
    calls = 400
    found = outage.suffer(calls)
    assert (found.delivered, found.twice, found.left, found.refused) == (calls, 0, 0, 0)
    assert sum(found.seconds) >= calls
    assert max(found.seconds[found.drained]) <= 19, "nine tenths of twenty a second"


@pytest.mark.once
def test_a_backlog_is_worked_off_by_two_processes() -> None:
    found = backlog.work_off(60)
    assert (found.delivered, found.twice, found.left) == (60, 0, 0)
    assert sum(found.seconds) == 60


def test_keeping_is_measured_with_both_policies() -> None:
    samples = enqueue.measure(rounds=1)
    assert list(samples) == [
        f"{what}, sync={sync}" for sync in ("normal", "full") for what in (enqueue.CALL, enqueue.PUT)
    ]
    assert all(seconds > 0 for each in samples.values() for seconds in each)


def test_its_result_has_the_bars_that_were_promised(
    monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory
) -> None:
    flat = [18] * 100
    found = Curve(seconds=flat, drained=slice(0, 99), refused=0, delivered=10_000, twice=0, left=0)
    monkeypatch.setattr(outage, "suffer", lambda: found)
    monkeypatch.setattr(backlog, "work_off", lambda: found)
    monkeypatch.setattr(backlog, "JOBS", 10_000)
    monkeypatch.setattr(
        outbox,
        "in_new_process",
        lambda function: {
            f"{what}, sync={sync}": [0.0005, 0.0006]
            for what in (enqueue.PUT, enqueue.CALL)
            for sync in ("normal", "full")
        },
    )
    picture = tmp_path_factory.mktemp("picture") / "load.svg"
    monkeypatch.setattr(outbox, "PICTURE", picture)
    result = outbox.run()
    assert [measure.what for measure in result.measures if not measure.passes] == []
    bars = {measure.at_most for measure in result.measures}
    assert bars == {1.0, 1.3, 0}
    assert picture.read_text().startswith("<?xml")


def test_the_same_curves_make_the_same_picture(tmp_path_factory: pytest.TempPathFactory) -> None:
    found = Curve(seconds=[18] * 10, drained=slice(0, 9), refused=0, delivered=180, twice=0, left=0)
    pictures = [tmp_path_factory.mktemp("picture") / "load.svg" for _ in range(2)]
    for picture in pictures:
        draw(picture, found, 20.0, 60.0, found, 20.0)
    assert pictures[0].read_bytes() == pictures[1].read_bytes()
