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

from insider_otel.api.operations import Limit
from insider_otel.state.memory import MOST_POOLS, MemoryStore
from insider_otel.state.protocol import MICROSECONDS, Admission, Admit, Correction, PastUse, PoolKey
from insider_otel.state.recent import Recent

_MOST_CORRECTIONS = 1000
_MOST_PAST_USES = 200

Uses = Counter[int]
"""Moments by the local store's clock, and what was used of a limit at each."""


@dataclass(slots=True)
class _Account:
    """What is known of one pool.

    Attributes:
        limit: The limit it was last asked for with.
        workers: How many shared it when the store was last heard of.
        born: When the store's record of it began.
        used: What was used of it then.
        heard: The moment of that, on the local store's clock.
        corrections: What became of slots, and was not told yet.
        missed: Uses that the store knows nothing of.
    """

    limit: Limit | None = None
    workers: int = 1
    born: int = 0
    used: int = 0
    heard: int = 0
    corrections: list[Correction] = field(default_factory=list[Correction])
    missed: Uses = field(default_factory=Counter[int])


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

    def workers(self, pool: PoolKey) -> int:
        """How many processes share a pool, as far as was last heard."""
        account = self._accounts.peek(pool)
        return 1 if account is None else account.workers

    def limit(self, pool: PoolKey) -> Limit | None:
        """The limit a pool was last asked for with."""
        account = self._accounts.peek(pool)
        return None if account is None else account.limit

    def correct(self, pool: PoolKey, correction: Correction) -> None:
        """Tell the store, with the next ask, what became of a slot of its own."""
        with self._lock:
            account = self._accounts.peek(pool)
            if account is not None:
                account.corrections.append(correction)
                del account.corrections[:-_MOST_CORRECTIONS]

    def missed(self, pool: PoolKey, limit: Limit, moment: int, cost: int) -> None:
        """A slot was taken without the store; a negative cost takes that back."""
        with self._lock:
            self._account(pool, limit).missed[moment] += cost

    def tell(self, ask: Admit) -> tuple[Admit, Uses]:
        """An ask, with what the store has to know before it answers; and the missed uses among that."""
        if ask.limit is None:
            return ask, Counter()
        now = self._local.now(ask.limit)
        with self._lock:
            account = self._account(ask.pool, ask.limit)
            corrections, account.corrections = tuple(account.corrections), []
            missed, account.missed = account.missed, Counter()
        missed = _recent(missed, now, ask.limit)
        if not corrections and not missed:
            return ask, missed
        past = tuple(PastUse(now - moment, cost) for moment, cost in missed.items())
        return replace(ask, corrections=corrections, past=past), missed

    def untold(self, told: Admit, missed: Uses) -> None:
        """The store was not reached: what it was to know is kept for the next ask."""
        if told.limit is not None and (told.corrections or missed):
            with self._lock:
                account = self._account(told.pool, told.limit)
                account.corrections[:0] = told.corrections
                account.missed += missed

    def heard(self, ask: Admit, told: Uses, admission: Admission) -> None:
        """The store answered.

        Args:
            ask: What it was asked.
            told: The missed uses that it was told with it.
            admission: Its answer.
        """
        if ask.limit is None:
            return
        now = self._local.now(ask.limit)
        with self._lock:
            account = self._account(ask.pool, ask.limit)
            if account.born not in {0, admission.born}:
                # It has lost what this process had used before.
                forgotten = self._local.uses(ask.pool)
                forgotten.subtract(told)
                account.missed.update(+forgotten)
            account.limit, account.workers, account.born = ask.limit, admission.workers, admission.born
            account.used, account.heard = admission.used, now

    def uses(self) -> Iterator[tuple[PoolKey, Limit, int]]:
        """Every pool with its limit, and what was used of it when the store was last heard of, if that still counts."""
        with self._lock:
            accounts = list(self._accounts.items())
        for pool, account in accounts:
            if account.limit is not None:
                yield pool, account.limit, account.used if self._counts(account, account.limit) else 0

    def _account(self, pool: PoolKey, limit: Limit) -> _Account:
        account = self._accounts.get(pool, self._is_idle)
        if account.limit is None:
            account.limit = limit
        return account

    def _counts(self, account: _Account, limit: Limit) -> bool:
        """Whether what was heard last of a pool still counts."""
        return account.heard > self._local.now(limit) - limit.window * MICROSECONDS

    def _is_idle(self, account: _Account) -> bool:
        if account.missed or account.corrections:
            return False
        return account.limit is None or not self._counts(account, account.limit)


def _recent(missed: Uses, now: int, limit: Limit) -> Uses:
    """The uses that still count, those that are close together as one: no earlier than they were."""
    window = round(limit.window * MICROSECONDS)
    grain = max(window // _MOST_PAST_USES, 1)
    recent: Uses = Counter()
    for moment, cost in missed.items():
        if moment > now - window and cost > 0:
            recent[-(-moment // grain) * grain if len(missed) > _MOST_PAST_USES else moment] += cost
    return recent
