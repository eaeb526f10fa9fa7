"""Four threads that send as much as they may, with the fake Insider's exact rolling limit as the judge."""

from __future__ import annotations

import random
import statistics
import threading
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import httpx
import limits
import limits.storage
import limits.strategies
import pyrate_limiter
import redis
import stamina
from httpx_retries import Retry, RetryTransport

from benchmarks.common.calls import UPSERT
from insider_otel import InsiderTransport, Settings
from insider_otel.testing import FakeInsider

THREADS = 4
COUNT = 100
WINDOW = 2
SECONDS = 10
# What the way to Insider takes varies, so requests do not arrive as far apart as they were sent.
FASTEST, SLOWEST = 0.005, 0.05

_POOL = UPSERT.operation.pool

Call = Callable[[], httpx.Response]


class _Way(httpx.BaseTransport):
    """The way to Insider, and what Insider said when."""

    def __init__(self) -> None:
        self._insider = FakeInsider(limits={_POOL: f"{COUNT}/{WINDOW}s"}, clock=time.monotonic).transport()
        self._random = random.Random(0)
        self._lock = threading.Lock()
        self.judged: list[tuple[float, int]] = []

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        with self._lock:
            there = self._random.uniform(FASTEST, SLOWEST)
        time.sleep(there)
        with self._lock:
            moment = time.monotonic()
            response: httpx.Response = self._insider.handle_request(request)
            self.judged.append((moment, response.status_code))
        return response


def judge(name: str, redis_url: str | None) -> dict[str, float]:
    """Send for ``SECONDS``.

    Args:
        name: One of ``SENDERS`` or, with a Redis server, of ``REDIS_SENDERS``.
        redis_url: The server's address.

    Returns:
        ``refused``: how often Insider said "too many". ``share``: the length of a window, to the time from a request
        that was taken until the one that has its place in the limit; 1 if no place is free for a moment. ``failed``:
        calls that ended without success.
    """
    way = _Way()
    with TemporaryDirectory(prefix="insider-otel-") as directory:
        places = {"sqlite": f"sqlite:///{Path(directory) / 'state.db'}", "redis": redis_url or ""}
        call = (SENDERS | REDIS_SENDERS)[name](way, places)
        start = time.monotonic()
        failed = _send(call, start + SECONDS)
    judged = [(moment, status) for moment, status in way.judged if moment < start + SECONDS]
    refused = sum(status == 429 for _, status in judged)
    taken = [moment for moment, status in judged if status == 200]
    share = WINDOW / statistics.mean(later - earlier for earlier, later in zip(taken, taken[COUNT:], strict=False))
    return {"refused": refused, "share": share, "failed": failed}


def _send(call: Call, until: float) -> int:
    failures: list[int] = []

    def work() -> None:
        failed = 0
        while time.monotonic() < until:
            try:
                failed += not call().is_success
            except httpx.HTTPStatusError:
                failed += 1
        failures.append(failed)

    threads = [threading.Thread(target=work) for _ in range(THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sum(failures)


Places = dict[str, str]
Sender = Callable[[httpx.BaseTransport, Places], Call]


def _through(transport: httpx.BaseTransport) -> Call:
    client = httpx.Client(transport=transport)
    return lambda: client.post(UPSERT.url, content=UPSERT.content, headers=UPSERT.headers)


def _bare(way: httpx.BaseTransport, places: Places) -> Call:
    return _through(way)


def _httpx_retries(way: httpx.BaseTransport, places: Places) -> Call:
    # Its defaults, but for the method: without that it would not try a POST again.
    return _through(RetryTransport(transport=way, retry=Retry(allowed_methods=["POST"])))


def _stamina(way: httpx.BaseTransport, places: Places) -> Call:
    send = _through(way)

    stamina.instrumentation.set_on_retry_hooks([])  # it would log each retry

    @stamina.retry(on=httpx.HTTPStatusError)
    def call() -> httpx.Response:
        return send().raise_for_status()

    return call


def _insider_otel(state: str) -> Sender:
    def sender(way: httpx.BaseTransport, places: Places) -> Call:
        settings = Settings(limits={_POOL: f"{COUNT}/{WINDOW}s"}, state=places.get(state, "memory://"))
        return _through(InsiderTransport(way, settings=settings))

    return sender


def _limits(state: str) -> Sender:
    def sender(way: httpx.BaseTransport, places: Places) -> Call:
        storage = limits.storage.storage_from_string(places.get(state, "memory://"))
        limiter = limits.strategies.MovingWindowRateLimiter(storage)
        item = limits.RateLimitItemPerSecond(COUNT, WINDOW)
        send = _through(way)

        def call() -> httpx.Response:
            while not limiter.hit(item, "account"):
                # It has no way to wait: it tells when the next will be free.
                time.sleep(max(limiter.get_window_stats(item, "account").reset_time - time.time(), 0.001))
            return send()

        return call

    return sender


def _pyrate(state: str) -> Sender:
    def sender(way: httpx.BaseTransport, places: Places) -> Call:
        rates = [pyrate_limiter.Rate(COUNT, WINDOW * 1000)]
        bucket: Any
        match state:
            case "sqlite":
                path = places["sqlite"].removeprefix("sqlite:///")
                bucket = pyrate_limiter.SQLiteBucket.init_from_file(rates, db_path=path)
            case "redis":
                bucket = pyrate_limiter.RedisBucket.init(rates, redis.Redis.from_url(places["redis"]), "account")
            case _:
                bucket = pyrate_limiter.InMemoryBucket(rates)
        limiter = pyrate_limiter.Limiter(bucket)
        send = _through(way)

        def call() -> httpx.Response:
            limiter.try_acquire("account")
            return send()

        return call

    return sender


SENDERS: dict[str, Sender] = {
    "nothing": _bare,
    "httpx-retries": _httpx_retries,
    "stamina": _stamina,
    "limits, memory": _limits("memory"),
    "pyrate-limiter, memory": _pyrate("memory"),
    "insider-otel, memory": _insider_otel("memory"),
    "pyrate-limiter, sqlite": _pyrate("sqlite"),
    "insider-otel, sqlite": _insider_otel("sqlite"),
}
REDIS_SENDERS: dict[str, Sender] = {
    "limits, redis": _limits("redis"),
    "pyrate-limiter, redis": _pyrate("redis"),
    "insider-otel, redis": _insider_otel("redis"),
}
