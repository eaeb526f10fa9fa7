"""The switch: on and off, nested, out of order, for every thread and task."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import anyio
import pytest

from insider_otel.policy.testing_mode import TestingMode, current
from insider_otel.testing import is_testing, set_testing


@pytest.fixture(autouse=True)
def off_again() -> Iterator[None]:
    set_testing(False)
    yield
    set_testing(False)


def test_it_is_off_unless_asked_for() -> None:
    code = "from insider_otel.policy.testing_mode import current; assert current() is None"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=30)


def test_a_plain_call_holds_until_the_next() -> None:
    set_testing()
    assert current() == TestingMode(attempts=1, sleep=False)
    set_testing(attempts=3, sleep=True)
    assert current() == TestingMode(attempts=3, sleep=True)
    assert is_testing()
    set_testing(False)
    assert current() is None
    assert not is_testing()


def test_a_block_holds_inside_and_puts_things_back() -> None:
    set_testing(attempts=2)
    with set_testing(attempts=5):
        assert current() == TestingMode(attempts=5)
        with set_testing(False):
            assert current() is None
        assert current() == TestingMode(attempts=5)
    assert current() == TestingMode(attempts=2)


def test_a_block_puts_things_back_after_an_exception() -> None:
    with pytest.raises(ZeroDivisionError), set_testing():
        raise ZeroDivisionError
    assert current() is None


def test_blocks_may_end_in_another_order_than_they_began() -> None:
    first, second = set_testing(attempts=1), set_testing(attempts=2)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert current() == TestingMode(attempts=2)
    second.__exit__(None, None, None)


@pytest.mark.parametrize("order", [(0, 1, 2), (0, 2, 1), (1, 0, 2), (1, 2, 0), (2, 0, 1), (2, 1, 0)])
def test_blocks_that_were_prepared_beforehand_put_things_back_too(order: tuple[int, ...]) -> None:
    set_testing(attempts=9)
    switches = [set_testing(attempts=1), set_testing(attempts=2), set_testing(False)]
    for each in order:
        with switches[each]:
            assert current() == (TestingMode(attempts=1), TestingMode(attempts=2), None)[each]
    assert current() == TestingMode(attempts=9)
    set_testing(False)
    first, second = set_testing(), set_testing()
    with first, second:
        assert is_testing()
    assert not is_testing()


def test_a_plain_call_inside_a_block_holds_after_it() -> None:
    with set_testing(attempts=2):
        set_testing(attempts=9)
        assert current() == TestingMode(attempts=2)
    assert current() == TestingMode(attempts=9)


def test_it_reaches_other_threads() -> None:
    seen: list[TestingMode | None] = []
    with set_testing(attempts=4):
        thread = threading.Thread(target=lambda: seen.append(current()))
        thread.start()
        thread.join(5)
    assert seen == [TestingMode(attempts=4)]


def test_blocks_of_many_threads_leave_nothing_behind() -> None:
    def work() -> None:
        for attempts in range(1, 200):
            with set_testing(attempts=attempts):
                assert is_testing()

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert current() is None


def test_blocks_of_tasks_that_take_turns_leave_nothing_behind() -> None:
    async def work(attempts: int) -> None:
        with set_testing(attempts=attempts):
            await anyio.sleep(0.001 * (5 - attempts))
            assert is_testing()

    async def all_at_once() -> None:
        async with anyio.create_task_group() as tasks:
            for attempts in range(1, 5):
                tasks.start_soon(work, attempts)

    anyio.run(all_at_once)
    assert current() is None


@pytest.mark.parametrize("attempts", [0, -1])
def test_a_call_makes_at_least_one_attempt(attempts: int) -> None:
    with pytest.raises(ValueError, match="attempts"):
        set_testing(attempts=attempts)
    assert current() is None
