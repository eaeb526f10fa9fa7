"""Whatever can become of a file: busy, full, read-only, damaged, deleted, or readable by others."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import sqlite3
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from insider_otel import InsiderTransport, Settings, SettingsError
from insider_otel.state.protocol import (
    Admit,
    Report,
    StoreError,
)
from insider_otel.state.sqlite_store import SQLiteStore
from insider_otel.testing import FakeInsider

from .help import LONGEST, PATIENT, PLENTY, POOL, admit, in_processes, locked, processes, use_of


def test_a_busy_file_is_given_up_in_time_and_nothing_is_broken_after(path: Path, store: SQLiteStore) -> None:
    admit(store)
    hasty = SQLiteStore(path, timeout=0.2)
    admit(hasty)
    with locked(path):
        for ask in (Admit(POOL, PLENTY), Report(POOL, closed_for=1.0)):
            began = time.monotonic()
            with pytest.raises(StoreError, match="locked"):
                hasty.perform(ask)
            # Less than what sqlite itself waits, unless it is told otherwise.
            assert time.monotonic() - began < 4
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


def test_a_directory_in_place_of_the_file_is_told_at_once(tmp_path: Path) -> None:
    says = re.escape(f"the state file {tmp_path.resolve()} is a directory: name a file in it")
    with pytest.raises(StoreError, match=says):
        SQLiteStore(tmp_path)
    with pytest.raises(SettingsError, match=rf"state \(INSIDER_OTEL_STATE\).*{says}"):
        InsiderTransport(FakeInsider().transport(), settings=Settings(state=f"sqlite:///{tmp_path}"))


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
        with pytest.raises(StoreError, match=r"not a database\. Name another file, or delete this one if insider-otel"):
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


@pytest.mark.parametrize("version", [1, 99])
def test_a_version_alone_makes_no_file_ours(path: Path, version: int) -> None:
    """Other programs number their schemas too; theirs is neither changed nor called damaged by age."""
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE customers (name)")
        other.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(StoreError, match="the database of something else: name another file"):
        admit(SQLiteStore(path, timeout=PATIENT))
    assert path.read_bytes() == before


def test_a_damaged_database_of_something_else_is_not_to_be_deleted(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE customers (name)")
    damaged = bytearray(path.read_bytes())
    damaged[100:] = os.urandom(len(damaged) - 100)
    path.write_bytes(damaged)
    with pytest.raises(StoreError, match=r"malformed\. Name another file, or delete this one if insider-otel made it"):
        admit(SQLiteStore(path, timeout=PATIENT))


def test_an_error_names_the_file_once_and_first(path: Path, store: SQLiteStore) -> None:
    admit(store)
    hasty = SQLiteStore(path, timeout=0.05)
    messages: list[str] = []
    with locked(path), pytest.raises(StoreError) as busy:
        admit(hasty)
    messages.append(str(busy.value))
    hasty.close()
    store.close()
    path.parent.rename(path.parent.with_name("elsewhere"))
    with pytest.raises(StoreError) as missing:
        admit(store)
    messages.append(str(missing.value))
    for message in messages:
        assert message.startswith(f"{store.address}: ")
        assert message.count(str(path)) == 1


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
    born = in_processes(4, _delete_and_go_on, path, deleted, processes.Barrier(4), processes.Barrier(4))
    assert len(set(born)) == 1
    store = SQLiteStore(path, timeout=PATIENT)
    assert use_of(store).used == 50 + 4 * 51, "nobody still writes to the old file"
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store.close()


def _replace_and_go_on(path: Path, saved: Path, open_everywhere: Any, replaced: Any) -> int:
    store = SQLiteStore(path, timeout=PATIENT)
    for _ in range(20):
        admit(store)
    if open_everywhere.wait(LONGEST) == 0:
        saved.replace(path)
        for _ in range(50):
            admit(store)
    replaced.wait(LONGEST)
    for _ in range(50):
        admit(store)
    return admit(store).born


def test_a_file_that_is_put_in_its_place_is_used_by_all_and_stays_whole(path: Path) -> None:
    saved = SQLiteStore(path.with_name("saved.db"), timeout=PATIENT)
    before = [admit(saved) for _ in range(30)][-1]
    saved.close()
    barriers = processes.Barrier(4), processes.Barrier(4)
    assert set(in_processes(4, _replace_and_go_on, path, path.with_name("saved.db"), *barriers)) == {before.born}
    store = SQLiteStore(path, timeout=PATIENT)
    assert use_of(store).used == 30 + 50 + 4 * 51, "nobody has written the old one's log over it"
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store.close()


def _move_away_and_back(path: Path, open_everywhere: Any, put_back: Any) -> int:
    store = SQLiteStore(path, timeout=PATIENT)
    for _ in range(20):
        admit(store)
    if open_everywhere.wait(LONGEST) == 0:
        away = path.rename(path.with_name("away.db"))
        assert admit(store).used == 1
        away.rename(path)
        for _ in range(50):
            admit(store)
    put_back.wait(LONGEST)
    for _ in range(50):
        admit(store)
    return admit(store).born


def test_a_file_that_is_put_back_is_used_by_those_who_did_not_miss_it(path: Path) -> None:
    """They still have the log open that was beside it before."""
    assert len(set(in_processes(4, _move_away_and_back, path, processes.Barrier(4), processes.Barrier(4)))) == 1
    store = SQLiteStore(path, timeout=PATIENT)
    assert use_of(store).used == 4 * 20 + 50 + 4 * 51
    with contextlib.closing(sqlite3.connect(path)) as other:
        assert other.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    store.close()


def test_a_file_that_is_put_in_the_place_of_one_just_made(path: Path, store: SQLiteStore) -> None:
    saved, other = SQLiteStore(path.with_name("saved.db"), timeout=PATIENT), SQLiteStore(path, timeout=PATIENT)
    admit(saved)
    saved.close()
    for each in (store, other):
        admit(each)
    path.with_name("saved.db").replace(path)
    assert [admit(each).used for each in (store, other, store, other)] == [2, 3, 4, 5]
    other.close()


def test_a_deleted_file_shows_as_another_birth(path: Path, store: SQLiteStore) -> None:
    before = admit(store)
    path.unlink()
    after = admit(store)
    assert (before.used, after.used) == (1, 1)
    assert after.born != before.born


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
