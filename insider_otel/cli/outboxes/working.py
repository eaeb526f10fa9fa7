"""``run``: a worker in the foreground, until it is told to stop or nothing is left to do."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from typing import cast

from insider_otel.cli.output import UsageError, print_json
from insider_otel.delivery.worker import DEFAULT_CONCURRENCY, Worker
from insider_otel.http.engine import Engine
from insider_otel.outbox.protocol import JobStore, OutboxError
from insider_otel.policy.settings import SettingsError

_MOST = 256
_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def work(engine: Engine, arguments: argparse.Namespace) -> int:
    """Run the command.

    Args:
        engine: Names the outbox.
        arguments: What the parser made of the command line.

    Returns:
        The exit status: 1 if the outbox is in trouble.

    Raises:
        UsageError: It cannot be done.
    """
    concurrency = DEFAULT_CONCURRENCY if arguments.concurrency is None else arguments.concurrency
    if not 1 <= concurrency <= _MOST:
        raise UsageError(f"--concurrency is {concurrency}; it accepts a number from 1 to {_MOST}")
    try:
        worker = Worker(engine, concurrency=concurrency)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    assert engine.desk is not None, "the worker has looked"
    try:
        with _stopped_by_signals(worker):
            if not arguments.json:
                print(f"Sending the jobs of {engine.desk.url.display}. SIGTERM or Ctrl-C stops it.", flush=True)
            worker.run(drain=arguments.drain)
        stats = cast("JobStore", engine.desk.outbox).stats()
    except OutboxError as error:
        print(f"insider-otel: the outbox cannot be used: {error}", file=sys.stderr)
        return 1
    if arguments.json:
        done = {"sent": worker.sent, "given_up": worker.given_up}
        print_json({**done, "waiting": stats.waiting, "dead": stats.dead})
    else:
        print(f"Stopped; {worker.sent} sent, {worker.given_up} given up.", end=" ")
        print(f"The outbox has {stats.waiting} waiting, {stats.dead} dead.", flush=True)
    return 0


@contextmanager
def _stopped_by_signals(worker: Worker) -> Generator[None]:
    def stop(number: int, frame: FrameType | None) -> None:
        # Who asks twice does not want to wait.
        signal.signal(number, signal.SIG_DFL)
        worker.stop()

    before = {number: signal.signal(number, stop) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
