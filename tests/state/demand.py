"""One worker process at full demand: four threads and four event loops that call one operation as often as they may.

    python demand.py URL STATE LIMIT BEGIN SECONDS

Begins at the moment BEGIN (since 1970) and prints, as JSON, how its calls were answered.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import httpx

from insider_otel import AsyncInsiderTransport, InsiderTransport, Settings, request_scope
from insider_otel.testing import sample_request

THREADS = LOOPS = TASKS = 4


def main(url: str, state: str, limit: str, begin: float, seconds: float) -> None:
    host = "catalog.api.useinsider.com"
    # Without retries: what Insider refuses is seen as it is.
    settings = Settings(
        hosts={url.removeprefix("http://"): host},
        limits={"catalog.ingest": limit},
        state=state,
        mode="enforce",
        quick_retries=0,
        spread_retries=0,
    )
    sample = sample_request("catalog.ingest")
    request = {"method": "POST", "url": f"{url}/v2/ingest", "headers": sample.headers, "content": sample.content}
    answers: Counter[str] = Counter()
    end = time.monotonic() + begin + seconds - time.time()

    def note(response: httpx.Response) -> bool:
        """Count an answer; whether there may be another slot in time."""
        if response.headers.get("x-insider-otel"):
            return False
        answers[str(response.status_code)] += 1
        return True

    def thread() -> None:
        transport = InsiderTransport(httpx.HTTPTransport(), settings=settings)
        with httpx.Client(transport=transport, timeout=30) as client:
            time.sleep(max(begin - time.time(), 0))
            goes_on = True
            while goes_on and time.monotonic() < end:
                with request_scope(deadline=max(end - time.monotonic(), 0)):
                    goes_on = note(client.request(**request))  # type: ignore[arg-type]

    async def task(client: httpx.AsyncClient) -> None:
        goes_on = True
        while goes_on and time.monotonic() < end:
            with request_scope(deadline=max(end - time.monotonic(), 0)):
                goes_on = note(await client.request(**request))  # type: ignore[arg-type]

    async def loop() -> None:
        transport = AsyncInsiderTransport(httpx.AsyncHTTPTransport(), settings=settings)
        async with httpx.AsyncClient(transport=transport, timeout=30) as client:
            await asyncio.sleep(max(begin - time.time(), 0))
            await asyncio.gather(*(task(client) for _ in range(TASKS)))

    # A future raises again what was raised in its thread.
    with ThreadPoolExecutor(THREADS + LOOPS) as pool:
        calls = [pool.submit(thread) for _ in range(THREADS)]
        calls += [pool.submit(lambda: asyncio.run(loop())) for _ in range(LOOPS)]
        for call in calls:
            call.result()
    print(json.dumps(answers))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], sys.argv[3], float(sys.argv[4]), float(sys.argv[5]))
