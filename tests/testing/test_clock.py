"""The fake clock moves when told to, or slept on, and at no other time."""

from __future__ import annotations

import anyio
import pytest

from insider_otel.testing import FakeClock


def test_it_stands_still_until_it_is_told_to_move() -> None:
    clock = FakeClock(100.0)
    assert (clock(), clock()) == (100.0, 100.0)
    clock.advance(2.5)
    assert clock() == 102.5
    assert clock.sleeps == []


def test_a_sleep_takes_no_time_and_is_recorded() -> None:
    clock = FakeClock(0.0)
    clock.sleep(300)
    clock.sleep(0)
    assert clock() == 300
    assert clock.sleeps == [300, 0]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_async_sleep_lets_others_run(backend: str) -> None:
    clock = FakeClock(0.0)
    seen: list[str] = []

    async def work(name: str) -> None:
        seen.append(f"{name} begins")
        await clock.async_sleep(10)
        seen.append(f"{name} ends")

    async def both() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(work, "a")
            tasks.start_soon(work, "b")

    anyio.run(both, backend=backend)
    assert [entry.split()[1] for entry in seen] == ["begins", "begins", "ends", "ends"]
    assert clock() == 20
    assert clock.sleeps == [10, 10]


def test_it_begins_at_a_midnight_in_utc() -> None:
    assert FakeClock()() % 86_400 == 0


@pytest.mark.parametrize("move", ["advance", "sleep"])
def test_it_does_not_go_back(move: str) -> None:
    clock = FakeClock()
    with pytest.raises(ValueError, match="does not go back"):
        getattr(clock, move)(-1)
    assert clock.sleeps == []
