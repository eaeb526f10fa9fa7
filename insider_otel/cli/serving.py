"""The fake Insider as a server in the foreground that tells what it is asked."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Sequence
from urllib.parse import quote

from insider_otel.cli.output import UsageError
from insider_otel.policy.settings import variable_of
from insider_otel.testing import FakeInsider, Step, delay, reply, reset, timeout, truncate
from insider_otel.testing._wire import Plan, Request
from insider_otel.testing.faults import step_of
from insider_otel.testing.server import ServedFake

_PLAIN: dict[str, Callable[[], Step]] = {"reset": reset, "timeout": timeout}
_NUMBERED: dict[str, Callable[[str, Step], Step]] = {
    "delay": lambda seconds, then: delay(float(seconds), then),
    "truncate": lambda after_bytes, of: truncate(int(after_bytes), of),
}


def serve(port: int, scripts: Sequence[str], *, repeat: bool = False) -> None:
    """Serve a fake Insider on 127.0.0.1 until Ctrl-C, and print each request with its answer.

    Args:
        port: The port; 0 for any that is free.
        scripts: As ``OPERATION=STEP,STEP``.
        repeat: Whether scripts begin again after their last step.

    Raises:
        UsageError: A script cannot be read, or the port is taken.
    """
    fake = TalkingFake()
    for script in scripts:
        try:
            operation, steps = read_script(script)
            fake.script(operation, *steps, repeat=repeat)
        except ValueError as error:
            raise UsageError(f"--script is {script!r}: {error}") from None
    try:
        with fake.serve(port) as served:
            _announce(served)
            threading.Event().wait()
    except KeyboardInterrupt:
        print("stopped", flush=True)
    except OSError as error:
        raise UsageError(f"cannot listen on port {port}: {error.strerror}; choose another with --port") from error


def read_script(text: str) -> tuple[str, list[Step]]:
    """An operation and its steps from their spelling on the command line.

    Args:
        text: ``OPERATION=STEP,STEP``.

    Raises:
        ValueError: It is not of that form, or a step cannot be read.
    """
    operation, equals, steps = text.partition("=")
    if not equals:
        raise ValueError("it accepts OPERATION=STEP,STEP")
    return operation.strip(), [read_step(step) for step in steps.split(",")]


def read_step(text: str) -> Step:
    """A step of a script from its spelling on the command line.

    Args:
        text: ``ok``, an HTTP status, the id of a documented response, ``reset``, ``timeout``, ``delay:SECONDS`` or
            ``truncate:BYTES``; the last two may go on with ``:STEP``.

    Raises:
        ValueError: It is none of them.
    """
    name, _, rest = text.strip().partition(":")
    if name in _NUMBERED:
        number, _, then = rest.partition(":")
        return _NUMBERED[name](number, read_step(then or "ok"))
    if rest:
        raise ValueError(f"step {text.strip()!r}: only delay and truncate take a number")
    if name in _PLAIN:
        return _PLAIN[name]()
    if name.isascii() and name.isdigit():
        if not 200 <= int(name) <= 599:
            raise ValueError(f"step {name!r}: a status is a number from 200 to 599")
        return reply(int(name))
    return step_of(name)


class TalkingFake(FakeInsider):
    """A fake that prints each request with its answer; no header, no body, no query."""

    def handle(self, request: Request) -> Plan:
        """Decide what happens to a request, and print it."""
        plan = super().handle(request)
        last = self.requests[-1]
        answer = f"{last.status or plan.end.value}{f' after {plan.delay:g} s' if plan.delay else ''}"
        # Quoted, because what a client sends must not drive the terminal.
        print(f"{quote(last.method)} {quote(last.host)}{quote(last.path)} ({last.operation}): {answer}", flush=True)
        return plan


def _announce(served: ServedFake) -> None:
    print(
        f"A fake Insider listens on {served.url}",
        "Point an app with insider-otel at it: send to that address in place of Insider's, and set",
        f"    {variable_of('hosts')}='{json.dumps(served.hosts)}'",
        "It takes any key and keeps everything in memory. Ctrl-C stops it.",
        sep="\n",
        flush=True,
    )
