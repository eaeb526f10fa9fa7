"""The processes that are killed: writers, which defer calls, and workers, which deliver them."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx

from insider_otel import InsiderTransport, Settings, request_scope
from insider_otel.api.classify import classify
from insider_otel.delivery.worker import Worker
from insider_otel.http.engine import Engine
from insider_otel.http.transport import EngineTransport
from insider_otel.testing.samples import sample_request

LEASE = 4.0
"""Seconds. Renewed three times as often: a machine may stall for longer than a second without anybody losing one."""

DELIVERIES = 4
"""At a time, in each worker."""

KEYS = {"X-PARTNER-NAME": "fakeshop", "X-REQUEST-TOKEN": "fake-key", "X-INS-AUTH-KEY": "fake-key"}

_PAUSE = 0.004
_LINES = 40

# A server process forks the others: each begins in milliseconds, with no thread and no connection of the test's own.
processes = multiprocessing.get_context("forkserver")
processes.set_forkserver_preload([__name__, "insider_otel.outbox.sqlite_outbox", "insider_otel.http.deferral"])

# What every process reads once is read before they are forked: two hundred are.
classify(200)
sample_request("mail.send")


@dataclass(frozen=True)
class Place:
    """Where everything is.

    Attributes:
        directory: Holds the outbox, and what writers were told.
        url: Insider's.
        hosts: Insider's, for ``Settings.hosts``.
    """

    directory: Path
    url: str
    hosts: dict[str, str]

    def settings(self) -> Settings:
        return Settings(
            hosts=self.hosts,
            outbox=f"sqlite:///{self.directory / 'outbox.db'}?timeout=30",
            credentials=lambda operation, account: KEYS,
            quick_retries=1,
            quick_delay=0.05,
            retry_window=0.4,
        )

    @property
    def told(self) -> Path:
        """The file of what writers were told."""
        return self.directory / "told"


def write(place: Place, name: str, ready: Connection) -> None:
    """Make calls until the end: most are asked to be sent later, the rest are handed over if Insider fails.

    Each 202 is written down, on the disk, before the next call.
    """
    told = os.open(place.told, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    transport = InsiderTransport(httpx.HTTPTransport(verify=False), settings=place.settings())
    with httpx.Client(transport=transport, headers={"user-agent": name}) as client:
        for number in itertools.count():
            marker = f"{name}-{number}"
            operation, body, extensions = _call(number, marker)
            sample = sample_request(operation, body, base_url=place.url)
            with request_scope(deadline=0.3):
                try:
                    response = client.post(
                        sample.url, headers=sample.headers, content=sample.content, extensions=extensions
                    )
                except httpx.TransportError:
                    continue
            said = response.headers.get("x-insider-otel", "")
            if said.startswith("deferred; job="):
                os.write(told, f"{marker} {said.removeprefix('deferred; job=')}\n".encode())
                os.fsync(told)
            if number == 0:
                ready.send_bytes(b"ready")
            time.sleep(_PAUSE)


def _call(number: int, marker: str) -> tuple[str, Any, dict[str, Any]]:
    """The operation, the body and what is asked of one call."""
    asks: list[dict[str, Any]] = [{}, {"defer": True}, {"ordering_key": f"user-{number // 9 % _LINES}"}]
    options = asks[number % 3]
    match number // 3 % 3:
        case 0:
            body: Any = {"users": [{"identifiers": {"email": f"{marker}@example.com"}, "attributes": {"name": "Jane"}}]}
            operation = "user.upsert"
        case 1:
            operation, body = "mail.send", dict(sample_request("mail.send").json, subject=marker)
        case _:
            operation, body = "sms.send", {"to": "+905550000001", "content": marker}
    return operation, body, {"insider": options} if options else {}


def marker_of(operation: str, body: Any) -> str:
    """The call that a request belongs to."""
    match operation:
        case "user.upsert":
            email: str = body["users"][0]["identifiers"]["email"]
            return email.removesuffix("@example.com")
        case "mail.send":
            return str(body["subject"])
    return str(body["content"])


def line_of(marker: str) -> int | None:
    """Which of the calls of an operation a call is in line with; None if with none."""
    number = int(marker.rpartition("-")[2])
    return number // 9 % _LINES if number % 3 == 2 else None


def deliver(place: Place, name: str, ready: Connection) -> None:
    """Deliver until the end."""
    engine = Engine(place.settings())
    transport = EngineTransport(engine, httpx.HTTPTransport(verify=False))
    client = httpx.Client(transport=transport, headers={"user-agent": name})
    ready.send_bytes(b"ready")
    Worker(engine, client=lambda: client, concurrency=DELIVERIES, lease=LEASE).run()


class Killable:
    """One role, played by one process after another.

    Args:
        role: Its name.
        play: What the process does.
        place: Where.
    """

    def __init__(self, role: str, play: Any, place: Place) -> None:
        self._role = role
        self._play = play
        self._place = place
        self._numbers = itertools.count()
        self.begin()

    def begin(self) -> None:
        """Start the next process, which will say when it works."""
        self.name = f"{self._role}-{next(self._numbers)}"
        self._ready, ready = processes.Pipe(duplex=False)
        self._process = processes.Process(target=self._play, args=(self._place, self.name, ready), daemon=True)
        self._process.start()
        ready.close()

    def wait_until_it_works(self, patience: float) -> None:
        """Wait until it has begun its work."""
        if not self._ready.poll(patience):
            raise TimeoutError(f"{self.name} does not work")
        self._ready.recv_bytes()

    def kill(self, killed: Counter[str]) -> None:
        """Kill it, and count its name: no handler, no finalizer, no buffer survives."""
        self._process.kill()
        self._process.join()
        assert self._process.exitcode == -9, f"{self.name} ended by itself, with {self._process.exitcode}"
        self._process.close()
        self._ready.close()
        killed[self.name] += 1


@contextmanager
def playing(*cast: Killable, killed: Counter[str]) -> Iterator[None]:
    """Kill whoever plays at the end of a ``with`` block."""
    try:
        yield
    finally:
        for one in cast:
            one.kill(killed)
