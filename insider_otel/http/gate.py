"""What one call asks of the state it shares with others: a slot for each attempt, and its content for itself."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, TypeVar

from opentelemetry.context import get_current

from insider_otel.api.operations import Operation
from insider_otel.api.verdict import Category, Verdict
from insider_otel.policy.limits import limit_of, told_by
from insider_otel.policy.settings import Settings
from insider_otel.policy.steps import is_judged
from insider_otel.state.availability import Caller
from insider_otel.state.content import content_key
from insider_otel.state.credential import Credentials
from insider_otel.state.protocol import (
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    PoolKey,
    Report,
    StoreEffects,
)
from insider_otel.state.shared import Grant, SharedState
from insider_otel.telemetry.suppression import attached, silencing

if TYPE_CHECKING:
    import httpx

    from insider_otel.api.operations import Limit

T = TypeVar("T")

_ATTEMPT_LEASE = 60.0
"""Seconds by which a claim outlives the longest wait before an attempt: what the attempt itself may take."""


class Turn(NamedTuple):
    """What the shared state says to one attempt.

    Attributes:
        wait: Seconds until its slot.
        granted: Whether the slot was taken.
        closed: Whether Insider closed the pool.
        held_back: Seconds since a call with the same content that succeeded; None if there is none.
        in_flight: Seconds since a call with the same content that may yet fail; None if there is none.
        store_lost: The kind of the store that this call, first of all, found in trouble; None if there is none.
    """

    wait: float = 0.0
    granted: bool = True
    closed: bool = False
    held_back: float | None = None
    in_flight: float | None = None
    store_lost: str | None = None


FREE = Turn()
"""Nothing holds the attempt back."""


class Gate:
    """One call's dealings with the shared state; none, where nothing is to be held.

    Args:
        state: The shared state.
        settings: The app's settings.
        operation: The operation called.
        request: The app's request.
        body: Its body; None if it cannot be read twice.
        holds: Whether limits and duplicates are held at all.
    """

    __slots__ = (
        "_caller",
        "_claim_is_local",
        "_claimed",
        "_content",
        "_content_window",
        "_grant",
        "_operation",
        "_pool",
        "_settings",
        "_state",
        "_token",
    )

    def __init__(
        self,
        state: SharedState,
        settings: Settings,
        operation: Operation,
        request: httpx.Request,
        body: bytes | None,
        *,
        holds: bool,
    ) -> None:
        self._state = state
        self._settings = settings
        self._operation = operation
        self._caller = Caller()
        self._grant: Grant | None = None
        self._claimed: ClaimState | None = None
        self._claim_is_local = False
        self._token: int | None = None
        self._content: bytes | None = None
        self._content_window = settings.duplicate_window_of(operation) or 0.0
        self._pool: PoolKey | None = None
        if not holds:
            return
        credentials = Credentials(operation, request.headers, body)
        owner = credentials.owner()
        if owner is None:
            # Without the credential there is no telling whose limit it counts against, nor whose content it is.
            return
        self._pool = PoolKey(operation.pool, owner)
        # Nor is there a secret to hash the content with, so that nobody who reads the store can try what was sent.
        if body is not None and self._content_window > 0:
            secret = credentials.content_secret()
            content_type = request.headers.get("content-type")
            if secret is not None:
                self._content = content_key(operation, secret, request.url.raw_path, content_type, body)

    @property
    def limit(self) -> Limit | None:
        """The limit that the call is held to."""
        learned = None if self._pool is None else self._state.experience.limit(self._pool)
        return limit_of(self._operation, self._settings.pool_limits, learned)

    def ask(self, longest_wait: float) -> StoreEffects[Turn]:
        """Ask for a slot for the next attempt, or whether the slot that was waited for still holds.

        Args:
            longest_wait: Seconds. A slot further away is not taken.
        """
        if self._pool is None:
            return FREE
        held, self._grant = self._grant, None
        cost = self._state.experience.cost(self._pool, self._operation.name) if held is None else held.cost
        claim = None
        if held is None and self._content is not None:
            lease = min(longest_wait + _ATTEMPT_LEASE, self._content_window)
            claim = ClaimAsk(self._content, lease, self._token)
        limit = self.limit
        if limit is not None:
            # More than a window allows can only be all of it.
            cost = min(cost, limit.count)
        ask = Admit(self._pool, limit, cost=cost, longest_wait=longest_wait, claim=claim)
        grant = yield from self._silently(self._state.admit(ask, self._caller, held))
        admission = grant.admission
        lost = self._state.store.name if grant.lost and self._state.store is not None else None
        if claim is not None:
            self._claimed, self._token, self._claim_is_local = admission.claim, admission.token, grant.local
            if admission.claim is ClaimState.DONE:
                return Turn(held_back=admission.claim_age, store_lost=lost)
        if admission.slot is not None:
            self._grant = grant
        return Turn(
            wait=admission.wait,
            granted=admission.slot is not None,
            closed=admission.closed,
            in_flight=admission.claim_age if admission.claim is ClaimState.IN_FLIGHT else None,
            store_lost=lost,
        )

    def answered(
        self,
        verdict: Verdict,
        *,
        sent_at: float,
        now: float,
        answered: bool,
        arrived: bool,
        closed_for: float | None,
    ) -> StoreEffects[None]:
        """An attempt is over.

        Args:
            verdict: What it brought.
            sent_at: The moment it was sent.
            now: The present moment.
            answered: Whether Insider answered it.
            arrived: Whether Insider may have counted it.
            closed_for: Seconds for which Insider closed the pool; None if it did not.
        """
        if self._pool is None:
            return
        grant, self._grant = self._grant, None
        limit, said = self.limit, verdict.rate_limit
        cost = None if said is None else said.cost
        if cost is not None:
            # More than a window allows can only be all of it.
            cost = cost if limit is None else min(cost, limit.count)
            self._state.experience.learn_cost(self._pool, self._operation.name, cost)
        if answered:
            self._state.experience.learn_speed(self._pool, now - sent_at, now)
        if grant is not None:
            counts = arrived and (verdict.ok or limit is None or limit.counts_failures)
            actual = (grant.cost if cost is None else cost) if counts else 0
            self._state.settle(grant, now=now, actual=actual)
        told = told_by(said, limit, self._operation.limit)
        if told is not None and not self._state.experience.learn_limit(self._pool, told, limit):
            told = None
        if closed_for is None and said is not None and said.explicit and said.remaining == 0:
            closed_for = said.reset
        if told is not None or closed_for is not None:
            report = Report(self._pool, closed_for=closed_for, learned=told)
            yield from self._silently(self._state.report(report, self._caller))

    def interrupted(self, now: float) -> None:
        """An attempt was broken off in the air: its slot counts, for Insider may have received it.

        Args:
            now: The present moment.
        """
        grant, self._grant = self._grant, None
        if grant is not None:
            self._state.settle(grant, now=now, actual=grant.cost)

    def ended(
        self, verdict: Verdict | None, *, sent_at: float, ambiguous_since: float | None, now: float
    ) -> StoreEffects[None]:
        """The call is over: the content is Insider's, or free for the next, or nobody knows.

        Args:
            verdict: What its last attempt meant; None if it was cancelled.
            sent_at: The moment of its last attempt.
            ambiguous_since: The moment of the first attempt that Insider may have processed without our knowing.
            now: The present moment.
        """
        grant, self._grant = self._grant, None
        if grant is not None:
            yield from self._silently(self._state.give_back(grant, self._caller))
        claimed, self._claimed = self._claimed, None
        if self._pool is None or self._content is None or claimed in {None, ClaimState.DONE}:
            return
        end, since = _claim_end(verdict, sent_at, ambiguous_since)
        lasts = self._content_window - (now - since)
        if lasts <= 0:
            end = ClaimEnd.RELEASE
        # The claim of another call is that call's, unless this one has succeeded first.
        if self._token is not None or end is ClaimEnd.DONE:
            claim = ClaimReport(self._content, self._token, end, max(lasts, 0.0))
            report = Report(self._pool, claim=claim)
            yield from self._silently(self._state.report(report, self._caller, local=self._claim_is_local))

    def dropped(self) -> None:
        """The call was dropped without a chance to ask or tell anybody: what it held is told with the next ask."""
        grant, self._grant = self._grant, None
        if grant is not None:
            self._state.settle(grant, now=grant.due, actual=0)

    def _silently(self, effects: StoreEffects[T]) -> StoreEffects[T]:
        """The store's own traffic makes no spans in the app's traces."""
        return effects if self._state.store is None else _silenced(effects)


def _silenced(effects: StoreEffects[T]) -> StoreEffects[T]:
    with attached(silencing(get_current())):
        return (yield from effects)


_TAKEN = frozenset({Category.SUCCESS, Category.ACCEPTED})


def _claim_end(verdict: Verdict | None, sent_at: float, ambiguous_since: float | None) -> tuple[ClaimEnd, float]:
    """What becomes of a content, and since when Insider may have it."""
    if verdict is not None:
        if verdict.category in _TAKEN:
            return ClaimEnd.DONE, sent_at
        if verdict.category is Category.DUPLICATE and ambiguous_since is not None:
            # Insider has it already: from the attempt whose answer was lost.
            return ClaimEnd.DONE, ambiguous_since
        if is_judged(verdict):
            return ClaimEnd.RELEASE, sent_at
    return (ClaimEnd.RELEASE, sent_at) if ambiguous_since is None else (ClaimEnd.KEEP, ambiguous_since)
