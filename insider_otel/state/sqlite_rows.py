"""What the sqlite store keeps of time and of pools, as rows; and the tables of all.

Everything here happens inside a transaction that the store began.
"""

from __future__ import annotations

import json
import sqlite3
from array import array
from bisect import bisect_left
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

from insider_otel.api.operations import Limit
from insider_otel.state.expiry import DAY, window_length
from insider_otel.state.memory import MOST_POOLS
from insider_otel.state.protocol import MICROSECONDS, PoolKey
from insider_otel.state.window import RollingWindow

VERSION = 1

SCHEMA = (
    "CREATE TABLE clock (ahead INTEGER NOT NULL, monotonic INTEGER NOT NULL)",
    """
    CREATE TABLE pools (
        id INTEGER PRIMARY KEY, name TEXT NOT NULL, owner BLOB NOT NULL, born INTEGER NOT NULL,
        asked_limit TEXT, by_calendar INTEGER NOT NULL, learned_limit TEXT,
        closed_until INTEGER NOT NULL, kept_until INTEGER NOT NULL,
        oldest INTEGER NOT NULL, first INTEGER NOT NULL, length INTEGER NOT NULL,
        free BLOB NOT NULL, gone BLOB NOT NULL, kept BLOB NOT NULL,
        UNIQUE (name, owner)
    )
    """,
    """
    CREATE TABLE moments (
        pool INTEGER NOT NULL, number INTEGER NOT NULL, moment INTEGER NOT NULL, PRIMARY KEY (pool, number)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE workers (
        pool INTEGER NOT NULL, worker BLOB NOT NULL, seen INTEGER NOT NULL, PRIMARY KEY (pool, worker)
    ) WITHOUT ROWID
    """,
    """
    CREATE TABLE claims (
        id INTEGER PRIMARY KEY, key BLOB NOT NULL UNIQUE,
        since INTEGER NOT NULL, expires INTEGER NOT NULL, done INTEGER NOT NULL
    )
    """,
)

_IDLE = 2 * DAY
_CLOCK_NOTED_EVERY = MICROSECONDS
_SEEN_EVERY = 5 * MICROSECONDS
_COUNTED_FOR = 60 * MICROSECONDS
# More than one for each that comes, so that what has expired goes at last; few enough to take no time.
_DROPPED_AT_ONCE = 64
_LAST = 64


def read_clock(connection: sqlite3.Connection, monotonic: int, wall: int, *, writing: bool) -> int:
    """The store's time: as steady as the machine's monotonic clock, and going on after a reboot, which that does not.

    Args:
        connection: The connection.
        monotonic: What the monotonic clock shows, which all processes of the machine have in common.
        wall: Microseconds since 1970.
        writing: Whether what was found may be written down.
    """
    row = connection.execute("SELECT ahead, monotonic FROM clock").fetchone()
    ahead, last = row or (wall - monotonic, monotonic)
    if monotonic < last:
        # The wall clock may be behind too, until it is set; but time never goes back.
        ahead = max(wall, last + ahead) - monotonic
    if writing and row is None:
        connection.execute("INSERT INTO clock VALUES (?, ?)", (ahead, monotonic))
    elif writing and not last <= monotonic < last + _CLOCK_NOTED_EVERY:
        connection.execute("UPDATE clock SET ahead = ?, monotonic = ?", (ahead, monotonic))
    return monotonic + ahead


class Moments:
    """The moments of one pool in ascending order, one row each, under consecutive numbers.

    Args:
        connection: The connection.
        pool: The pool's row.
        first: The number of the first moment.
        length: How many there are.
    """

    __slots__ = ("_connection", "_known", "_length", "_pool", "_unsaved", "first")

    def __init__(self, connection: sqlite3.Connection, pool: int, first: int, length: int) -> None:
        self._connection = connection
        self._pool = pool
        self.first = first
        self._length = length
        self._known: dict[int, int] = {}
        self._unsaved: set[int] = set()

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int, /) -> int:
        if not -self._length <= index < self._length:
            raise IndexError(index)
        number = self.first + index + (self._length if index < 0 else 0)
        moment = self._known.get(number)
        if moment is None:
            row = self._connection.execute(
                "SELECT moment FROM moments WHERE pool = ? AND number = ?", (self._pool, number)
            ).fetchone()
            if row is None:
                raise self._missing(number)
            moment = self._known[number] = row[0]
        return moment

    def before(self, moment: int, /) -> int:
        """How many there are before a moment."""
        # Mostly it is beyond one of the ends, or one of the last: half as many rows are read.
        if not self._length or moment <= self[0]:
            return 0
        if moment > self[-1]:
            return self._length
        late = max(self._length - _LAST, 0)
        return bisect_left(self, moment, late) if moment > self[late] else bisect_left(self, moment, 0, late)

    def until(self, moment: int, /) -> int:
        """How many there are until a moment, itself included."""
        return self.before(moment + 1)

    def part(self, start: int, end: int, /) -> list[int]:
        """Those from one index to before another."""
        numbers = range(self.first + start, self.first + end)
        known = self._known
        if any(number not in known for number in numbers):
            for number, moment in self._connection.execute(
                "SELECT number, moment FROM moments WHERE pool = ? AND number >= ? AND number < ?",
                (self._pool, numbers.start, numbers.stop),
            ):
                # What is not saved yet is newer than its row.
                known.setdefault(number, moment)
        try:
            return [known[number] for number in numbers]
        except KeyError as error:
            raise self._missing(error.args[0]) from None

    def extend(self, moments: list[int], /) -> None:
        """Add moments in ascending order, which are not before the last."""
        self._overwrite(self._length, moments)
        self._length += len(moments)

    def move(self, index: int, number: int, end: int, to: int, /) -> None:
        """Let a number of moments from ``index`` on be one that belongs before ``end``, and the others close up."""
        self._overwrite(index, [*self.part(index + number, end), *[to] * number])

    def drop_first(self, number: int, /) -> None:
        """Forget so many of the first; their rows go little by little."""
        self.first += number
        self._length -= number

    def drop_last(self, number: int, /) -> None:
        """Forget the last ones; their rows are written over by the next."""
        self._length -= number

    def _missing(self, number: int) -> sqlite3.DatabaseError:
        return sqlite3.DatabaseError(f"moment {number} of pool {self._pool} is missing")

    def _overwrite(self, index: int, moments: list[int]) -> None:
        numbers = range(self.first + index, self.first + index + len(moments))
        self._known.update(zip(numbers, moments, strict=True))
        self._unsaved.update(numbers)

    def save(self, oldest: int) -> int:
        """Write what has changed, and delete some rows that are forgotten.

        Args:
            oldest: The number of the first row that was not deleted.

        Returns:
            The same, now.
        """
        end = self.first + self._length
        unsaved = [(self._pool, number, self._known[number]) for number in self._unsaved if self.first <= number < end]
        self._unsaved.clear()
        if unsaved:
            self._connection.executemany("INSERT OR REPLACE INTO moments VALUES (?, ?, ?)", unsaved)
        kept = min(self.first, oldest + _DROPPED_AT_ONCE + 2 * len(unsaved))
        if kept > oldest:
            self._connection.execute(
                "DELETE FROM moments WHERE pool = ? AND number >= ? AND number < ?", (self._pool, oldest, kept)
            )
        return kept


@dataclass(slots=True)
class Pool:
    """What is known of one pool. Changes are kept once they are saved.

    Attributes:
        id: Its row.
        born: When its row was made.
        limit: The limit it was last asked for with.
        calendar_clock: Where its moments are those of the wall clock, the latest that this has shown; else 0.
        learned: The limit that Insider named.
        closed_until: The moment from which it is open.
        window: The uses of its limit.
        moments: Their moments.
        free: Those of them that were given back.
        gone: The slots that a closing took from those who wait.
        kept: Those of the moments that are kept for them.
    """

    id: int
    key: PoolKey
    born: int
    limit: Limit | None
    calendar_clock: int
    learned: Limit | None
    closed_until: int
    window: RollingWindow
    moments: Moments
    free: list[int]
    gone: list[int]
    kept: list[int]
    _oldest: int
    _kept_until: int
    _saved: tuple[Any, ...]

    @classmethod
    def open(cls, connection: sqlite3.Connection, key: PoolKey, now: int) -> Pool:
        """The pool of a key, new if there is none."""
        row = connection.execute("SELECT * FROM pools WHERE name = ? AND owner = ?", key).fetchone()
        if row is None:
            _make_room(connection, now)
            new = (None, *key, now, None, 0, None, 0, now, 0, 0, 0, b"", b"", b"")
            identity = connection.execute(
                "INSERT INTO pools VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", new
            ).lastrowid
            row = (identity, *new[1:])
        return cls._read(connection, row)

    @classmethod
    def all(cls, connection: sqlite3.Connection) -> Iterator[Pool]:
        """All pools."""
        for row in connection.execute("SELECT * FROM pools"):
            yield cls._read(connection, row)

    @classmethod
    def _read(cls, connection: sqlite3.Connection, row: tuple[Any, ...]) -> Pool:
        identity, name, owner, born, limit, by_calendar, learned, closed_until, kept_until, *rest = row
        oldest, first, length, *packed = rest
        free, gone, kept = (array("q", each).tolist() for each in packed)
        moments = Moments(connection, identity, first, length)
        return cls(
            identity,
            PoolKey(name, owner),
            born,
            _limit(limit),
            by_calendar,
            _limit(learned),
            closed_until,
            RollingWindow(moments, free, gone, kept),
            moments,
            free,
            gone,
            kept,
            oldest,
            kept_until,
            (limit, by_calendar, learned, closed_until, *rest),
        )

    def forget_uses(self) -> None:
        """Let go of all moments."""
        self.moments.drop_first(len(self.moments))
        for moments in (self.free, self.gone, self.kept):
            moments.clear()

    def save(self, connection: sqlite3.Connection, now: int) -> None:
        """Write what has changed."""
        oldest = self.moments.save(self._oldest)
        row = (
            _text(self.limit),
            self.calendar_clock,
            _text(self.learned),
            self.closed_until,
            oldest,
            self.moments.first,
            len(self.moments),
            *(array("q", moments).tobytes() for moments in (self.free, self.gone, self.kept)),
        )
        kept_until = max(now, self.closed_until, self.moments[-1] if self.moments else 0) + _IDLE + self._span()
        if row != self._saved or kept_until > self._kept_until + _SEEN_EVERY:
            connection.execute(
                "UPDATE pools SET asked_limit = ?, by_calendar = ?, learned_limit = ?, closed_until = ?, oldest = ?,"
                " first = ?, length = ?, free = ?, gone = ?, kept = ?, kept_until = ? WHERE id = ?",
                (*row, kept_until, self.id),
            )

    def see(self, connection: sqlite3.Connection, worker: bytes, now: int) -> None:
        """Note that a process shares the pool."""
        found = connection.execute(
            "SELECT seen FROM workers WHERE pool = ? AND worker = ?", (self.id, worker)
        ).fetchone()
        if found is None or found[0] <= now - _SEEN_EVERY:
            connection.execute("DELETE FROM workers WHERE pool = ? AND seen <= ?", (self.id, self._counted_from(now)))
            connection.execute("INSERT OR REPLACE INTO workers VALUES (?, ?, ?)", (self.id, worker, now))

    def workers(self, connection: sqlite3.Connection, now: int) -> int:
        """How many processes share the pool, at least 1."""
        seen: tuple[int] = connection.execute(
            "SELECT count(*) FROM workers WHERE pool = ? AND seen > ?", (self.id, self._counted_from(now))
        ).fetchone()
        return max(seen[0], 1)

    def _counted_from(self, now: int) -> int:
        return now - max(_COUNTED_FOR, self._span())

    def _span(self) -> int:
        return 0 if self.limit is None else window_length(self.limit)


def _make_room(connection: sqlite3.Connection, now: int) -> None:
    """Let go of pools that nobody has asked for in a long time, and of one more if there are too many."""
    idle = connection.execute(
        "SELECT id FROM pools WHERE kept_until < ? AND learned_limit IS NULL LIMIT 2", (now,)
    ).fetchall()
    (count,) = connection.execute("SELECT count(*) FROM pools").fetchone()
    if not idle and count >= MOST_POOLS:
        idle = connection.execute("SELECT id FROM pools ORDER BY kept_until LIMIT 1").fetchall()
    for row in idle:
        connection.execute("DELETE FROM moments WHERE pool = ?", row)
        connection.execute("DELETE FROM workers WHERE pool = ?", row)
        connection.execute("DELETE FROM pools WHERE id = ?", row)


@lru_cache(maxsize=1024)
def _text(limit: Limit | None) -> str | None:
    return None if limit is None else json.dumps(asdict(limit))


@lru_cache(maxsize=1024)
def _limit(text: str | None) -> Limit | None:
    if text is None:
        return None
    # Another version of this package may have more to say of a limit.
    known = {field.name for field in fields(Limit)}
    return Limit(**{name: value for name, value in json.loads(text).items() if name in known})
