"""Claims on content, as rows of the sqlite store. Everything here happens inside a transaction that the store began."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insider_otel.state.rules import Claims

if TYPE_CHECKING:
    import sqlite3

# More than the one that comes, so that what has expired goes at last.
_DROPPED_AT_ONCE = 4


class SQLiteClaims(Claims):
    """Who has which content.

    Args:
        connection: The connection.
        most: How many claims are kept.
    """

    __slots__ = ("_connection", "_most")

    def __init__(self, connection: sqlite3.Connection, most: int) -> None:
        self._connection = connection
        self._most = most

    def _read(self, key: bytes) -> tuple[int, int, bool]:
        row = self._connection.execute("SELECT since, expires, done FROM claims WHERE key = ?", (key,)).fetchone()
        return (0, 0, False) if row is None else (row[0], row[1], bool(row[2]))

    def _write(self, key: bytes, since: int, expires: int, done: bool, now: int) -> None:
        changed = self._connection.execute(
            "UPDATE claims SET since = ?, expires = ?, done = ? WHERE key = ?", (since, expires, done, key)
        ).rowcount
        if not changed:
            self._make_room(now)
            self._connection.execute(
                "INSERT INTO claims (key, since, expires, done) VALUES (?, ?, ?, ?)", (key, since, expires, done)
            )

    def _new_token(self, since: int, now: int) -> int:
        return max(now, since + 1)

    def _make_room(self, now: int) -> None:
        """Let go of some of the oldest claims: those that have expired, and those that are too many."""
        oldest = self._connection.execute(
            "SELECT id, expires FROM claims ORDER BY id LIMIT ?", (_DROPPED_AT_ONCE,)
        ).fetchall()
        if not oldest:
            return
        # Rows are only ever deleted from the front, so their numbers count them.
        (newest,) = self._connection.execute("SELECT max(id) FROM claims").fetchone()
        excess = newest - oldest[0][0] + 2 - self._most
        dropped = 0
        for position, (_, expires) in enumerate(oldest):
            if position >= excess and expires > now:
                break
            dropped += 1
        if dropped:
            self._connection.execute("DELETE FROM claims WHERE id <= ?", (oldest[dropped - 1][0],))
