"""A process from which the app's processes are forked, so that hundreds of them start quickly: killed ones are many.

It reads a line for each of them from its input, and answers with a process id: ``worker``, or ``writer SEED``.
"""

from __future__ import annotations

import itertools
import os
import random
import signal
import sys
import time
from contextlib import suppress

from insider_otel.outbox.protocol import OutboxError
from tests.outbox.celery.shop import QUEUE, app, defer_call, open_client

_OPERATIONS = ("user.upsert", "user.upsert", "user.upsert", "mail.send", "sms.send")


def work(name: str) -> None:
    """Be a Celery worker of the app."""
    quiet = ("--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel", "ERROR")
    app.worker_main(["worker", "--queues", QUEUE, "--concurrency", "2", "--hostname", name, *quiet])


def write(seed: int) -> None:
    """Be a web process: defer calls, and note each that was promised to be sent."""
    ledger = os.open(os.environ["SHOP_LEDGER"], os.O_WRONLY | os.O_APPEND)
    client, url, chance = open_client(), os.environ["SHOP_URL"], random.Random(seed)
    for number in itertools.count():
        operation = chance.choice(_OPERATIONS)
        recipient = f"+90555{seed:04d}{number:03d}" if operation == "sms.send" else f"jane{seed}.{number}@example.com"
        # On a machine that stands still for a moment the broker may be too slow: nothing was promised then.
        with suppress(OutboxError):
            accepted = defer_call(client, url, operation, recipient)
            os.write(ledger, f"{accepted.operation} {accepted.recipient} {accepted.job}\n".encode())
        time.sleep(chance.uniform(0.0, 0.5))


def main() -> None:
    """Fork until there is nothing more to read."""
    # Loaded once, for all of them.
    app.loader.import_default_modules()
    app.finalize()
    open_client().close()
    for number, line in enumerate(sys.stdin):
        kind, _, seed = line.strip().partition(" ")
        pid = os.fork()
        if not pid:
            os.setsid()
            os.dup2(2, 1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            if kind == "worker":
                work(f"worker{number}@shop")
            else:
                write(int(seed))
            os._exit(0)
        print(pid, flush=True)
        while True:
            # Whoever was killed is buried.
            try:
                if os.waitpid(-1, os.WNOHANG)[0] == 0:
                    break
            except ChildProcessError:
                break


if __name__ == "__main__":
    main()
