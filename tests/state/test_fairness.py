"""Nobody waits longer than in a queue: first come, first served, measured caller by caller."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from insider_otel import AsyncInsiderTransport, Settings
from insider_otel.testing import FakeInsider, sample_request
from tests.metronome import assert_nobody_is_late

from .redis_server import RedisServer, skip_without_program

CALLERS = 60
AT_ONCE, WINDOW = 10, 0.5


@pytest.fixture(params=["memory", "sqlite", "redis"])
def state(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "redis":
        skip_without_program()
        server: RedisServer = request.getfixturevalue("redis_for_all")
        return f"{server.url}?timeout=2&prefix=fairness"
    return "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 'state.db'}?timeout=2"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_no_caller_waits_longer_than_one_and_a_fifth_of_its_time_in_a_queue(
    state: str, backend: str, insider_spans: Any
) -> None:
    """Sixty callers come one after the other; ten are served in each half second."""
    assert_nobody_is_late(lambda: late_callers(state, backend, insider_spans))


def late_callers(state: str, backend: str, insider_spans: Any) -> list[tuple[int, float, float]]:
    """The places of those who waited too long, with the seconds they waited and those of a queue."""
    limit = f"{AT_ONCE}/{WINDOW}s"
    fake = FakeInsider(limits={"catalog.ingest": limit})
    settings = Settings(limits={"catalog.ingest": limit}, state=state, quick_retries=0, spread_retries=0)
    sample = sample_request("catalog.ingest")
    waited: list[float] = [0.0] * CALLERS

    async def main() -> None:
        transport = AsyncInsiderTransport(
            fake.transport(), settings=settings, tracer_provider=insider_spans.tracer_provider
        )
        async with (
            httpx.AsyncClient(transport=transport, headers=sample.headers) as client,
            anyio.create_task_group() as group,
        ):
            # The first opens what has to be opened, so that the others' waits are for their slots alone.
            await client.post(sample.url, content=sample.content)

            async def call(place: int) -> None:
                came = anyio.current_time()
                await client.post(sample.url, content=sample.content)
                waited[place] = anyio.current_time() - came

            for place in range(CALLERS):
                group.start_soon(call, place)
                # Its turn to ask: who starts later comes later.
                await anyio.sleep(0.002)

    # What was measured before no longer counts.
    time.sleep(WINDOW)
    anyio.run(main, backend=backend)
    assert all(request.accepted for request in fake.requests)
    # The first call of all has taken a slot; and neighbours may change places between coming and asking.
    in_a_queue = [WINDOW * ((place + 3) // AT_ONCE) for place in range(CALLERS)]
    return [
        (place, round(waited[place], 2), ideal)
        for place, ideal in enumerate(in_a_queue)
        if waited[place] > 1.2 * ideal + 0.3
    ]
