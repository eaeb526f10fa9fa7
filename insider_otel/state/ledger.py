"""What this process keeps in mind of the pools in a store that others share.

It serves when the store cannot be reached: each process's own uses and the number of those who share a pool are what a
share of the limit can be held by. And it serves when the store comes back, or has lost its memory: then it is told what
it does not know.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from insider_otel.api.operations import Limit
from insider_otel.policy.limits import share_of
from insider_otel.state.expiry import window_length
from insider_otel.state.memory import MOST_POOLS, MemoryStore
from insider_otel.state.protocol import MICROSECONDS, Admission, Admit, Correction, PastUse, PoolKey
from insider_otel.state.recent import Recent

_MOST_CORRECTIONS = 10_000
_CORRECTIONS_AT_ONCE = 100
_MOST_PAST_USES = 200
_FEW = 1000

_TOLD_WITHIN = 60 * MICROSECONDS
"""Within which those who share a pool have told a store what it forgot, unless they have ended or ask nothing."""

Uses = Counter[int]
"""Moments by the local store's clock, and what was used of a limit at each."""


@dataclass(slots=True)
class _Account:
    """What is known of one pool.

    Attributes:
        limit: The limit it was last asked for with.
        workers: How many shared it when the store was last heard of and knew what they had used.
        born: When the store's record of it began.
        used: What was used of it then.
        heard: The moment of that, on the local store's clock.
        others: What others had used of it then; None as long as nobody has asked.
        lost_until: The moment until which to wait for the others, after a loss of its memory; 0 if they have told it.
        corrections: What became of slots, and was not told yet.
        is_correcting: Whether somebody is telling of corrections, and will go on until there are none.
        missed: Uses that the store knows nothing of.
        most_missed: With how many of them to look for those that no longer count.
        changes: How often there was more to miss.
        telling: How many asks under way tell of missed uses.
    """

    limit: Limit | None = None
    workers: int = 1
    born: int = 0
    used: int = 0
    heard: int = 0
    others: int | None = None
    lost_until: int = 0
    corrections: list[Correction] = field(default_factory=list[Correction])
    is_correcting: bool = False
    missed: Uses = field(default_factory=Counter[int])
    most_missed: int = _FEW
    changes: int = 0
    telling: int = 0


@dataclass(frozen=True, slots=True)
class Told:
    """An ask with what the store has to know before it answers.

    Attributes:
        ask: The ask.
        missed: The missed uses that it tells of.
        changes: How often there had been more to miss.
        is_alone: Whether no other ask was telling of missed uses, and might come later.
    """

    ask: Admit
    missed: Uses = field(default_factory=Counter[int])
    changes: int = 0
    is_alone: bool = True


class Heard(NamedTuple):
    """What an answer says of the store that gave it.

    Attributes:
        noted: The moment under which the local store holds the slot that was granted; None if nothing was, or if the
            store does not know of all that was used.
        is_lost: Whether the store has lost its memory since it answered, and what it granted with it.
    """

    noted: int | None = None
    is_lost: bool = False


class Ledger:
    """What this process keeps in mind of the pools in a shared store. Safe between threads.

    Args:
        local: This process's own memory: every slot that the shared store grants is noted there too.
    """

    __slots__ = ("_accounts", "_local", "_lock")

    def __init__(self, local: MemoryStore) -> None:
        self._local = local
        self._lock = threading.Lock()
        self._accounts: Recent[PoolKey, _Account] = Recent(_Account, MOST_POOLS)

    def share(self, pool: PoolKey, limit: Limit) -> Limit:
        """This process's part of a limit while the store is away: its share, but no more than the others have left."""
        account = self._accounts.peek(pool)
        if account is None or account.workers == 1:
            return limit
        share = share_of(limit, account.workers)
        if not self._counts(account, limit):
            return share
        with self._lock:
            return replace(share, count=max(min(share.count, limit.count - self._others(pool, account)), 1))

    def correct(self, pool: PoolKey, correction: Correction) -> None:
        """Tell the store, with the next ask, what became of a slot of its own."""
        with self._lock:
            account = self._accounts.peek(pool)
            if account is not None:
                account.corrections.append(correction)
                del account.corrections[:-_MOST_CORRECTIONS]

    def start_correcting(self, pool: PoolKey) -> tuple[Correction, ...]:
        """What to tell of slots, at once; nothing if somebody is at it: the one who is goes on until all is told."""
        with self._lock:
            account = self._accounts.peek(pool)
            if account is None or account.is_correcting:
                return ()
            corrections = _take(account)
            account.is_correcting = bool(corrections)
            return corrections

    def end_correcting(self, pool: PoolKey, untold: tuple[Correction, ...]) -> None:
        """The store was told, or could not be."""
        with self._lock:
            account = self._accounts.peek(pool)
            if account is not None:
                account.is_correcting = False
                account.corrections[:0] = untold

    def missed(self, pool: PoolKey, limit: Limit, moment: int, cost: int) -> None:
        """A slot was used without the store."""
        with self._lock:
            account = self._account(pool, limit)
            account.missed[moment] += cost
            account.changes += 1
            if len(account.missed) > account.most_missed:
                account.missed = _since(account.missed, self._local.now(limit) - window_length(limit))
                account.most_missed = max(2 * len(account.missed), _FEW)

    def correct_missed(self, pool: PoolKey, correction: Correction) -> None:
        """What became of a slot that was used without the store, if that was not told yet."""
        with self._lock:
            account = self._accounts.peek(pool)
            if account is not None and account.missed[correction.slot] >= correction.cost:
                account.missed[correction.slot] -= correction.cost
                account.missed[correction.slot + correction.late] += correction.actual

    def tell(self, ask: Admit) -> Told:
        """An ask, with what the store has to know before it answers."""
        limit = ask.limit
        if limit is None:
            return Told(ask)
        now = self._local.now(limit)
        with self._lock:
            account = self._account(ask.pool, limit)
            told = ask._replace(corrections=_take(account), born=account.born)
            missed: Uses = Counter()
            # As a rule there is nothing, and what would be made of it takes 2 of 6.5 µs.
            if account.missed:
                missed, account.missed = _since(account.missed, now - window_length(limit)), missed
                told = told._replace(past=_as_past(missed, now, limit))
            is_alone = not account.telling
            account.telling += bool(missed)
            return Told(told, missed, account.changes, is_alone)

    def untold(self, told: Told) -> None:
        """The store was not reached: what it was to know is kept for the next ask."""
        ask = told.ask
        if ask.limit is not None:
            with self._lock:
                account = self._account(ask.pool, ask.limit)
                account.telling = max(account.telling - bool(told.missed), 0)
                account.corrections[:0] = ask.corrections
                account.missed += told.missed

    def heard(self, told: Told, admission: Admission, *, notes: bool) -> Heard:
        """The store answered.

        Args:
            told: What it was asked.
            admission: Its answer.
            notes: Whether to have the local store hold the slot, if the store knows of all that this process has used.
                It is held before anybody else can find out that the store has lost its memory, and tell it of the rest.
        """
        ask = told.ask
        if ask.limit is None:
            return Heard()
        now, window = self._local.now(ask.limit), window_length(ask.limit)
        with self._lock:
            account = self._account(ask.pool, ask.limit)
            account.telling = max(account.telling - bool(told.missed), 0)
            if account.born not in {0, admission.born}:
                if account.born != ask.born:
                    # As another ask has found out.
                    return Heard(is_lost=True)
                forgotten = _since(self._local.uses(ask.pool), now - window)
                forgotten.subtract(told.missed)
                # Whoever waits for a slot to come will ask for it anew.
                account.missed |= Counter({at: cost for at, cost in forgotten.items() if at <= now})
                account.corrections.clear()
                account.changes += 1
                # It has forgotten what others have used, too: until they have told it, this process keeps to its share.
                account.others = self._others(ask.pool, account) if self._counts(account, ask.limit) else 0
                account.lost_until = now + min(window, _TOLD_WITHIN)
            is_told = admission.workers >= account.workers or not 0 < account.lost_until - now <= window
            if is_told:
                account.workers, account.others, account.lost_until = admission.workers, None, 0
            account.limit, account.born = ask.limit, admission.born
            account.used, account.heard = admission.used, now
            if (
                not (notes and is_told)
                or admission.slot is None
                or not told.is_alone
                or told.changes != account.changes
            ):
                return Heard()
            return Heard(self._local.note(ask.pool, ask.limit, admission.wait, ask.cost))

    def uses(self) -> Iterator[tuple[PoolKey, Limit, int]]:
        """Every pool with its limit, and what was used of it when the store was last heard of, if that still counts."""
        with self._lock:
            accounts = list(self._accounts.items())
        for pool, account in accounts:
            if account.limit is not None:
                yield pool, account.limit, account.used if self._counts(account, account.limit) else 0

    def _others(self, pool: PoolKey, account: _Account) -> int:
        """What others had used of a pool when the store was last heard of."""
        if account.others is None:
            uses = self._local.uses(pool)
            account.others = account.used - sum(cost for at, cost in uses.items() if at <= account.heard)
        return account.others

    def _account(self, pool: PoolKey, limit: Limit) -> _Account:
        account = self._accounts.get(pool, self._is_idle)
        if account.limit is None:
            account.limit = limit
        return account

    def _counts(self, account: _Account, limit: Limit) -> bool:
        """Whether what was heard last of a pool still counts."""
        return account.heard > self._local.now(limit) - window_length(limit)

    def _is_idle(self, account: _Account) -> bool:
        if account.limit is None:
            return True
        if account.telling or account.corrections or account.is_correcting or self._counts(account, account.limit):
            return False
        since = self._local.now(account.limit) - window_length(account.limit)
        return all(moment <= since for moment in account.missed)


def _take(account: _Account) -> tuple[Correction, ...]:
    """Some of an account's corrections: all at once could take a store too long."""
    corrections = tuple(account.corrections[:_CORRECTIONS_AT_ONCE])
    del account.corrections[:_CORRECTIONS_AT_ONCE]
    return corrections


def _since(uses: Uses, moment: int) -> Uses:
    """The uses after a moment."""
    return Counter({at: cost for at, cost in uses.items() if at > moment and cost > 0})


def _as_past(uses: Uses, now: int, limit: Limit) -> tuple[PastUse, ...]:
    """Uses as a store is told of them; where they are many, those that are close together as one, no earlier."""
    if len(uses) > _MOST_PAST_USES:
        grain = max(window_length(limit) // _MOST_PAST_USES, 1)
        merged: Uses = Counter()
        for moment, cost in uses.items():
            merged[-(-moment // grain) * grain] += cost
        uses = merged
    return tuple(PastUse(max(now - moment, 0), cost) for moment, cost in uses.items())
