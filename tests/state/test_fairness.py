"""Nobody waits longer than in a queue: first come, first served, measured caller by caller; nor much longer where
many oversleep together.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insider_otel import AsyncInsiderTransport, Settings
from insider_otel.api.operations import Limit
from insider_otel.testing import FakeInsider, sample_request
from tests.metronome import assert_nobody_is_late

from .redis_server import RedisServer, skip_without_program
from .window_model import FOREVER, new_window, rolling

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


# ---------------------------------------------------------------------------------------- where nothing ran for a while


@dataclass(frozen=True)
class Stall:
    """Waiters of whom some oversleep, for as long as nothing runs, and ask one after the other when it is over.

    Attributes:
        limit: The limit.
        arrivals: When the others come, behind those who take all of the limit at 0, in ascending order.
        began: When nothing runs from.
        ended: Until when.
    """

    limit: Limit
    arrivals: list[int]
    began: int
    ended: int

    def run(self, order: Callable[[list[int]], list[int]]) -> tuple[dict[int, int], dict[int, int]]:
        """When each of the waiters asks for its slot for the first time, and when it is served.

        Args:
            order: Says in which order those who overslept ask, by their rank.
        """
        window = new_window()
        window.reserve(self.limit, 0, cost=self.limit.count)
        slots = [window.reserve(self.limit, came, longest_wait=FOREVER)[0] for came in self.arrivals]
        overslept = [rank for rank, slot in enumerate(slots) if self.began <= slot < self.ended]
        asks = dict(enumerate(slots)) | {rank: self.ended + place for place, rank in enumerate(order(overslept))}
        events = [(moment, rank, slots[rank]) for rank, moment in asks.items()]
        heapify(events)
        served: dict[int, int] = {}
        while events:
            now, rank, slot = heappop(events)
            moment, taken = window.confirm(self.limit, slot, now, longest_wait=FOREVER)
            assert taken
            assert window.used(self.limit, now) <= self.limit.count
            if moment == now:
                served[rank] = now
            else:
                heappush(events, (moment, rank, moment))
        return {rank: asks[rank] for rank in overslept}, served


STALLS = st.builds(
    lambda count, arrivals, began, lasts: Stall(
        rolling(count, 20_000), arrivals, 20_000 + began, 20_000 + began + lasts
    ),
    st.integers(1, 4),
    st.lists(st.integers(0, 19_999), min_size=1, max_size=25).map(sorted),
    st.integers(0, 60_000),
    st.integers(1, 120_000),
)


@settings(max_examples=300)
@given(stall=STALLS)
def test_who_oversleeps_with_others_is_not_passed_by_more_than_are_served_in_a_window(stall: Stall) -> None:
    overslept, served = stall.run(list)
    for rank in overslept:
        passed_by = [other for other in served if other > rank and served[other] < served[rank]]
        assert len(passed_by) <= stall.limit.count


@settings(max_examples=300)
@given(stall=STALLS, data=st.data())
def test_in_whatever_order_those_who_overslept_ask_who_has_asked_is_not_passed_for_long(
    stall: Stall, data: st.DataObject
) -> None:
    """By fewer, of those who came after it and ask after it, than are served in two windows."""
    overslept, served = stall.run(lambda ranks: data.draw(st.permutations(ranks)))
    for rank, asked in overslept.items():
        later = [other for other in served if other > rank and overslept.get(other, FOREVER) > asked]
        assert sum(served[other] < served[rank] for other in later) < 2 * stall.limit.count
    uses = sorted(served.values())
    assert all(later - use >= 20_000 for use, later in zip(uses, uses[stall.limit.count :], strict=False))
