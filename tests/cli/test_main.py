"""The command as a whole: its help, its version, its exit status, and its manners in a pipe."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

from insider_otel import __version__
from insider_otel.cli import main


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with some environment variables more."""
    return subprocess.run(
        [sys.executable, "-m", "insider_otel", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**os.environ, **variables},
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


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
@pytest.mark.parametrize("arguments", ["explain 503 -", "operations", "responses --json"])
def test_a_stream_that_the_shell_has_closed_is_an_empty_one(arguments: str, closed: str) -> None:
    command = f"exec {sys.executable} -m insider_otel {arguments} {closed}"
    done = subprocess.run(
        ["sh", "-c", command], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr, bool(done.stdout)) == (0, "", " >&-" not in f" {closed}")


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full here")
@pytest.mark.parametrize("arguments", [["operations", "--json"], ["explain", "503"], ["fake", "--port", "0"]])
def test_output_that_cannot_be_written_is_an_error_of_one_line(arguments: list[str]) -> None:
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "insider_otel", *arguments],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
            check=False,
        )
    assert (done.returncode, done.stderr) == (1, "insider-otel: [Errno 28] No space left on device\n")


TYPING = """
import os, signal, sys, time, types
from insider_otel.cli import main

def read():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(60)

sys.stdin = types.SimpleNamespace(buffer=types.SimpleNamespace(read=read))
sys.exit(main(["explain", "200", "-"]))
"""


def test_ctrl_c_while_a_body_is_typed_is_no_error_message() -> None:
    done = subprocess.run([sys.executable, "-c", TYPING], capture_output=True, timeout=60, check=False)
    assert (done.returncode, done.stdout, done.stderr.strip()) == (130, b"", b"")


def test_explain_needs_no_rich() -> None:
    """The extras are for tables on a terminal; what a reply means can be asked for without them."""
    hidden = "import sys; sys.modules['rich'] = sys.modules['uvicorn'] = sys.modules['opentelemetry.sdk'] = None; "
    script = hidden + "from insider_otel.cli import main; sys.exit(main(['explain', '503', '--json']))"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert '"category": "unavailable"' in done.stdout


MASKED = '{"error": "jane@example.com is no contact of yours"}'


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", "400", MASKED],
        ["explain", "400", MASKED, "--json"],
        ["responses"],
        ["responses", "--json"],
        ["operations"],
        ["operations", "--json"],
        ["doctor"],
        ["doctor", "--json"],
        ["demo", "--list"],
        ["demo", "--scenario", "success"],
        ["fake", "--script", "user.upsert=\u015fehir"],
    ],
    ids=" ".join,
)
def test_every_command_can_write_where_there_is_only_ascii(arguments: list[str]) -> None:
    done = run(*arguments, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    assert (done.stdout + done.stderr).isascii()
    assert "Traceback" not in done.stderr
    # What the doctor finds here is its own business; the fake is asked for a step that does not exist.
    assert done.returncode in {"doctor": (0, 1), "fake": (2,)}.get(arguments[0], (0,))
    if arguments[-1] == "--json":
        json.loads(done.stdout)


def test_a_masked_message_is_escaped_where_there_is_only_ascii() -> None:
    assert "[\\u2026]" in run("explain", "400", MASKED, PYTHONIOENCODING="ascii").stdout
    told = json.loads(run("explain", "400", MASKED, "--json", PYTHONIOENCODING="ascii").stdout)
    assert "[…]" in told["message"]
