"""What it takes to keep a call: the outbox's own part, and the whole call that is answered with 202."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import httpx

from benchmarks.common.calls import UPSERT, instant_transport
from benchmarks.outbox.shop import LATER, settings_for, users
from insider_otel import InsiderTransport
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox

ROUNDS = 40
_EACH = 50
PUT, CALL = "put", "the whole call"


def measure(rounds: int = ROUNDS) -> dict[str, list[float]]:
    """Seconds of every put and of every deferred call, by what it is and how the disk is waited for.

    Args:
        rounds: In each, every kind has its turn.
    """
    samples: dict[str, list[float]] = {}
    with ExitStack() as stack:
        directory = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        acts: dict[str, Callable[[int], object]] = {}
        for sync in ("normal", "full"):
            path = directory / f"{sync}.db"
            transport = InsiderTransport(instant_transport(httpx), settings=settings_for(path, "off", sync=sync))
            client = stack.enter_context(httpx.Client(transport=transport))
            acts[f"{CALL}, sync={sync}"] = _deferring(client)
            acts[f"{PUT}, sync={sync}"] = _putting(client, path, sync)
        for _ in range(rounds):
            for name, act in acts.items():
                samples.setdefault(name, []).extend(_timed(act, number) for number in range(_EACH))
    return samples


def _timed(act: Callable[[int], object], number: int) -> float:
    start = perf_counter()
    act(number)
    return perf_counter() - start


def _deferring(client: httpx.Client) -> Callable[[int], object]:
    def defer(number: int) -> None:
        response = client.post(UPSERT.url, headers=UPSERT.headers, json=users(number), extensions=LATER)
        assert response.status_code == 202

    return defer


def _putting(client: httpx.Client, path: Path, sync: str) -> Callable[[int], object]:
    _deferring(client)(0)
    outbox = SQLiteOutbox(path, sync="full" if sync == "full" else "normal")
    (job,) = outbox.jobs()
    return lambda number: outbox.put(replace(job, id=uuid.uuid4().hex))
