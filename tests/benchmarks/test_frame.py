"""The frame of the benchmarks: what is run, what is printed of it, and the exit status."""

from __future__ import annotations

import importlib
import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from benchmarks import import_time
from benchmarks.__main__ import main, names
from benchmarks.common.fresh import in_new_process
from benchmarks.common.timing import added, interleaved, repeated
from benchmarks.report import lines
from benchmarks.result import Measure, Result, Table

RESULT = Result(
    measures=(
        Measure("time of a call", 2.0, "µs", at_most=3.0),
        Measure("share used", 0.95, "", at_least=0.9, at_most=1.0),
        Measure("calls", 1234.5, ""),
    ),
    tables=(Table("Where it goes", ("part", "µs"), (("the verdict", "5"), ("a slot", "18"))),),
    notes=("Of one run.",),
)
MISSED = Result(measures=(Measure("time of a call", 4.0, "µs", at_most=3.0),))


@pytest.fixture
def found(monkeypatch: pytest.MonkeyPatch) -> None:
    """One benchmark that keeps its bars, and one that misses one."""
    monkeypatch.setattr("benchmarks.import_time.run", lambda: RESULT)
    monkeypatch.setattr("benchmarks.classify.run", lambda: MISSED)


@pytest.mark.parametrize("name", names())
def test_every_benchmark_can_be_run_by_its_name(name: str) -> None:
    """Whoever adds a module or a folder that is none adds a name that does nothing."""
    module = importlib.import_module(f"benchmarks.{name}")
    assert callable(module.run)
    assert module.__doc__


def test_what_helps_them_is_none() -> None:
    """They are for the others to import."""
    assert {"classify", "herd", "limiter", "overhead", "right_answers", "throughput"} <= set(names())
    assert {"__main__", "common", "report", "result"}.isdisjoint(names())


@pytest.mark.parametrize(
    ("value", "at_least", "at_most", "passes"),
    [
        (1.0, None, None, True),
        (1.0, None, 1.0, True),
        (1.1, None, 1.0, False),
        (0.9, 0.9, None, True),
        (0.8, 0.9, None, False),
        (0.95, 0.9, 1.0, True),
        (float("nan"), None, 1.0, False),
    ],
)
def test_a_number_keeps_to_its_bars_up_to_the_bar_itself(
    value: float, at_least: float | None, at_most: float | None, passes: bool
) -> None:
    """What is no number keeps to none."""
    assert Measure("x", value, "", at_least=at_least, at_most=at_most).passes is passes


def test_a_result_is_printed_as_markdown_that_reads_well_in_a_terminal() -> None:
    """Columns line up, and a bar is shown beside its number."""
    assert list(lines("overhead", RESULT)) == [
        "## overhead",
        "",
        "| measured       | value | bar           |      |",
        "| -------------- | ----- | ------------- | ---- |",
        "| time of a call | 2 µs  | ≤ 3 µs        | kept |",
        "| share used     | 0.95  | ≤ 1 and ≥ 0.9 | kept |",
        "| calls          | 1234  |               |      |",
        "",
        "**Where it goes**",
        "",
        "| part        | µs |",
        "| ----------- | -- |",
        "| the verdict | 5  |",
        "| a slot      | 18 |",
        "",
        "* Of one run.",
    ]


def test_a_missed_bar_stands_out() -> None:
    """In bold."""
    assert any("**missed**" in line for line in lines("overhead", MISSED))


@pytest.mark.usefixtures("found")
def test_the_exit_status_says_whether_all_bars_were_kept(capsys: pytest.CaptureFixture[str]) -> None:
    """So that a build can stop."""
    assert main(["import_time"]) == 0
    assert main(["classify"]) == 1
    assert main(["import_time", "classify"]) == 1
    assert capsys.readouterr().out.count("## classify\n") == 2


@pytest.mark.usefixtures("found")
def test_the_results_can_be_had_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    """All of them in one document, whatever the status."""
    assert main(["--json", "classify", "import_time"]) == 1
    printed = json.loads(capsys.readouterr().out)
    assert list(printed) == ["classify", "import_time"]
    assert printed["import_time"]["measures"][0] == {
        "what": "time of a call",
        "value": 2.0,
        "unit": "µs",
        "at_most": 3.0,
        "at_least": None,
    }
    assert printed["import_time"]["tables"][0]["rows"] == [["the verdict", "5"], ["a slot", "18"]]


def test_a_wrong_name_is_answered_with_those_that_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    """Before anything is run."""
    with pytest.raises(SystemExit, match="2"):
        main(["import_time", "overhaed"])
    printed = capsys.readouterr().err
    assert "no such benchmark: overhaed" in printed
    assert all(name in printed for name in names())


def test_blocks_take_turns_in_another_order_each_round() -> None:
    """So that a slow moment hits all of them, and none always comes first."""
    turns: list[str] = []

    def block(name: str) -> float:
        turns.append(name)
        return float(len(turns))

    samples = interleaved({name: lambda name=name: block(name) for name in "abcd"}, rounds=8)  # type: ignore[misc]
    assert turns[:4] == list("abcd"), "the round that warms up"
    rounds = ["".join(turns[start : start + 4]) for start in range(4, len(turns), 4)]
    assert len(rounds) == 8
    assert all(sorted(order) == list("abcd") for order in rounds)
    assert len(set(rounds)) > 1
    assert all(len(seconds) == 8 for seconds in samples.values())


def test_what_is_added_is_the_median_of_the_rounds() -> None:
    """A round in which the machine was busy with something else counts as one of many."""
    assert added({"ours": [3.0, 4.0, 90.0], "bare": [1.0, 1.0, 1.0]}, "ours", "bare") == 3.0


def test_a_block_does_its_thing_as_often_as_it_says() -> None:
    """And tells the seconds of one."""
    moments, done = iter([10.0, 18.0]), list[int]()
    assert repeated(lambda: done.append(1), 4, lambda: next(moments))() == 2.0
    assert len(done) == 4


def test_a_function_is_called_in_a_process_of_its_own() -> None:
    """Its result comes back, and so does its failure."""
    samples = {"bare": [1.0, 2.0], "ours": [2.0, 4.0]}
    assert in_new_process(added, samples, "ours", base="bare") == 1.5
    with pytest.raises(subprocess.CalledProcessError):
        in_new_process(added, samples, "ours", base="missing")


def told_when_ended(directory: str) -> None:
    """What a benchmark with a server does, which it has to end."""
    try:
        Path(directory, "began").touch()
        threading.Event().wait(600)
    finally:
        Path(directory, "tidied up").touch()


def test_a_process_that_nobody_waits_for_any_more_ends_what_it_has_started(tmp_path: Path) -> None:
    """Because it took too long, or somebody pressed Ctrl-C: no server is left running."""

    class GivenUpError(Exception):
        pass

    def give_up(*_: object) -> None:
        raise GivenUpError

    over = threading.Event()

    def once_it_has_begun() -> None:
        while not over.wait(0.01):
            if (tmp_path / "began").exists():
                os.kill(os.getpid(), signal.SIGUSR1)
                return

    before = signal.signal(signal.SIGUSR1, give_up)
    watch = threading.Thread(target=once_it_has_begun)
    watch.start()
    try:
        with pytest.raises(GivenUpError):
            in_new_process(told_when_ended, str(tmp_path))
    finally:
        over.set()
        watch.join()
        signal.signal(signal.SIGUSR1, before)
    assert (tmp_path / "tidied up").exists()


def test_importing_is_measured_beside_the_imports_that_an_app_has_made_anyway(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In one process, really."""
    monkeypatch.setattr(import_time, "_PROCESSES", 1)
    ours, ratio = import_time.run().measures
    assert ours.value > 0
    assert ratio.value > 0
    assert ours.at_most is not None


def test_the_command_is_python_m_benchmarks() -> None:
    """As the README has it."""
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "benchmarks", "--help"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True, timeout=120)
    assert "python -m benchmarks" in done.stdout
