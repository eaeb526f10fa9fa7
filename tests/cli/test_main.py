"""The command as a whole: its help, its version, its exit status, and its manners in a pipe."""

from __future__ import annotations

import subprocess
import sys

import pytest

from insider_otel import __version__
from insider_otel.cli import main


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "insider_otel", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_help_lists_every_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    printed = capsys.readouterr().out
    assert [
        name for name in ("demo", "explain", "responses", "operations", "fake", "doctor") if name not in printed
    ] == []


@pytest.mark.parametrize("command", ["demo", "explain", "responses", "operations", "fake", "doctor"])
def test_every_command_has_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    assert f"insider-otel {command}" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["explain"], ["operations", "--nonsense"]])
def test_what_is_no_command_is_a_usage_error(arguments: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2


def test_it_runs_as_a_module() -> None:
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"insider-otel {__version__}\n")


def test_a_usage_error_ends_the_process_with_2_and_one_line() -> None:
    done = run("explain", "99")
    assert done.returncode == 2
    assert done.stderr == "insider-otel: STATUS is 99; an HTTP status is a number from 100 to 599\n"


def test_a_reader_that_has_seen_enough_is_no_error_message() -> None:
    """`insider-otel operations --json | head -1` ends quietly."""
    with subprocess.Popen(
        [sys.executable, "-m", "insider_otel", "operations", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        assert process.stderr.read() == ""
        assert process.wait(timeout=60) == 1


def test_explain_needs_no_rich() -> None:
    """The extras are for tables on a terminal; what a reply means can be asked for without them."""
    hidden = "import sys; sys.modules['rich'] = sys.modules['uvicorn'] = sys.modules['opentelemetry.sdk'] = None; "
    script = hidden + "from insider_otel.cli import main; sys.exit(main(['explain', '503', '--json']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"category": "unavailable"' in done.stdout
