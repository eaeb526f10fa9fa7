"""The command ``insider-otel``."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence

from insider_otel._version import __version__
from insider_otel.cli import demo, doctor, explain, fake, limits, operations, outbox, responses
from insider_otel.cli.output import UsageError, discard_output

_COMMANDS = (demo, explain, responses, operations, limits, outbox, fake, doctor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    Args:
        argv: Arguments without the program's name; those of the process by default.

    Returns:
        The exit status: 0 if all is well, 1 if the command found errors or its output cannot be written, 2 if it was
        asked for something it cannot do, 130 after Ctrl-C.
    """
    parser = argparse.ArgumentParser(
        prog="insider-otel", description="What Insider's replies mean, and what insider-otel does about them."
    )
    parser.add_argument("--version", action="version", version=f"insider-otel {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for command in _COMMANDS:
        command.add_parser(commands)
    _open_closed_streams()
    _write_whatever_the_encoding()
    arguments = parser.parse_args(argv)
    try:
        status: int = arguments.run(arguments)
        sys.stdout.flush()
    except UsageError as error:
        print(f"insider-otel: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return 130
    except OSError as error:
        # A reader that is gone, such as `head`, has seen enough.
        if not isinstance(error, BrokenPipeError):
            print(f"insider-otel: {error}", file=sys.stderr)
        try:
            sys.stdout.flush()
        except OSError:
            discard_output()
        return 1
    return status


def _open_closed_streams() -> None:
    """Let a standard stream that the shell has closed (``>&-``) be an empty file: Python has None in its place."""
    sys.stdin = sys.stdin or open(os.devnull)  # noqa: SIM115
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115


def _write_whatever_the_encoding() -> None:
    """Let what a terminal's encoding has no character for be written as an escape, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
