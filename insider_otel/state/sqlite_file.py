"""A sqlite file that many processes share: made once, opened once by each, asked in transactions that end in time."""

from __future__ import annotations

import os
import random
import sqlite3
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from insider_otel.state.protocol import StoreError

T = TypeVar("T")
_Identity = tuple[int, int]

# sqlite's own waiting sleeps for up to 100 ms at a time: too long for who gives up after 50.
_SHORTEST_SLEEP = 0.0001
_LONGEST_SLEEP = 0.003
_TRIES_LEFT = 20
_LONGEST_FORK_WAIT = 1.0
_LONGEST_LOG = 16_000_000
_SIBLINGS = ("-journal", "-wal", "-shm")
_NOT_A_DATABASE = frozenset({sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB})
_OF_SOMETHING_ELSE = "it is the database of something else: name another file"


def file_path(path: str | os.PathLike[str], what: str) -> Path:
    """The path of a file that is there, or can be made: absolute, for the app may change its directory later.

    Args:
        path: The path that was given. A link that leads to no file yet is not to be replaced by one: the file is made
            where it leads.
        what: What an error calls the file.

    Returns:
        Where the file is, or is to be.

    Raises:
        StoreError: Its directory does not exist, or it is a directory itself.
    """
    absolute = Path(os.path.realpath(path))
    if not absolute.parent.is_dir():
        raise StoreError(f"the directory {absolute.parent} of the {what} {absolute.name} does not exist: make it")
    if os.path.isdir(absolute):  # which Path.is_dir does not always answer: it raises where it may not look
        raise StoreError(f"the {what} {absolute} is a directory: name a file in it")
    return absolute


@dataclass(frozen=True, slots=True)
class FileKind:
    """What a file is for.

    Attributes:
        application_id: Marks a file as one of this kind, whatever its schema; kept in the header of the file.
        version: The version of the schema; 1 or more.
        schema: The statements that make its tables.
        if_damaged: What to do about a file that is damaged.
        synchronous: sqlite's word for when a transaction waits for the disk. ``NORMAL``: at none, so a machine that
            loses power may forget the last few. ``FULL``: at each.
    """

    application_id: int
    version: int
    schema: Sequence[str]
    if_damaged: str
    synchronous: Literal["NORMAL", "FULL"] = "NORMAL"


class _Opened:
    """A connection, with what it was made to: a file and the log beside it, which others can move or replace.

    Args:
        connection: The connection; it was used, so its log is there.
        path: Where the file is.
        file: Which file was there before the connection was made.
    """

    __slots__ = ("_file", "_has_parted", "_log", "_log_path", "_path", "connection", "process")

    def __init__(self, connection: sqlite3.Connection, path: Path, file: _Identity | None) -> None:
        self.connection = connection
        self.process = os.getpid()
        self._path = path
        self._log_path = f"{path}-wal"
        self._file = file
        self._log = _identify(self._log_path)
        self._has_parted = False

    def is_in_place(self) -> bool:
        """Whether its file and its log are those that others find."""
        return _identify(self._path) == self._file and _identify(self._log_path) == self._log

    def part(self, deadline: float) -> None:
        """Part with a file that was moved or deleted, or in whose place there is another.

        What is in the log goes into the file, wherever that is now: sqlite itself would leave it. Then the log goes, or
        it would be taken for that of the file which is there now, and written over it.

        Args:
            deadline: The moment at which waiting for others ends.

        Raises:
            OSError: Others are parting for too long, or the directory is gone or cannot be written.
        """
        # One after another: the next finds the new file's log, or none, and leaves it alone.
        with _sole_creator(self._path.parent, deadline):
            is_away, log = _identify(self._path) != self._file, _identify(self._log_path)
            # If the file itself has another log by now, the old one must not be written over what came since.
            if is_away or log is None:
                # Those who are in the way have the log open as well, and do the same when they are done.
                with suppress(sqlite3.Error, BlockingIOError):
                    _retry(deadline, self.empty_log)
            if is_away and log == self._log:
                _remove_siblings(self._path)
        self._has_parted = True

    def empty_log(self) -> None:
        """Leave nothing in the log: all of it goes into the file.

        Raises:
            BlockingIOError: Others are using it.
            sqlite3.Error: It cannot be done.
        """
        busy, *_ = self.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        if busy:
            raise BlockingIOError

    def close(self) -> None:
        """Close the connection. If its file is no longer in its place, it parts with it first."""
        with suppress(OSError):
            if not self._has_parted and not self.is_in_place():
                self.part(time.monotonic() + _LONGEST_FORK_WAIT)
        self.connection.close()


class SQLiteFile:
    """A file of sqlite. Safe between threads and greenlets, which take turns at one connection, and after a fork.

    Args:
        path: Where the file is, or is to be; its directory exists.
        kind: What it is for.

    Attributes:
        openings: How often it was opened. What sqlite counts for a connection begins anew with each.
    """

    __slots__ = (
        "__weakref__",
        "_finalizer",
        "_is_ours",
        "_kind",
        "_lock",
        "_log",
        "_opened",
        "_path",
        "openings",
    )

    def __init__(self, path: Path, kind: FileKind) -> None:
        self._path = path
        self._log = f"{path}-wal"
        self._kind = kind
        self._lock = threading.Lock()
        self._opened: _Opened | None = None
        self._finalizer: weakref.finalize[..., SQLiteFile] | None = None
        self._is_ours = False
        self.openings = 0
        _files.add(self)

    @contextmanager
    def transaction(self, deadline: float, *, writing: bool = True) -> Generator[sqlite3.Connection]:
        """A transaction, which is committed at the end or, if anything is raised, rolled back.

        Args:
            deadline: The moment, by ``time.monotonic``, at which waiting for others ends.
            writing: Whether it holds the one lock for writing from the start; else it holds up nobody.

        Raises:
            StoreError: The file cannot be used, or not in time.
        """
        lock = self._lock
        if not lock.acquire(timeout=max(deadline - time.monotonic(), 0)):
            raise self._trouble("other threads have kept it busy for too long")
        try:
            connection = self._connect(deadline)
            with _transaction(connection, deadline, "BEGIN IMMEDIATE" if writing else "BEGIN"):
                yield connection
            if writing:
                self._bound_log(connection)
        except (sqlite3.Error, OSError) as error:
            if not _is_busy(error):
                # Whatever it is, the next transaction begins with a new connection.
                self._disconnect()
            raise self._trouble(f"{_text(error)}{self._remedy(error)}") from error
        finally:
            lock.release()

    def close(self) -> None:
        """Close the connection; the next transaction opens another."""
        with self._lock:
            self._disconnect()

    def empty_log(self) -> bool:
        """Leave nothing in the log beside the file: what was deleted or changed is to be found there for a while.

        Returns:
            Whether it is empty; not if others are using it.
        """
        with self._lock:
            if self._opened is None or self._opened.process != os.getpid():
                return False
            try:
                self._opened.empty_log()
            except (sqlite3.Error, BlockingIOError):
                # The next transaction meets whatever is wrong.
                return False
            return True

    def pause(self) -> threading.Lock | None:
        """Close the connection and keep others from opening one.

        Returns:
            The lock to release then; None if a transaction takes too long to wait for.
        """
        lock = self._lock
        if not lock.acquire(timeout=_LONGEST_FORK_WAIT):
            return None
        self._disconnect()
        return lock

    def start_in_child(self) -> None:
        """Begin anew after a fork: whoever held the lock is not in this process."""
        self._lock = threading.Lock()

    def _connect(self, deadline: float) -> sqlite3.Connection:
        if self._opened is not None:
            if self._opened.process != os.getpid():
                # sqlite believes in this process that it holds the locks that its parent holds, for any connection to
                # the file: to use the old one, to close it or to open another could each destroy the file.
                raise self._trouble(
                    "it was open when this process was forked without Python being told. "
                    "Let the server load the app in its workers (uWSGI: lazy-apps = true)"
                )
            if self._opened.is_in_place():
                return self._opened.connection
            # Who has no time for it tries again in the next transaction.
            self._opened.part(deadline)
            self._disconnect()
        opened = self._open(deadline)
        while not opened.is_in_place():
            # Another was put in its place meanwhile: nobody knows which of them was opened.
            opened.connection.close()
            if time.monotonic() >= deadline:
                raise self._trouble("it is replaced again and again")
            opened = self._open(deadline)
        self._opened = opened
        self.openings += 1
        self._finalizer = weakref.finalize(self, _close_at_exit, opened, self._lock)
        return opened.connection

    def _open(self, deadline: float) -> _Opened:
        file = _identify(self._path)
        if file is None:
            _create(self._path, deadline)
            file = _identify(self._path)
        self._is_ours = False
        # Not sqlite3.connect, which instrumentations wrap: our own statements are no part of the app's traces.
        connection = sqlite3.Connection(
            f"{self._path.as_uri()}?mode=rw", uri=True, timeout=0, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare(connection, deadline)
            return _Opened(connection, self._path, file)
        except BaseException:
            connection.close()
            raise

    def _prepare(self, connection: sqlite3.Connection, deadline: float) -> None:
        def ask(statement: str) -> str | int:
            answer: str | int = _retry(deadline, lambda: connection.execute(statement).fetchone()[0])
            return answer

        if ask("PRAGMA user_version") == 0:
            with _transaction(connection, deadline, "BEGIN IMMEDIATE"):
                if ask("PRAGMA user_version") == 0:
                    if ask("SELECT count(*) FROM sqlite_master"):
                        raise self._trouble(_OF_SOMETHING_ELSE)
                    connection.execute(f"PRAGMA application_id = {self._kind.application_id}")
                    for statement in self._kind.schema:
                        connection.execute(statement)
                    connection.execute(f"PRAGMA user_version = {self._kind.version}")
        self._is_ours = ask("PRAGMA application_id") == self._kind.application_id
        if not self._is_ours:
            raise self._trouble(_OF_SOMETHING_ELSE)
        version = ask("PRAGMA user_version")
        if version != self._kind.version:
            raise self._trouble(
                f"it has schema version {version}, this version of insider-otel reads {self._kind.version}: "
                "upgrade insider-otel, or name another file"
            )
        if ask("PRAGMA journal_mode = WAL") != "wal":
            raise self._trouble("it is on a file system without shared memory: name a file on a local disk")
        _retry(deadline, lambda: connection.execute(f"PRAGMA synchronous = {self._kind.synchronous}"))
        # The log of a new file is made when it is first read.
        ask("PRAGMA user_version")

    def _bound_log(self, connection: sqlite3.Connection) -> None:
        """Begin the write-ahead log anew; sqlite does so by itself, and sooner, if nobody else is writing."""
        # What was asked is done already; the next transaction meets whatever is wrong.
        with suppress(sqlite3.Error, OSError):
            if os.stat(self._log).st_size > _LONGEST_LOG:
                connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()

    def _remedy(self, error: Exception) -> str:
        if _code(error) not in _NOT_A_DATABASE:
            return ""
        if not self._is_ours:
            return ". Name another file, or delete this one if insider-otel made it"
        return f". {self._kind.if_damaged}"

    def _trouble(self, text: str) -> StoreError:
        return StoreError(f"sqlite:///{self._path}: {text}")

    def _disconnect(self) -> None:
        if self._opened is not None and self._opened.process == os.getpid():
            if self._finalizer is not None:
                self._finalizer.detach()
            self._opened.close()
            self._opened = None


@contextmanager
def _transaction(connection: sqlite3.Connection, deadline: float, begin: str) -> Generator[None]:
    try:
        _retry(deadline, lambda: connection.execute(begin))
        yield
        # Before the file is in WAL mode, readers can be in the way of this too.
        _retry(deadline, lambda: connection.execute("COMMIT"))
    except BaseException:
        # sqlite itself rolls back after some errors.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _retry(deadline: float, act: Callable[[], T]) -> T:
    """Try again, until a moment, for as long as another process is in the way."""
    while True:
        try:
            return act()
        except (sqlite3.OperationalError, OSError) as error:
            left = deadline - time.monotonic()
            if left <= 0 or not _is_busy(error):
                raise
        # Jitter: or those who wait would come back together. Who has little time left tries more often.
        time.sleep(_SHORTEST_SLEEP + random.uniform(0, min(left / _TRIES_LEFT, _LONGEST_SLEEP)))


def _is_busy(error: Exception) -> bool:
    return isinstance(error, BlockingIOError) or _code(error) == sqlite3.SQLITE_BUSY


def _code(error: Exception) -> int:
    # The lowest byte is the primary code. Errors of Python's own module have none.
    return getattr(error, "sqlite_errorcode", 0) & 0xFF


def _text(error: Exception) -> str:
    """What an error says; that of the operating system without the path, which is said already."""
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _identify(path: str | Path) -> _Identity | None:
    """Which file is at a path now; None if there is none."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _remove_siblings(path: Path) -> None:
    for sibling in _SIBLINGS:
        Path(f"{path}{sibling}").unlink(missing_ok=True)


def _create(path: Path, deadline: float) -> None:
    """Make an empty file that its owner alone can read; sqlite gives the same rights to those it puts beside it."""
    with _sole_creator(path.parent, deadline):
        if path.exists():
            return
        # Those of a file that was deleted would be taken for the new one's.
        _remove_siblings(path)
        # Under another name until its descriptor is closed: that drops all locks that this process has on a file.
        descriptor, temporary = tempfile.mkstemp(prefix=f"{path.name}-", dir=path.parent)
        os.close(descriptor)
        os.rename(temporary, path)


@contextmanager
def _sole_creator(directory: Path, deadline: float) -> Generator[None]:
    """Hold a lock that one process, and one thread, can hold."""
    if sys.platform == "win32":  # where neither a file in use can be deleted nor a rename replace another file
        yield
        return
    import fcntl  # noqa: PLC0415  (Windows has none)

    descriptor = os.open(directory, os.O_RDONLY)
    try:
        _retry(deadline, lambda: fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB))
        yield
    finally:
        os.close(descriptor)


def _close_at_exit(opened: _Opened, lock: threading.Lock) -> None:
    # A thread may still be using it when the interpreter ends.
    if opened.process == os.getpid() and lock.acquire(timeout=_LONGEST_FORK_WAIT):
        opened.close()
        lock.release()


# ------------------------------------------------------------------------------------------------------------ fork

_files: weakref.WeakSet[SQLiteFile] = weakref.WeakSet()
_paused: list[threading.Lock] = []


def _before_fork() -> None:
    # An open connection must not come into a child; see SQLiteFile._connect. To open it again takes a millisecond.
    _paused.extend(lock for file in tuple(_files) if (lock := file.pause()) is not None)


def _after_fork_in_parent() -> None:
    while _paused:
        _paused.pop().release()


def _after_fork_in_child() -> None:
    _paused.clear()
    for file in tuple(_files):
        file.start_in_child()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent, after_in_child=_after_fork_in_child)
