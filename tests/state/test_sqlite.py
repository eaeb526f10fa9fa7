"""The sqlite store: many processes, and whatever can become of a file."""

from __future__ import annotations

import contextlib
import ctypes
import multiprocessing
import os
import resource
import sqlite3
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from insider_otel.api.operations import Limit
from insider_otel.state import sqlite_rows
from insider_otel.state.memory import MemoryStore
from insider_otel.state.protocol import (
    Admission,
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Correction,
    ListPools,
    PastUse,
    PoolKey,
    PoolUse,
    Report,
    Request,
    StoreError,
)
from insider_otel.state.sqlite_store import SQLiteStore

POOL = PoolKey("user.upsert", b"o" * 16)
PLENTY = Limit(1_000_000, 3600.0)
PATIENT = 10.0
LONGEST = 60.0

# A server process forks the others: each begins in milliseconds, with no thread and no connection of the tests' own.
_processes = multiprocessing.get_context("forkserver")
_processes.set_forkserver_preload([__name__])


class Clock:
    """A clock that is set by hand."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.db"


@pytest.fixture
def store(path: Path) -> Iterator[SQLiteStore]:
    store = SQLiteStore(path, timeout=PATIENT)
    yield store
    store.close()


def admit(store: SQLiteStore, limit: Limit = PLENTY, **other: Any) -> Admission:
    admission = store.perform(Admit(POOL, limit, **other))
    assert isinstance(admission, Admission)
    return admission


def use_of(store: SQLiteStore, pool: PoolKey = POOL) -> PoolUse:
    uses: tuple[PoolUse, ...] = store.perform(ListPools())
    return next(use for use in uses if use.pool == pool)


def rows(path: Path, table: str) -> int:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        (count,) = connection.execute(f"SELECT count(*) FROM {table}").fetchone()
    return int(count)


def in_processes(number: int, work: Callable[..., Any], *args: Any) -> list[Any]:
    """What ``work`` returns in each of some processes, which begin it together."""
    barrier = _processes.Barrier(number)
    answers = _processes.SimpleQueue()
    processes = [_processes.Process(target=_report, args=(answers, barrier, work, args)) for _ in range(number)]
    for process in processes:
        process.start()
    received = [answers.get() for _ in processes]
    for process in processes:
        process.join(LONGEST)
        process.close()
    for answer in received:
        if isinstance(answer, Exception):
            raise answer
    return received


def _report(answers: Any, barrier: Any, work: Callable[..., Any], args: tuple[Any, ...]) -> None:
    barrier.wait(LONGEST)
    try:
        answer = work(*args)
    except Exception as error:  # noqa: BLE001  (raised again in the test)
        answer = AssertionError(f"{type(error).__name__}: {error}")
    answers.put(answer)


# ---------------------------------------------------------------------------------------------------- the same answers

_LIMITS = st.sampled_from([None, Limit(3, 1.0), Limit(5, 0.5), Limit(4, 86_400.0, calendar=True)])
_KEYS = st.sampled_from([b"a" * 16, b"b" * 16, b"c" * 16])
_SECONDS = st.sampled_from([0.0, 0.001, 0.3, 1.0, 90_000.0])


@settings(max_examples=60, deadline=None)
@given(data=st.data())
def test_it_answers_as_the_memory_store_does(data: st.DataObject) -> None:
    """Whatever is asked, in whatever order, at whatever moment."""
    clock = Clock(1_800_000_000.0)
    memory = MemoryStore(clock, clock)
    slots: list[int] = [0]
    tokens: list[int | None] = [None]

    def corrections() -> tuple[Correction, ...]:
        correction = st.builds(
            Correction,
            st.sampled_from(slots),
            st.integers(1, 3),
            st.integers(0, 4),
            st.sampled_from([0, 1000, 400_000]),
        )
        return tuple(data.draw(st.lists(correction, max_size=2)))

    with tempfile.TemporaryDirectory() as directory:
        store = SQLiteStore(Path(directory) / "state.db", timeout=PATIENT, monotonic=clock, wall_clock=clock)
        for _ in range(data.draw(st.integers(1, 30))):
            clock.now += data.draw(_SECONDS) + 0.0001
            request: Request
            match data.draw(st.sampled_from(["admit", "admit", "admit", "report", "list"])):
                case "admit":
                    claim = st.builds(ClaimAsk, _KEYS, _SECONDS, st.sampled_from(tokens))
                    request = Admit(
                        POOL,
                        data.draw(_LIMITS),
                        cost=data.draw(st.integers(1, 4)),
                        longest_wait=data.draw(_SECONDS),
                        holding=data.draw(st.none() | st.sampled_from(slots)),
                        corrections=corrections(),
                        past=tuple(
                            data.draw(
                                st.lists(st.builds(PastUse, st.integers(0, 500_000), st.integers(1, 2)), max_size=2)
                            )
                        ),
                        claim=data.draw(st.none() | claim),
                    )
                case "report":
                    claim_report = st.builds(
                        ClaimReport, _KEYS, st.sampled_from(tokens), st.sampled_from(ClaimEnd), _SECONDS
                    )
                    request = Report(
                        POOL,
                        corrections=corrections(),
                        closed_for=data.draw(st.none() | _SECONDS),
                        learned=data.draw(_LIMITS),
                        claim=data.draw(st.none() | claim_report),
                    )
                case _:
                    request = ListPools()
            expected, answered = memory.perform(request), store.perform(request)
            if isinstance(expected, Admission):
                # What only a shared store can say.
                assert replace(answered, born=0) == expected
                if expected.slot is not None:
                    slots.append(expected.slot)
                tokens.append(expected.token)
            else:
                assert answered == expected
        store.close()


# ------------------------------------------------------------------------------------------------- many processes


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
    assert sorted(path.parent.glob("*")) == [path]
    use = use_of(SQLiteStore(path, timeout=PATIENT))
    assert (use.used, use.workers) == (32, 32)


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


# ------------------------------------------------------------------------------------------------------- trouble


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


def test_a_busy_file_is_given_up_in_time_and_nothing_is_broken_after(path: Path, store: SQLiteStore) -> None:
    admit(store)
    hasty = SQLiteStore(path, timeout=0.2)
    admit(hasty)
    with locked(path):
        for ask in (Admit(POOL, PLENTY), Report(POOL, closed_for=1.0)):
            began = time.monotonic()
            with pytest.raises(StoreError, match="locked"):
                hasty.perform(ask)
            assert time.monotonic() - began < 0.4
        assert use_of(hasty).used == 2, "who only reads waits for nobody"
    assert admit(hasty).used == 3
    hasty.close()


def test_a_busy_thread_is_given_up_in_time(path: Path) -> None:
    """One thread is held up inside its transaction; another gives up, and a third is served once it is over."""
    held, go_on = threading.Event(), threading.Event()

    def monotonic() -> float:
        held.set()
        go_on.wait(LONGEST)
        return 1000.0

    store = SQLiteStore(path, timeout=0.1, monotonic=monotonic)
    with ThreadPoolExecutor(1) as threads:
        first = threads.submit(admit, store)
        assert held.wait(LONGEST)
        with pytest.raises(StoreError, match="threads"):
            admit(store)
        go_on.set()
        assert first.result(LONGEST).used == 1
    assert admit(store).used == 2


def test_whatever_is_raised_inside_is_rolled_back(path: Path, store: SQLiteStore) -> None:
    admit(store)

    def broken() -> float:
        raise KeyboardInterrupt

    interrupted = SQLiteStore(path, timeout=PATIENT, monotonic=broken)
    with pytest.raises(KeyboardInterrupt):
        admit(interrupted)
    with locked(path):
        pass
    assert admit(store).used == 2
    interrupted.close()


def test_a_missing_directory_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"directory .*nowhere of the state file state.db does not exist: make it"):
        SQLiteStore(tmp_path / "nowhere" / "state.db")


def test_a_directory_that_goes_and_comes_back(tmp_path: Path) -> None:
    directory = tmp_path / "here"
    directory.mkdir()
    store = SQLiteStore(directory / "state.db", timeout=PATIENT)
    born = admit(store).born
    directory.rename(tmp_path / "away")
    with pytest.raises(StoreError, match="No such file or directory"):
        admit(store)
    (tmp_path / "away").rename(directory)
    assert (admit(store).born, use_of(store).used) == (born, 2)
    store.close()


def test_a_file_that_is_no_database_is_told_with_a_remedy(path: Path) -> None:
    path.write_bytes(b"no database at all" * 1000)
    store = SQLiteStore(path, timeout=PATIENT)
    for _ in range(2):
        with pytest.raises(StoreError, match=r"not a database\. Delete the file"):
            admit(store)
    path.unlink()
    assert admit(store).used == 1
    store.close()


def test_a_file_that_is_damaged_while_it_is_used(path: Path) -> None:
    store = SQLiteStore(path, timeout=PATIENT)
    for _ in range(200):
        admit(store)
    store.close()
    healthy = path.read_bytes()
    damaged = bytearray(healthy)
    damaged[4096:] = os.urandom(len(healthy) - 4096)
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match=r"malformed\. Delete the file"):
        admit(store)
    path.unlink()
    assert admit(store).used == 1
    store.close()


def test_the_database_of_something_else_is_left_alone(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE customers (name)")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="the database of something else: name another file"):
        admit(SQLiteStore(path, timeout=PATIENT))
    assert path.read_bytes() == before


def test_a_newer_schema_is_left_alone(path: Path, store: SQLiteStore) -> None:
    admit(store)
    store.close()
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("PRAGMA user_version = 99")
    with pytest.raises(
        StoreError, match=r"has schema version 99, .* reads 1: upgrade insider-otel, or name another file"
    ):
        admit(store)


def _without_rights(path: Path) -> str:
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    with pytest.raises(StoreError) as caught:
        admit(SQLiteStore(path))
    return str(caught.value)


@pytest.fixture
def public_directory() -> Iterator[Path]:
    # Not tmp_path: whoever gives up root's rights could not enter that.
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        yield directory
        directory.chmod(0o755)


def test_a_read_only_directory(public_directory: Path) -> None:
    public_directory.chmod(0o555)
    (message,) = in_processes(1, _without_rights, public_directory / "state.db")
    assert "Permission denied" in message


def test_a_read_only_file(public_directory: Path) -> None:
    path = public_directory / "state.db"
    store = SQLiteStore(path, timeout=PATIENT)
    admit(store)
    store.close()
    path.chmod(0o444)
    public_directory.chmod(0o555)
    (message,) = in_processes(1, _without_rights, path)
    assert "readonly" in message or "unable to open" in message


def _until_full(path: Path) -> tuple[str, int, int]:
    store = SQLiteStore(path, timeout=PATIENT)
    taken = 0
    admit(store)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    message = ""
    while not message and taken < 10_000:
        try:
            taken = admit(store).used
        except StoreError as error:
            message = str(error)
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    return message, taken, admit(store).used


def test_a_full_disk(path: Path) -> None:
    """What was granted before is known after, and not one use more."""
    ((message, taken, after),) = in_processes(1, _until_full, path)
    assert "full" in message or "disk I/O error" in message
    assert after == taken + 1


# -------------------------------------------------------------------------------------------------- a deleted file


def _delete_and_go_on(path: Path, deleted: list[str], open_everywhere: Any, made_anew: Any) -> int:
    store = SQLiteStore(path, timeout=PATIENT)
    for _ in range(20):
        admit(store)
    if open_everywhere.wait(LONGEST) == 0:
        for suffix in deleted:
            Path(f"{path}{suffix}").unlink()
        for _ in range(50):
            admit(store)
    made_anew.wait(LONGEST)
    for _ in range(50):
        admit(store)
    return admit(store).born


@pytest.mark.parametrize("deleted", [[""], ["", "-wal", "-shm"]], ids=["alone", "with the files beside it"])
def test_a_file_that_is_deleted_under_its_users_is_made_anew(path: Path, deleted: list[str]) -> None:
    born = in_processes(4, _delete_and_go_on, path, deleted, _processes.Barrier(4), _processes.Barrier(4))
    assert len(set(born)) == 1
    store = SQLiteStore(path, timeout=PATIENT)
    assert use_of(store).used == 50 + 4 * 51, "nobody still writes to the old file"
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store.close()


def test_a_deleted_file_shows_as_another_birth(path: Path, store: SQLiteStore) -> None:
    before = admit(store)
    path.unlink()
    after = admit(store)
    assert (before.used, after.used) == (1, 1)
    assert after.born != before.born


# ----------------------------------------------------------------------------------------------------------- forks


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


# ---------------------------------------------------------------------------------------------------------- rights


def test_the_files_are_readable_by_their_owner_alone(path: Path) -> None:
    mask = os.umask(0)
    try:
        store = SQLiteStore(path, timeout=PATIENT)
        admit(store)
    finally:
        os.umask(mask)
    assert {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()} == {
        "state.db": 0o600,
        "state.db-wal": 0o600,
        "state.db-shm": 0o600,
    }
    store.close()


def test_a_path_may_have_any_characters(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    store = SQLiteStore("ümlaut 100%?mode=memory#&.db", timeout=PATIENT)
    monkeypatch.chdir("/")
    admit(store)
    store.close()
    assert [file.name for file in tmp_path.iterdir()] == ["ümlaut 100%?mode=memory#&.db"]


# ---------------------------------------------------------------------------------------------------------- clocks


@pytest.mark.parametrize("jump", [3600.0, -3600.0])
def test_a_wall_clock_that_is_set_changes_nothing(path: Path, jump: float) -> None:
    monotonic, wall = Clock(1000.0), Clock(1_800_000_000.0)
    limit = Limit(2, 10.0)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic, wall_clock=wall)
    store.perform(Report(PoolKey("closed", b""), closed_for=60.0))
    assert [admit(store, limit).wait for _ in range(2)] == [0.0, 0.0]
    monotonic.now += 4
    wall.now += jump
    assert admit(store, limit).wait == 6.0
    assert use_of(store, PoolKey("closed", b"")).closed_for == 56.0
    store.close()


def test_time_goes_on_after_a_reboot(path: Path) -> None:
    """The machine is away for 30 seconds, and its monotonic clock begins anew."""
    limit = Limit(1, 60.0)
    before = SQLiteStore(path, timeout=PATIENT, monotonic=Clock(90_000.0), wall_clock=Clock(1_800_000_000.0))
    assert admit(before, limit).wait == 0.0
    before.close()
    monotonic = Clock(5.0)
    after = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic, wall_clock=Clock(1_800_000_030.0))
    assert admit(after, limit).wait == 30.0
    monotonic.now += 30
    assert admit(after, limit).wait == 0.0
    after.close()


def test_time_never_goes_back_after_a_reboot_with_a_clock_that_is_not_set_yet(path: Path) -> None:
    limit = Limit(1, 60.0)
    before = SQLiteStore(path, timeout=PATIENT, monotonic=Clock(90_000.0), wall_clock=Clock(1_800_000_000.0))
    admit(before, limit)
    before.close()
    after = SQLiteStore(path, timeout=PATIENT, monotonic=Clock(5.0), wall_clock=Clock(0.0))
    assert use_of(after).used == 1
    assert admit(after, limit).wait == 60.0
    after.close()


def test_calendar_days_go_by_the_wall_clock(path: Path) -> None:
    wall = Clock(1_800_000_000.0 // 86_400 * 86_400 + 86_400 - 60)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=Clock(1000.0), wall_clock=wall)
    day = Limit(1, 86_400.0, calendar=True)
    assert admit(store, day).wait == 0.0
    assert admit(store, day).wait == 62.0
    wall.now += 62
    assert admit(store, day).wait == 0.0
    store.close()


# --------------------------------------------------------------------------------------------------------- bounded


def test_moments_that_no_longer_count_are_deleted(path: Path) -> None:
    monotonic = Clock(1000.0)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic)
    limit = Limit(50, 1.0)
    for _ in range(40):
        for _ in range(50):
            assert admit(store, limit).slot is not None
        monotonic.now += 1
        assert rows(path, "moments") <= 2 * limit.count
    for _ in range(3):
        monotonic.now += 3600
        admit(store, limit)
    assert rows(path, "moments") == 1
    store.close()


def test_pools_that_nobody_asks_for_go(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite_rows, "MOST_POOLS", 3)
    monotonic = Clock(1000.0)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic)

    def ask(name: str) -> None:
        store.perform(Admit(PoolKey(name, b""), PLENTY, cost=10, worker=b"w"))

    def names() -> set[str]:
        return {use.pool.pool for use in store.perform(ListPools())}

    for name in ("a", "b", "c", "a"):
        ask(name)
        monotonic.now += 10
    ask("d")
    assert names() == {"a", "c", "d"}, "there is room for three, and b was asked for longest ago"
    monotonic.now += 3 * 86_400
    ask("e")
    ask("e")
    ask("f")
    assert names() == {"e", "f"}
    assert (rows(path, "moments"), rows(path, "workers")) == (30, 2)
    store.close()


def test_a_pool_that_is_closed_for_long_stays(path: Path) -> None:
    monotonic = Clock(1000.0)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic)
    store.perform(Report(POOL, closed_for=7 * 86_400.0))
    monotonic.now += 6 * 86_400
    store.perform(Admit(PoolKey("another", b""), PLENTY))
    assert use_of(store).closed_for == 86_400.0
    store.close()


def test_claims_are_bounded_and_the_oldest_goes(path: Path) -> None:
    store = SQLiteStore(path, timeout=PATIENT, most_claims=10)

    def ask(number: int) -> ClaimState | None:
        return admit(store, claim=ClaimAsk(bytes([number]) * 16, lease=60.0)).claim

    for number in range(25):
        assert ask(number) is ClaimState.CLAIMED
    assert rows(path, "claims") == 10
    assert [ask(number) for number in range(15, 25)] == [ClaimState.IN_FLIGHT] * 10
    assert ask(14) is ClaimState.CLAIMED
    store.close()


def test_claims_that_have_expired_go_in_passing(path: Path) -> None:
    monotonic = Clock(1000.0)
    store = SQLiteStore(path, timeout=PATIENT, monotonic=monotonic)
    for number in range(200):
        key = number.to_bytes(16, "big")
        admission = admit(store, claim=ClaimAsk(key, lease=60.0))
        store.perform(Report(POOL, claim=ClaimReport(key, admission.token, ClaimEnd.DONE, lasts=100.0)))
        monotonic.now += 10
    assert rows(path, "claims") <= 12
    store.close()


def test_a_limit_that_a_newer_version_knows_more_of_can_be_read(path: Path, store: SQLiteStore) -> None:
    store.perform(Report(POOL, learned=Limit(30, 60.0)))
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("""UPDATE pools SET learned_limit = '{"count": 31, "window": 60.0, "colour": "red"}'""")
        other.commit()
    assert admit(store).learned == Limit(31, 60.0)


# ----------------------------------------------------------------------------------------------- threads and loops


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
async def test_an_event_loop_gives_up_in_time_and_goes_on_meanwhile(path: Path) -> None:
    store = SQLiteStore(path, timeout=0.2)
    await store.perform_async(Admit(POOL, PLENTY))
    given_up: list[float] = []
    rounds = 0

    async def ask() -> None:
        with pytest.raises(StoreError):
            await store.perform_async(Admit(POOL, PLENTY))
        given_up.append(time.monotonic() - began)

    with locked(path):
        began = time.monotonic()
        async with anyio.create_task_group() as tasks:
            for _ in range(20):
                tasks.start_soon(ask)
            while len(given_up) < 20:
                rounds += 1
                await anyio.sleep(0.005)
    assert max(given_up) < 0.4
    assert rounds > 10, "the loop was free while the store waited"
    assert (await store.perform_async(Admit(POOL, PLENTY))).used == 2
    store.close()


@pytest.mark.anyio
async def test_an_answer_that_comes_late_is_not_lost(path: Path) -> None:
    def slow() -> float:
        time.sleep(0.1)
        return 1000.0

    store = SQLiteStore(path, timeout=0.05, monotonic=slow)
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
