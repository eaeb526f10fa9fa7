"""``insider-otel fake``: an Insider to talk to while developing."""

from __future__ import annotations

import argparse
from importlib.util import find_spec
from typing import Any

from insider_otel.cli.output import UsageError

_LOOPBACK = ("127.0.0.1", "localhost")


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``insider-otel``."""
    parser = commands.add_parser(
        "fake",
        help="serve a fake Insider",
        description="Serve a fake Insider until Ctrl-C. It checks what it is sent, keeps the documented limits and the "
        "duplicate window, and prints each request with its answer.",
        epilog="example: insider-otel fake --script user.upsert=503,ok --script mail.send=delay:2:504",
    )
    parser.add_argument("--port", type=int, default=8080, help="port (default: 8080); 0 takes a free one")
    parser.add_argument(
        "--host", default=_LOOPBACK[0], help=f"address (default: {_LOOPBACK[0]}); only this machine's own is allowed"
    )
    parser.add_argument(
        "--script",
        action="append",
        default=[],
        metavar="OPERATION=STEP,STEP",
        help="what happens to the next requests of an operation, or of any (*); may be repeated. A step is ok, an HTTP "
        "status, an id that `insider-otel responses` lists, reset, timeout, delay:SECONDS or truncate:BYTES; the last "
        "two may name another step: delay:2:503",
    )
    parser.add_argument("--repeat", action="store_true", help="begin a script again after its last step")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Serve until interrupted."""
    if arguments.host not in _LOOPBACK:
        raise UsageError(
            f"--host is {arguments.host!r}; the fake takes any key from anybody, so it listens on 127.0.0.1 only"
        )
    if not 0 <= arguments.port <= 65535:
        raise UsageError(f"--port is {arguments.port}; a port is a number from 0 to 65535")
    if find_spec("uvicorn") is None:
        raise UsageError("serving needs uvicorn: pip install 'insider-otel[cli]'")
    from insider_otel.cli import serving  # noqa: PLC0415  (the fake is not needed to explain a reply)

    serving.serve(arguments.port, arguments.script, repeat=arguments.repeat)
    return 0
