"""Claims on content, as rows of the sqlite store. Everything here happens inside a transaction that the store began."""

from __future__ import annotations

from typing import TYPE_CHECKING

from insider_otel.state.protocol import MICROSECONDS, ClaimAsk, ClaimEnd, ClaimReport, ClaimState

if TYPE_CHECKING:
    import sqlite3

# More than the one that comes, so that what has expired goes at last.
_DROPPED_AT_ONCE = 4


class Claims:
    """Who has which content.

    Args:
        connection: The connection.
        most: How many claims are kept.
    """

    __slots__ = ("_connection", "_most")

    def __init__(self, connection: sqlite3.Connection, most: int) -> None:
        self._connection = connection
        self._most = most

    def ask(self, ask: ClaimAsk, now: int) -> tuple[ClaimState, float, int | None]:
        """Ask for a content.

        Args:
            ask: The content.
            now: The present moment.

        Returns:
            What is known of it, seconds since the call that has or had it began, and the token if the caller has it.
        """
        since, expires, done = self._read(ask.key)
        if expires > now and (done or since != ask.token):
            state = ClaimState.DONE if done else ClaimState.IN_FLIGHT
            return state, max(now - since, 0) / MICROSECONDS, None
        if expires <= now:
            # The moment of its beginning tells a claim from the one before.
            since = max(now, since + 1)
        self._write(ask.key, since, now + round(ask.lease * MICROSECONDS), False, now)
        return ClaimState.CLAIMED, 0.0, since

    def report(self, report: ClaimReport, now: int) -> None:
        """A call with a content is over.

        Args:
            report: How it ended.
            now: The present moment.
        """
        since, expires, done = self._read(report.key)
        # A claim whose lease is over is still the caller's if nobody took it, even if it is forgotten.
        token = report.token if not done and since in {0, report.token} else None
        until = now + round(report.lasts * MICROSECONDS)
        match report.end:
            case ClaimEnd.DONE:
                began = now if token is None else token
                self._write(report.key, began, max(until, expires if done else 0), True, now)
            case ClaimEnd.KEEP if token is not None:
                self._write(report.key, token, until, False, now)
            case ClaimEnd.RELEASE if since == token:
                # It stays, expired, so that claims go in the order in which they came.
                self._write(report.key, since, 0, False, now)
            case _:
                pass  # another call has it, or its lease is over

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
