"""`insider-otel demo --html FILE`: the file is written whole or not at all, and trouble is told before the play."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from insider_otel.cli import main
from insider_otel.cli.whole_file import NotWrittenError, whole_file

from .demo_process import command, demo, environment


def test_the_page_is_written_and_named_beside_the_text(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    done = demo("--scenario", "otp-typo", "--html", str(file))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.endswith(f"\n\nThe same as a page: {file}\n")
    assert "A one-time code with a typo" in file.read_text("utf-8")
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("missing/report.html", "cannot be written: No such file or directory"),
        ("folder", "is no regular file; choose another name"),
        ("pipe", "is no regular file; choose another name"),
        ("file/report.html", "cannot be written: Not a directory"),
    ],
)
def test_a_file_that_cannot_be_written_is_refused_before_anything_is_played(
    name: str, complaint: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    os.mkfifo(tmp_path / "pipe")
    before = sorted(tmp_path.iterdir())
    path = str(tmp_path / name)
    assert main(["demo", "--scenario", "success", "--html", path]) == 2
    said = capsys.readouterr()
    assert (said.out, said.err) == ("", f"insider-otel: --html: {path!r} {complaint}\n")
    assert sorted(tmp_path.iterdir()) == before


def test_without_jinja2_it_says_what_to_install(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "jinja2", None)
    assert main(["demo", "--html", str(tmp_path / "report.html")]) == 2
    assert capsys.readouterr().err == "insider-otel: the demo needs jinja2: pip install 'insider-otel[cli]'\n"
    assert list(tmp_path.iterdir()) == []


def test_an_interrupted_play_leaves_the_page_of_the_last_one(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("the last one", "utf-8")
    with subprocess.Popen(
        command("--html", str(file)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as process:
        assert process.stdout
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, complaint = process.communicate(timeout=60)
    assert (process.returncode, complaint) == (130, "")
    assert {each: each.read_text("utf-8") for each in tmp_path.iterdir()} == {file: "the last one"}


# ----------------------------------------------------------------------------------------------- the file itself


def test_until_it_is_written_the_file_is_what_it_was(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    file.write_text("old", "utf-8")
    with whole_file(str(file)) as write:
        assert file.read_text("utf-8") == "old"
        write("nöw")
        assert file.read_text("utf-8") == "nöw"
    assert list(tmp_path.iterdir()) == [file]


def test_trouble_of_others_is_theirs(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a port is taken"), whole_file(str(tmp_path / "report.html")):
        raise OSError("a port is taken")
    assert list(tmp_path.iterdir()) == []


def test_a_disk_that_is_full_leaves_the_old_file_and_no_half_of_the_new(tmp_path: Path) -> None:
    """Here the process may write no file of more than 1000 bytes."""
    file = tmp_path / "report.html"
    file.write_text("old", "utf-8")
    script = f"""
import resource
from insider_otel.cli.whole_file import NotWrittenError, whole_file
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
try:
    with whole_file({str(file)!r}) as write:
        write("new" * 1000)
except NotWrittenError as error:
    print(error)
"""
    # Where coverage is measured it has files of its own to write.
    untouched = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE_")}
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True, env=untouched
    )
    assert done.stdout == f"{str(file)!r} cannot be written: File too large\n"
    assert {each: each.read_text("utf-8") for each in tmp_path.iterdir()} == {file: "old"}


def test_a_folder_that_took_its_name_meanwhile_is_told(tmp_path: Path) -> None:
    file = tmp_path / "report.html"
    with whole_file(str(file)) as write:
        file.mkdir()
        with pytest.raises(NotWrittenError, match="cannot be written: Is a directory"):
            write("new")
    assert list(tmp_path.iterdir()) == [file]


def test_a_symbolic_link_stays_one(tmp_path: Path) -> None:
    target, link = tmp_path / "target.html", tmp_path / "link.html"
    target.write_text("old", "utf-8")
    link.symlink_to(target)
    with whole_file(str(link)) as write:
        write("new")
    assert link.is_symlink()
    assert target.read_text("utf-8") == "new"


def test_others_may_read_it_as_any_file_that_is_written_here(tmp_path: Path) -> None:
    usual, file = tmp_path / "usual", tmp_path / "report.html"
    usual.touch()
    with whole_file(str(file)) as write:
        write("new")
    assert file.stat().st_mode == usual.stat().st_mode
