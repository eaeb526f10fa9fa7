"""The fake Insider as a server in the foreground that tells what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from urllib.parse import quote

from insider_otel.cli.output import UsageError, discard_output
from insider_otel.policy.settings import variable_of
from insider_otel.testing import FakeInsider
from insider_otel.testing._wire import Plan, Request
from insider_otel.testing.server import ServedFake


def serve(port: int, scripts: Sequence[str], *, repeat: bool = False) -> None:
    """Serve a fake Insider on 127.0.0.1 until Ctrl-C, and print each request with its answer.

    Args:
        port: The port; 0 for any that is free.
        scripts: As ``OPERATION=STEP,STEP``.
        repeat: Whether scripts begin again after their last step.

    Raises:
        UsageError: A script cannot be read, or the port is taken.
    """
    # What it was asked is printed at once: only the last request is looked at, and it may run for weeks.
    fake = TalkingFake(keep=1)
    for script in scripts:
        try:
            operation, steps = read_script(script)
            fake.script(operation, *steps, repeat=repeat)
        except ValueError as error:
            raise UsageError(f"--script is {script!r}: {error}") from None
    with ExitStack() as stack:
        try:
            served = stack.enter_context(fake.serve(port))
        except OSError as error:
            raise UsageError(f"cannot listen on port {port}: {error.strerror}; choose another with --port") from error
        try:
            _announce(served)
            threading.Event().wait()
        except KeyboardInterrupt:
            _tell("stopped")


def read_script(text: str) -> tuple[str, list[str]]:
    """An operation and its steps from their spelling on the command line.

    Args:
        text: ``OPERATION=STEP,STEP``.

    Raises:
        ValueError: It is not of that form.
    """
    operation, equals, steps = text.partition("=")
    if not equals:
        raise ValueError("it accepts OPERATION=STEP,STEP")
    return operation.strip(), steps.split(",")


class TalkingFake(FakeInsider):
    """A fake that prints each request with its answer; no header, no body, no query."""

    def handle(self, request: Request) -> Plan:
        """Decide what happens to a request, and print it."""
        plan = super().handle(request)
        last = self.requests[-1]
        answer = f"{last.status or plan.end.value}{f' after {plan.delay:g} s' if plan.delay else ''}"
        # Quoted, because what a client sends must not drive the terminal.
        _tell(f"{quote(last.method)} {quote(last.host)}{quote(last.path)} ({last.operation}): {answer}")
        return plan


def _tell(line: str) -> None:
    """Print a line for whoever still reads; the fake serves on without a reader."""
    try:
        print(line, flush=True)
    except OSError:
        discard_output()


def _announce(served: ServedFake) -> None:
    print(
        f"A fake Insider listens on {served.url}",
        "Point an app with insider-otel at it: send to that address in place of Insider's, and set",
        f"    {variable_of('hosts')}='{json.dumps(served.hosts)}'",
        "It takes any key and keeps everything in memory. Ctrl-C stops it.",
        sep="\n",
        flush=True,
    )
