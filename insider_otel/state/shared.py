"""What calls share: retry budgets, and the limits and claims of a store, with this process's memory to fall back on.

A store in trouble never stops a call. While it is left alone, this process holds its share of each limit itself, by
what it has used; when the store is back it is told what it missed. Nothing here does I/O: what has to be asked of a
store is an effect for whoever drives the call.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from typing import NamedTuple

from insider_otel.api.operations import Limit
from insider_otel.policy.budget import RetryBudget
from insider_otel.state.availability import Availability, Caller
from insider_otel.state.dropped import finish_later
from insider_otel.state.experience import Experience
from insider_otel.state.ledger import Ledger, Told
from insider_otel.state.memory import MOST_POOLS, MemoryStore
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimEnd,
    ClaimReport,
    Correction,
    ListPools,
    Perform,
    PoolKey,
    Report,
    Store,
    StoreEffects,
    StoreError,
)
from insider_otel.state.recent import Recent
from insider_otel.state.untold import Untold

_THE_WHOLE = b""


class Grant(NamedTuple):
    """The answer to one attempt.

    Attributes:
        pool: The pool that was asked for.
        cost: What was asked of its limit.
        admission: The answer.
        due: The moment of the slot, on the clock of the calls.
        local: Whether this process gave it from its own memory.
        noted: The moment under which this process's own memory holds the slot; None without a slot or a limit.
        lost: Whether it is this call's to say that the store is in trouble: one does in each outage.
    """

    pool: PoolKey
    cost: int
    admission: Admission
    due: float
    local: bool
    noted: int | None = None
    lost: bool = False


class SharedState:
    """What all calls that name the same store share. Safe between threads, event loops and greenlets, and after a fork.

    Args:
        store: The store; None for this process's own memory alone.
        clock: Returns seconds; only differences matter.
        wall_clock: Returns seconds since 1970.
        owners_fail_apart: Whether what one owner has can be in trouble while what others have is well, as in a cluster.
    """

    def __init__(
        self,
        store: Store | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        *,
        owners_fail_apart: bool = False,
    ) -> None:
        self.store = store
        self._owners_fail_apart = owners_fail_apart
        self._clock = clock
        self._local = MemoryStore(clock, wall_clock)
        self.forget()

    def forget(self) -> None:
        """Start anew. A forked child must: its parent's slots, and the locks its threads held, are not the child's."""
        self._lock = threading.Lock()
        self._local.forget()
        self._ledger = Ledger(self._local)
        self._untold = Untold(self._clock)
        self.experience = Experience()
        self._budgets: dict[str, RetryBudget] = {}
        self._worker = secrets.token_bytes(8)
        self._availabilities: Recent[bytes, Availability] = Recent(self._new_availability, MOST_POOLS)

    def budget(self, host: str) -> RetryBudget:
        """The retry budget that all calls to ``host`` share."""
        budget = self._budgets.get(host)
        if budget is None:
            with self._lock:
                budget = self._budgets.setdefault(host, RetryBudget())
        return budget

    @property
    def is_away(self) -> bool:
        """Whether there is a store, and it is in trouble, or a part of it."""
        with self._lock:
            return any(each.is_away for _, each in self._availabilities.items())

    def admit(self, ask: Admit, caller: Caller, held: Grant | None = None) -> StoreEffects[Grant]:
        """Ask for a slot, for a content, or for both.

        Args:
            ask: What is asked for.
            caller: The call that asks.
            held: The grant whose slot was waited for; the answer confirms the slot or moves it.

        Returns:
            The answer: the store's or, while that is away, this process's own.
        """
        if self.store is None:
            return self._admit_locally(ask, held)
        availability = self._availability(ask.pool)
        was_away = availability.is_away
        try:
            yield from self._tell_untold(ask, caller)
        except GeneratorExit:
            finish_later(partial(self._let_go, held))
            raise
        except BaseException:
            self._let_go(held)
            raise
        spell = availability.may_ask(caller)
        if spell is None:
            return self._admit_in_its_place(ask, held)
        asked = self._clock()
        told = self._ledger.tell(ask)
        holding = None if held is None or held.local else held.admission.slot
        # Whoever is counted has told all that it used: not beside another who tells it, and may come later.
        worker = self._worker if told.is_alone else b""
        question = Perform(self.store, told.ask._replace(holding=holding, worker=worker))
        try:
            answer: Admission = yield question
        except StoreError as error:
            self._ledger.untold(told)
            availability.failed(error, spell, asked, caller)
            return self._admit_in_its_place(ask, held)
        except GeneratorExit:
            finish_later(partial(self._forsake, told, question, held))
            raise
        except BaseException:
            yield from self._cancel(told, question.reply, caller, held)
            raise
        was_well = availability.answered(spell) and not was_away
        admission = _confirmed(answer, holding)
        heard = self._ledger.heard(told, admission, notes=was_well)
        if admission.learned is not None:
            self.experience.learn_limit(ask.pool, admission.learned, ask.limit)
        grant = Grant(ask.pool, ask.cost, admission, asked + admission.wait, local=False)
        if ask.limit is None or admission.slot is None:
            self._strike(held)
            return grant
        if heard.noted is not None:
            self._strike(held)
            return grant._replace(noted=heard.noted)
        grant = yield from self._agree(ask, grant, caller, held)
        if heard.is_lost:
            self._missed(ask, grant)
        return grant

    def settle(self, grant: Grant, *, now: float, actual: int) -> None:
        """Say what became of a slot. A store is told with the next ask, so that it costs no round trip.

        Args:
            grant: The slot's grant.
            now: The moment its attempt was answered, or given up.
            actual: What it cost in the end; 0 if it was not used at all.
        """
        slot = grant.admission.slot
        if slot is None or grant.noted is None:
            return
        late = self.experience.late(grant.pool, grant.due, now) if actual else 0.0
        if not late and actual == grant.cost:
            return
        correction = Correction(grant.noted, grant.cost, actual, round(late * MICROSECONDS))
        self._local.correct(grant.pool, correction)
        if not grant.local:
            self._ledger.correct(grant.pool, correction._replace(slot=slot))
        if self.store is not None:
            # One that the store granted is among them if it has lost its memory since.
            self._ledger.correct_missed(grant.pool, correction)

    def give_back(self, grant: Grant, caller: Caller) -> StoreEffects[None]:
        """A slot will not be used: whoever asks next is to have it, at once.

        Args:
            grant: The slot's grant.
            caller: The call that had it.
        """
        slot = grant.admission.slot
        if slot is None or grant.noted is None:
            return
        self._strike(grant)
        if not grant.admission.wait:
            # One that is to come was not missed, whatever else was used at its moment.
            self._ledger.correct_missed(grant.pool, Correction(grant.noted, grant.cost, 0))
        if grant.local:
            return
        self._ledger.correct(grant.pool, Correction(slot, grant.cost, 0))
        # Of many that give back at once, one tells for all; what it cannot tell is told with the next ask.
        while corrections := self._ledger.start_correcting(grant.pool):
            try:
                is_told = yield from self._tell_store(Report(grant.pool, corrections=corrections), caller)
            except GeneratorExit:
                finish_later(partial(self._ledger.end_correcting, grant.pool, ()))
                raise
            except BaseException:
                self._ledger.end_correcting(grant.pool, ())
                raise
            self._ledger.end_correcting(grant.pool, () if is_told else corrections)
            if not is_told:
                return

    def report(self, report: Report, caller: Caller, *, local: bool = False) -> StoreEffects[None]:
        """Tell all who share the store what they have to know.

        Args:
            report: What they have to know.
            caller: The call that found it out.
            local: Whether it is this process that gave the token of the claim, while the store was away.
        """
        if self.store is None:
            self._local.perform(report)
            return
        # A token is a moment of the clock of who gave it: to the other, the claim is one of nobody's.
        of_nobody = report if report.claim is None else report._replace(claim=report.claim._replace(token=None))
        # This process's own memory must know too, for when the store is away.
        self._local.perform(report if local else of_nobody)
        yield from self._tell_surely(of_nobody if local else report, caller)

    def utilization(self) -> Iterator[tuple[str, float]]:
        """The share of each pool's limit used in the window that ends now, as far as this process knows.

        It is above 1 where the limit was lowered since. Where a pool is used with several credentials it is the
        fullest one's.
        """
        own = ((use.pool, use.limit, use.used) for use in self._local.perform(ListPools()) if use.limit is not None)
        uses = (
            own
            if self.store is None
            else chain(
                (use for use in own if self._is_away(use[0])),
                (use for use in self._ledger.uses() if not self._is_away(use[0])),
            )
        )
        fullest: dict[str, float] = {}
        for key, limit, used in uses:
            fullest[key.pool] = max(fullest.get(key.pool, 0.0), used / self._in_force(key, limit).count)
        yield from fullest.items()

    def _in_force(self, pool: PoolKey, limit: Limit) -> Limit:
        """The limit that the next ask will be for, where Insider has named a lower one since the last."""
        named = self.experience.limit(pool)
        if named is not None and self._is_away(pool):
            named = self._ledger.share(pool, named)
        # What was used of another window's limit says nothing of this one's.
        if named is None or (named.window, named.calendar) != (limit.window, limit.calendar):
            return limit
        return min(limit, named, key=lambda each: each.count)

    def _admit_locally(self, ask: Admit, held: Grant | None) -> Grant:
        asked = self._clock()
        holding = None if held is None else held.noted
        admission: Admission = self._local.perform(ask if holding is None else ask._replace(holding=holding))
        admission = _confirmed(admission, holding)
        noted = None if ask.limit is None else admission.slot
        return Grant(ask.pool, ask.cost, admission, asked + admission.wait, local=True, noted=noted)

    def _admit_in_its_place(self, ask: Admit, held: Grant | None) -> Grant:
        """Answer in place of the store that is away, by this process's share of the limit."""
        lost = self.store is not None and self._availability(ask.pool).take_news()
        if held is not None and not held.local:
            # The store that granted the slot went away while it was waited for. It is as good as it was, unless what
            # came before it was used late.
            mine = self._admit_locally(ask._replace(claim=None), held)
            if mine.admission.slot is not None and mine.admission.wait > 0:
                held_on = held.admission._replace(wait=mine.admission.wait)
                return held._replace(admission=held_on, noted=mine.noted, lost=lost)
            # Used or not, it is not used as the store has it, if it has it still.
            if held.admission.slot is not None:
                self._ledger.correct(held.pool, Correction(held.admission.slot, held.cost, 0))
            self._missed(ask, mine)
            return mine._replace(lost=lost)
        grant = self._admit_locally(self._of_share(ask), held)._replace(lost=lost)
        self._missed(ask, grant)
        return grant

    def _missed(self, ask: Admit, grant: Grant) -> None:
        """Have the store told of a slot that is used and that it does not know."""
        # One that is waited for is used when it is asked for again, and not if the store is back by then.
        if ask.limit is not None and grant.noted is not None and grant.admission.wait == 0:
            self._ledger.missed(ask.pool, ask.limit, grant.noted, grant.cost)

    def _agree(self, ask: Admit, grant: Grant, caller: Caller, held: Grant | None) -> StoreEffects[Grant]:
        """A slot from a store that does not know all that this process has used: both must have room for it.

        Such a store was away, or has lost its memory. What it missed is told with the asks, but not before all of them.
        """
        mine = self._admit_locally(self._of_share(ask)._replace(claim=None), held)
        closed_for = self._local.closed_for(ask.pool)
        if closed_for and not grant.admission.closed:
            self._untold.keep(Report(ask.pool, closed_for=closed_for))
        if mine.noted is None:
            yield from self._decline(ask, grant.admission, caller)
            admission = mine.admission
            if ask.claim is not None and ask.claim.token is not None:
                admission = admission._replace(claim=grant.admission.claim, token=grant.admission.token)
            return grant._replace(admission=admission, due=mine.due)
        if ask.limit is not None and mine.admission.wait < grant.admission.wait:
            self._strike(mine)
            return grant._replace(noted=self._local.note(ask.pool, ask.limit, grant.admission.wait, ask.cost))
        # The store's slot is left too early; it is moved when this one was waited for and is confirmed, or was used.
        return grant._replace(admission=grant.admission._replace(wait=mine.admission.wait), noted=mine.noted)

    def _of_share(self, ask: Admit) -> Admit:
        """An ask for a part of this process's share of a limit."""
        if ask.limit is None:
            return ask
        share = self._ledger.share(ask.pool, ask.limit)
        return ask._replace(limit=share, cost=min(ask.cost, share.count))

    def _strike(self, grant: Grant | None) -> None:
        """Strike a slot out of this process's own memory."""
        if grant is not None and grant.noted is not None:
            self._local.correct(grant.pool, Correction(grant.noted, grant.cost, 0))

    def _cancel(self, told: Told, reply: Admission | None, caller: Caller, held: Grant | None) -> StoreEffects[None]:
        """The call is no more; what the store granted it meanwhile, and what it had, must not be lost with it."""
        self._take_back(told, reply, held)
        if reply is not None:
            yield from self._decline(told.ask, reply, caller)

    def _forsake(self, told: Told, question: Perform, held: Grant | None) -> None:
        """The call was dropped: what the store granted it is told with the next ask, and its claim ends by itself."""
        ask, reply = told.ask, question.reply
        self._take_back(told, reply, held)
        if reply is not None and reply.slot is not None and ask.limit is not None:
            self._ledger.correct(ask.pool, Correction(reply.slot, ask.cost, 0))

    def _take_back(self, told: Told, reply: Admission | None, held: Grant | None) -> None:
        if reply is not None:
            self._strike(held)
            self._ledger.heard(told, reply, notes=False)
            return
        self._ledger.untold(told)
        self._let_go(held)

    def _let_go(self, held: Grant | None) -> None:
        """The call that waited for a slot is no more, and has not asked for it again."""
        self._strike(held)
        if held is not None and not held.local and held.admission.slot is not None:
            self._ledger.correct(held.pool, Correction(held.admission.slot, held.cost, 0))

    def _decline(self, ask: Admit, admission: Admission, caller: Caller) -> StoreEffects[None]:
        """What a store granted to a call that cannot use it is the next one's."""
        unused: tuple[Correction, ...] = ()
        if admission.slot is not None and ask.limit is not None:
            unused = (Correction(admission.slot, ask.cost, 0),)
        claim = None
        if ask.claim is not None and ask.claim.token is None and admission.token is not None:
            claim = ClaimReport(ask.claim.key, admission.token, ClaimEnd.RELEASE, ask.claim.lease)
        if unused or claim:
            yield from self._tell_surely(Report(ask.pool, corrections=unused, claim=claim), caller)

    def _tell_untold(self, ask: Admit, caller: Caller) -> StoreEffects[None]:
        """Tell the store what it has missed, before it is asked."""
        report = self._untold.next(ask.pool, None if ask.claim is None else ask.claim.key)
        if report is None and self._is_away(ask.pool):
            # A store that answers too late does what it is asked all the same: a try must take no slot each time.
            report = Report(ask.pool)
        if report is not None and (yield from self._tell_store(report, caller)):
            self._untold.told(report)

    def _tell_surely(self, report: Report, caller: Caller) -> StoreEffects[None]:
        """Tell the store, now or with the asks to come."""
        try:
            is_told = yield from self._tell_store(report, caller)
        except GeneratorExit:
            finish_later(partial(self._keep, report))
            raise
        except BaseException:
            self._keep(report)
            raise
        if not is_told:
            self._keep(report)

    def _keep(self, report: Report) -> None:
        """The store could not be told."""
        for correction in report.corrections:
            self._ledger.correct(report.pool, correction)
        self._untold.keep(report)

    def _tell_store(self, report: Report, caller: Caller) -> StoreEffects[bool]:
        """Tell the store, if it is not away; returns whether it knows."""
        if self.store is None:
            return False
        availability = self._availability(report.pool)
        spell = availability.may_ask(caller)
        if spell is None:
            return False
        asked = self._clock()
        try:
            yield Perform(self.store, report)
        except StoreError as error:
            availability.failed(error, spell, asked, caller)
            return False
        availability.answered(spell)
        return True

    def _availability(self, pool: PoolKey) -> Availability:
        """Whether the store can be used for a pool."""
        part = pool.owner if self._owners_fail_apart else _THE_WHOLE
        with self._lock:
            return self._availabilities.get(part, _is_idle)

    def _new_availability(self) -> Availability:
        assert self.store is not None, "what is not there is in no trouble"
        return Availability(self.store, self._clock)

    def _is_away(self, pool: PoolKey) -> bool:
        return self.store is not None and self._availability(pool).is_away


def _is_idle(_: Availability) -> bool:
    """Never: a call under way may be about to say there how its ask went."""
    return False


def _confirmed(admission: Admission, holding: int | None) -> Admission:
    """A slot that was waited for and still holds is to be used now, though by another clock it may be a moment away."""
    if admission.slot is None or admission.slot != holding:
        return admission
    return admission._replace(wait=0.0)
