"""Who shares a sqlite store: processes, forked children, threads, event loops and greenlets."""

from __future__ import annotations

import contextlib
import ctypes
import os
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import anyio
import pytest

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import (
    Admit,
    StoreError,
)
from insider_otel.state.sqlite_store import SQLiteStore

from .help import LONGEST, PATIENT, PLENTY, POOL, Clock, admit, in_processes, locked, use_of


def _slots(path: Path, limit: Limit, number: int) -> list[int]:
    store = SQLiteStore(path, timeout=PATIENT)
    slots: list[int] = []
    for _ in range(number):
        admission = admit(store, limit, longest_wait=LONGEST, worker=os.urandom(8))
        while admission.wait:
            time.sleep(admission.wait)
            admission = admit(store, limit, longest_wait=LONGEST, holding=admission.slot)
        assert admission.slot is not None
        slots.append(admission.slot)
    return slots


def test_eight_processes_never_use_more_than_the_window_allows(path: Path) -> None:
    limit = Limit(40, 0.2)
    slots = sorted(slot for used in in_processes(8, _slots, path, limit, 40) for slot in used)
    assert len(slots) == 8 * 40
    assert all(later - earlier >= 200_000 for earlier, later in zip(slots, slots[limit.count :], strict=False))


def _born(path: Path) -> tuple[int, int]:
    admission = admit(SQLiteStore(path, timeout=PATIENT), worker=os.urandom(8))
    return admission.born, admission.used


def test_thirty_two_processes_that_begin_at_once_make_one_file(path: Path) -> None:
    answers = in_processes(32, _born, path)
    assert len({born for born, _ in answers}) == 1
    assert sorted(used for _, used in answers) == list(range(1, 33))
    # Two that close it at the same moment leave the log to the next.
    assert {file.name for file in path.parent.iterdir()} <= {"state.db", "state.db-wal", "state.db-shm"}
    use = use_of(SQLiteStore(path, timeout=PATIENT))
    assert (use.used, use.workers) == (32, 32)


def test_releases_that_link_to_one_file_share_it_from_the_beginning(tmp_path: Path) -> None:
    stores: list[SQLiteStore] = []
    for release in ("one", "two"):
        link = tmp_path / release / "state.db"
        link.parent.mkdir()
        link.symlink_to(tmp_path / "shared.db")
        stores.append(SQLiteStore(link, timeout=PATIENT))
    assert [admit(store).used for store in stores] == [1, 2]
    assert (tmp_path / "one" / "state.db").is_symlink()
    for store in stores:
        store.close()


def test_threads_take_turns(store: SQLiteStore) -> None:
    with ThreadPoolExecutor(8) as threads:
        used = [admission.used for admission in threads.map(lambda _: admit(store), range(400))]
    assert sorted(used) == list(range(1, 401))


def test_workers_count_for_a_minute_after_they_were_last_seen(path: Path) -> None:
    monotonic = Clock(1000.0)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic)
    limit = Limit(100, 1.0)
    assert [admit(store, limit, worker=worker).workers for worker in (b"a", b"b", b"a", b"c")] == [1, 2, 2, 3]
    monotonic.now += 59
    assert admit(store, limit, worker=b"a").workers == 3
    monotonic.now += 2
    assert admit(store, limit, worker=b"a").workers == 1
    assert use_of(store).workers == 1


def _fork(fork: Callable[[], int], work: Callable[[], bool]) -> int:
    process = fork()
    if process == 0:
        ended = 1
        try:
            ended = 0 if work() else 2
        finally:
            os._exit(ended)
    return process


def _ended_well(processes: list[int]) -> bool:
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes] == [0] * len(processes)


def _fork_after_use(path: Path) -> int:
    store = SQLiteStore(path, timeout=PATIENT)
    admit(store)
    children = [_fork(os.fork, lambda: all(admit(store).used for _ in range(50))) for _ in range(4)]
    for _ in range(50):
        admit(store)
    assert _ended_well(children)
    return admit(store).used


def test_children_and_parent_go_on_after_a_fork(path: Path) -> None:
    assert in_processes(1, _fork_after_use, path) == [1 + 5 * 50 + 1]


def _fork_during_use(path: Path) -> int:
    store = SQLiteStore(path, timeout=PATIENT)
    over = threading.Event()
    taken: list[int] = []

    def take() -> None:
        while not over.is_set():
            taken.append(admit(store).used)

    threads = [threading.Thread(target=take) for _ in range(2)]
    for thread in threads:
        thread.start()
    children = [_fork(os.fork, lambda: admit(store).used > 0) for _ in range(20)]
    assert _ended_well(children)
    over.set()
    for thread in threads:
        thread.join()
    return admit(store).used - len(taken)


def test_a_fork_while_threads_are_inside_the_store(path: Path) -> None:
    assert in_processes(1, _fork_during_use, path) == [20 + 1]


def _fork_behind_pythons_back(path: Path) -> int:
    store = SQLiteStore(path, timeout=PATIENT)
    admit(store)

    def is_refused() -> bool:
        with pytest.raises(StoreError, match=r"forked without Python being told.*lazy-apps"):
            admit(store)
        return True

    assert _ended_well([_fork(ctypes.PyDLL(None).fork, is_refused)])
    return admit(store).used


def test_a_fork_that_python_knows_nothing_of_is_refused_and_harms_nobody(path: Path) -> None:
    assert in_processes(1, _fork_behind_pythons_back, path) == [2]


def test_nothing_is_left_open_at_the_end_of_a_thread_or_of_the_interpreter(path: Path) -> None:
    script = """
        import sys, threading
        from insider_otel.api.operations import Limit
        from insider_otel.state.protocol import Admit, PoolKey
        from insider_otel.state.sqlite_store import SQLiteStore

        ask = Admit(PoolKey("pool", b""), Limit(100, 60.0))
        dropped = SQLiteStore(sys.argv[1], timeout=10)
        dropped.perform(ask)
        del dropped
        kept = SQLiteStore(sys.argv[1], timeout=10)
        thread = threading.Thread(target=kept.perform, args=(ask,))
        thread.start()
        thread.join()
    """
    ended = subprocess.run(
        [sys.executable, "-X", "dev", "-W", "error", "-c", textwrap.dedent(script), str(path)],
        capture_output=True,
        text=True,
        timeout=LONGEST,
        check=False,
    )
    assert (ended.returncode, ended.stderr) == (0, "")
    assert list(path.parent.iterdir()) == [path], "the last to close the file clears up"


@pytest.mark.anyio
async def test_a_call_that_is_cancelled_leaves_no_transaction(path: Path) -> None:
    store = SQLiteStore(path, timeout=PATIENT)
    await store.perform_async(Admit(POOL, PLENTY))
    with contextlib.ExitStack() as lock:
        lock.enter_context(locked(path))
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(store.perform_async, Admit(POOL, PLENTY))
            await anyio.wait_all_tasks_blocked()
            tasks.cancel_scope.cancel()
            lock.close()
    with locked(path):
        pass
    admission = await store.perform_async(Admit(POOL, PLENTY))
    assert admission.used == 3, "the one that a thread had begun was seen through, the others were not begun"
    store.close()


@pytest.mark.anyio
async def test_an_event_loop_gives_up_in_time(path: Path) -> None:
    """Many that wait for the same file give it up together, and not one after the other."""
    store = SQLiteStore(path, timeout=0.5)
    await store.perform_async(Admit(POOL, PLENTY))

    async def ask() -> None:
        with pytest.raises(StoreError):
            await store.perform_async(Admit(POOL, PLENTY))

    with locked(path):
        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(ask)
        assert time.monotonic() - began < 5
    assert (await store.perform_async(Admit(POOL, PLENTY))).used == 2
    store.close()


@pytest.mark.anyio
async def test_an_event_loop_goes_on_while_the_store_waits(path: Path) -> None:
    """The loop itself ends what the store waits for: were it not free to, the store would give up."""
    store = SQLiteStore(path, timeout=PATIENT)
    await store.perform_async(Admit(POOL, PLENTY))
    with contextlib.ExitStack() as lock:
        lock.enter_context(locked(path))
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(store.perform_async, Admit(POOL, PLENTY))
            for _ in range(20):
                await anyio.sleep(0.005)
            lock.close()
    assert (await store.perform_async(Admit(POOL, PLENTY))).used == 3
    store.close()


@pytest.mark.anyio
async def test_an_answer_that_comes_late_is_not_lost(path: Path) -> None:
    def slow() -> float:
        time.sleep(0.5)
        return 1000.0

    store = SQLiteStore(path, timeout=0.2, monotonic=slow)
    assert (await store.perform_async(Admit(POOL, PLENTY))).used == 1
    store.close()


@pytest.mark.anyio
async def test_the_apps_own_threads_may_all_be_busy(path: Path) -> None:
    store = SQLiteStore(path, timeout=PATIENT)
    over = threading.Event()
    limiter = anyio.to_thread.current_default_thread_limiter()
    async with anyio.create_task_group() as tasks:
        for _ in range(int(limiter.total_tokens)):
            tasks.start_soon(anyio.to_thread.run_sync, over.wait, LONGEST)
        await anyio.wait_all_tasks_blocked()
        assert limiter.available_tokens == 0
        assert (await store.perform_async(Admit(POOL, PLENTY))).used == 1
        over.set()
    store.close()


def test_one_store_serves_one_event_loop_after_another(path: Path) -> None:
    store = SQLiteStore(path, timeout=PATIENT)
    for backend in ("asyncio", "trio", "asyncio"):
        anyio.run(store.perform_async, Admit(POOL, PLENTY), backend=backend)
    assert use_of(store).used == 3
    store.close()


def test_greenlets_take_turns(path: Path) -> None:
    """Two processes of greenlets: whoever waits for the file lets the others of its process run."""
    pytest.importorskip("gevent", reason="gevent is not installed")
    script = """
        from gevent import monkey

        monkey.patch_all()
        import sys

        import gevent

        from insider_otel.api.operations import Limit
        from insider_otel.state.protocol import Admit, PoolKey
        from insider_otel.state.sqlite_store import SQLiteStore

        store = SQLiteStore(sys.argv[1], timeout=30)
        ask = Admit(PoolKey("user.upsert", b"o" * 16), Limit(1_000_000, 3600.0))
        gevent.joinall([gevent.spawn(store.perform, ask) for _ in range(400)], raise_error=True)
    """
    command = [sys.executable, "-c", textwrap.dedent(script), str(path)]
    for process in [subprocess.Popen(command) for _ in range(2)]:
        assert process.wait(LONGEST) == 0
    store = SQLiteStore(path, timeout=PATIENT)
    assert use_of(store).used == 2 * 400
    store.close()
