"""Whatever can become of the file: it is said clearly, and no call is lost without a word."""

from __future__ import annotations

import contextlib
import os
import re
import resource
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, cast

import httpx
import pytest

from insider_otel import InsiderTransport, Settings, SettingsError, request_scope
from insider_otel.outbox.job import Job
from insider_otel.outbox.opening import open_outbox
from insider_otel.outbox.protocol import OutboxError
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.policy.outbox_url import OutboxURL
from insider_otel.testing import FakeInsider, sample_request
from tests.state.race import in_processes

from .conftest import PATIENT
from .jobs import NOW, ids, job, put, take
from .killed import KEYS

_SAMPLE = sample_request("user.upsert")


@contextlib.contextmanager
def locked(path: Path) -> Iterator[None]:
    """Somebody else writes for a long time."""
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        yield
        other.execute("ROLLBACK")


@contextlib.contextmanager
def damaged(path: Path) -> Iterator[None]:
    """Its pages are overwritten."""
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + os.urandom(len(whole) - 4096))
    yield
    path.write_bytes(whole)


@contextlib.contextmanager
def of_another_version(path: Path, version: int = 99) -> Iterator[None]:
    """A newer version of the library has it, or an older one."""

    def become(number: int) -> None:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute(f"PRAGMA user_version = {number}")

    become(version)
    yield
    become(1)


@contextlib.contextmanager
def without_its_directory(path: Path) -> Iterator[None]:
    """Its disk is not there."""
    away = path.parent.with_name("away")
    path.parent.rename(away)
    yield
    away.rename(path.parent)


TROUBLES = {
    "locked": (locked, "locked"),
    "damaged": (damaged, r"malformed\. It holds calls that are yet to be sent: put it aside with its -wal"),
    "newer": (of_another_version, "has schema version 99, this version of insider-otel reads 1: upgrade insider-otel"),
    "gone": (without_its_directory, "No such file or directory"),
}
each_trouble = pytest.mark.parametrize("trouble", TROUBLES)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    directory = tmp_path / "data"
    directory.mkdir()
    return directory / "outbox.db"


@each_trouble
def test_it_says_what_it_is_and_goes_on_when_it_is_over(path: Path, trouble: str) -> None:
    cause, says = TROUBLES[trouble]
    before = SQLiteOutbox(path)
    kept = [put(before) for _ in range(50)]
    before.close()
    store = SQLiteOutbox(path, timeout=0.2)
    with cause(path):
        for ask in (lambda: store.put(job()), lambda: take(store)):
            with pytest.raises(OutboxError, match=says) as told:
                ask()
            assert str(told.value).startswith(f"sqlite:///{path}: ")
    store.put(late := job())
    assert list(store.jobs()) == [*kept, late]
    store.close()


@each_trouble
def test_a_call_that_would_be_handed_over_ends_as_without_an_outbox(
    path: Path, trouble: str, caplog: pytest.LogCaptureFixture
) -> None:
    cause, says = TROUBLES[trouble]
    fake = FakeInsider()
    fake.script("user.upsert", "503", repeat=True)
    settings = Settings(
        outbox=f"sqlite:///{path}?timeout=0.2", credentials=lambda operation, account: KEYS, quick_retries=0
    )
    with httpx.Client(transport=InsiderTransport(fake.transport(), settings=settings)) as client:

        def call(**asked: object) -> httpx.Response:
            with request_scope(deadline=0.5):
                return client.post(
                    _SAMPLE.url, headers=_SAMPLE.headers, content=_SAMPLE.content, extensions={"insider": asked}
                )

        assert call().status_code == 202, "all is well"
        store = SQLiteOutbox(path)
        for _ in range(50):
            put(store)
        store.close()
        # As a process does that starts meanwhile.
        cast("SQLiteOutbox", open_outbox(OutboxURL.parse(settings.outbox))).close()
        with cause(path):
            response = call()
            assert response.status_code == 503, "the app gets Insider's own answer"
            assert "x-insider-otel" not in response.headers
            sent = len(fake.requests)
            with pytest.raises(OutboxError, match=says):
                call(defer=True)
            assert len(fake.requests) == sent
        assert "was not deferred" in caplog.text
        assert call(defer=True).status_code == 202, "all is well again"
    store = SQLiteOutbox(path)
    assert store.stats().waiting == 52
    store.close()


# ----------------------------------------------------------------------------------------------------------- full disk


def _until_full(path: Path) -> tuple[str, int, int]:
    """What is said when nothing fits any more, how many jobs were kept, and how many there are later."""
    store = SQLiteOutbox(path, timeout=PATIENT)
    put(store)
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))
    kept, message = 1, ""
    while not message and kept < 10_000:
        try:
            put(store, content=b"p" * 1000)
            kept += 1
        except OutboxError as error:
            message = str(error)
    assert len(store.jobs(most=10_000)) == kept, "what is there can be read"
    resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    put(store)
    found = store.stats().waiting
    store.close()
    return message, kept, found


def test_a_full_disk_keeps_what_was_kept_and_refuses_the_next(path: Path) -> None:
    ((message, kept, found),) = in_processes(1, _until_full, path)
    assert "full" in message or "disk I/O error" in message
    assert found == kept + 1, "one more fitted when there was room again"


# --------------------------------------------------------------------------------------------------- the wrong file


def test_a_missing_directory_is_told_at_the_start(tmp_path: Path) -> None:
    says = r"directory .*nowhere of the outbox outbox.db does not exist: make it"
    path = tmp_path / "nowhere" / "outbox.db"
    with pytest.raises(OutboxError, match=says):
        SQLiteOutbox(path)
    settings = Settings(outbox=f"sqlite:///{path}", credentials=lambda operation, account: KEYS)
    with pytest.raises(SettingsError, match=rf"outbox \(INSIDER_OTEL_OUTBOX\): the {says}"):
        InsiderTransport(FakeInsider().transport(), settings=settings)


def test_a_directory_in_place_of_the_file_is_told_at_the_start(tmp_path: Path) -> None:
    says = re.escape(f"outbox {tmp_path.resolve()} is a directory: name a file in it")
    with pytest.raises(OutboxError, match=says):
        SQLiteOutbox(tmp_path)
    settings = Settings(outbox=f"sqlite:///{tmp_path}", credentials=lambda operation, account: KEYS)
    with pytest.raises(SettingsError, match=rf"outbox \(INSIDER_OTEL_OUTBOX\): the {says}"):
        InsiderTransport(FakeInsider().transport(), settings=settings)


def test_a_file_that_links_lead_to_is_made_where_they_lead(tmp_path: Path) -> None:
    stores: list[SQLiteOutbox] = []
    for release in ("one", "two"):
        link = tmp_path / release / "outbox.db"
        link.parent.mkdir()
        link.symlink_to(tmp_path / "shared.db")
        stores.append(SQLiteOutbox(link))
    every = [put(store) for store in stores]
    assert [list(store.jobs()) for store in stores] == [every, every]
    assert [(tmp_path / release / "outbox.db").is_symlink() for release in ("one", "two")] == [True, True]
    for store in stores:
        store.close()


def _without_rights(path: Path) -> str:
    if os.getuid() == 0:
        os.setgid(65534)
        os.setuid(65534)
    with pytest.raises(OutboxError) as caught:
        put(SQLiteOutbox(path))
    return str(caught.value)


def test_a_read_only_directory() -> None:
    # Not tmp_path: whoever gives up root's rights could not enter that.
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o555)
        (message,) = in_processes(1, _without_rights, Path(name, "outbox.db"))
        Path(name).chmod(0o755)
    assert "Permission denied" in message


@pytest.mark.parametrize("make_ours", [lambda path: None, lambda path: put(SQLiteOutbox(path))], ids=["empty", "ours"])
def test_a_file_that_is_no_database_is_left_alone(path: Path, make_ours: Callable[[Path], object]) -> None:
    """Also where ours was, in whose place somebody put another."""
    make_ours(path)
    for file in path.parent.iterdir():
        file.unlink()
    path.write_bytes(b"somebody's notes" * 1000)
    with pytest.raises(OutboxError, match="not a database"):
        put(SQLiteOutbox(path))
    assert path.read_bytes() == b"somebody's notes" * 1000


@pytest.mark.parametrize("version", [0, 1])
def test_the_database_of_something_else_is_left_alone(path: Path, version: int) -> None:
    with contextlib.closing(sqlite3.connect(path)) as other:
        other.execute("CREATE TABLE jobs (id)")
        other.execute(f"PRAGMA user_version = {version}")
    before = path.read_bytes()
    with pytest.raises(OutboxError, match="the database of something else: name another file"):
        put(SQLiteOutbox(path))
    assert path.read_bytes() == before


# ------------------------------------------------------------------------------------------------ under their hands


@pytest.mark.parametrize("deleted", [[""], ["", "-wal", "-shm"]], ids=["alone", "with the files beside it"])
def test_a_file_that_is_deleted_in_use_is_told_of_and_made_anew(
    path: Path, deleted: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    store, other = SQLiteOutbox(path), SQLiteOutbox(path)
    put(store)
    (lease,) = take(other)
    for suffix in deleted:
        Path(f"{path}{suffix}").unlink()
    assert caplog.text == ""
    late = put(store)
    assert "was deleted or replaced while it was in use; the deferred calls that it held are not sent" in caplog.text
    assert not other.begin(lease, NOW), "what the old file held is nobody's"
    other.delivered(lease)
    assert ids(take(other)) == [late.id], "all work with the new one"
    store.close()
    other.close()


def _save(path: Path, number: int) -> tuple[Path, list[Job]]:
    """A file that may be put in the place of another, and what it holds."""
    saved = SQLiteOutbox(path.with_name("saved.db"))
    every = [put(saved) for _ in range(number)]
    saved.close()
    return path.with_name("saved.db"), every


@pytest.mark.parametrize("deleted", [[], ["-wal", "-shm"]], ids=["alone", "without the files beside it"])
def test_a_file_that_is_put_in_its_place_is_told_of_and_used(
    path: Path, deleted: list[str], caplog: pytest.LogCaptureFixture
) -> None:
    store, other = SQLiteOutbox(path), SQLiteOutbox(path)
    saved, every = _save(path, 100)
    for each in (store, other):
        put(each)
    saved.replace(path)
    for suffix in deleted:
        Path(f"{path}{suffix}").unlink()
    assert list(store.jobs()) == every
    assert "replaced while it was in use" in caplog.text
    every += [put(each) for each in (store, other, store)]
    for each in (store, other):
        assert list(each.jobs(most=1000)) == every
        each.close()
    assert list(SQLiteOutbox(path).jobs(most=1000)) == every, "whoever comes later finds the same"


def test_a_file_that_is_put_in_its_place_while_it_is_opened(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, other = SQLiteOutbox(path), SQLiteOutbox(path)
    saved, every = _save(path, 1)
    put(store)
    store.close()
    connect = sqlite3.Connection

    def replace_and_connect(*args: Any, **options: Any) -> sqlite3.Connection:
        monkeypatch.undo()
        saved.replace(path)
        every.append(put(other))
        return connect(*args, **options)

    monkeypatch.setattr(sqlite3, "Connection", replace_and_connect)
    every += [put(each) for each in (store, other, store)]
    assert list(SQLiteOutbox(path).jobs()) == every, "the log of those who opened it meanwhile is left alone"
    for each in (store, other):
        each.close()


@pytest.mark.parametrize("notice", [put, SQLiteOutbox.close], ids=["in a later call", "at its end"])
def test_a_file_that_is_moved_away_holds_all_when_it_is_put_back(
    path: Path, notice: Callable[[SQLiteOutbox], object]
) -> None:
    """Although what was kept last was in the log beside it, which does not move with it."""
    store = SQLiteOutbox(path)
    every = [put(store) for _ in range(5)]
    away = path.rename(path.with_name("away.db"))
    notice(store)
    late = SQLiteOutbox(path)
    put(late)
    for each in (store, late):
        each.close()
    path.unlink()
    away.rename(path)
    assert list(late.jobs()) == every
    late.close()
