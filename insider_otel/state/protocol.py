"""What calls ask of a store, and what it answers: the same words for memory, sqlite and redis.

A store holds, for all who share it: the uses of each pool's limit, how long a pool is closed, and the claims on
content. It is asked once for an attempt: ``Admit`` before it, and once more on waking from a wait. ``Report`` follows
where there is something that cannot wait for the next ask. Moments are whole microseconds of the store's own clock, so
that arithmetic is exact; they mean nothing to anyone but the store that gave them.

What is said for every attempt is a named tuple: making one takes a third of the time that a frozen dataclass does.
"""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Any, NamedTuple, Protocol, TypeVar

from insider_otel.api.operations import Limit

T = TypeVar("T")

MICROSECONDS = 1_000_000


class PoolKey(NamedTuple):
    """Whose limit, and which.

    Attributes:
        pool: Name of the pool.
        owner: Fingerprint of the credential it is counted for.
    """

    pool: str
    owner: bytes


class ClaimState(StrEnum):
    """What a store knows of a content."""

    CLAIMED = "claimed"
    """Nobody had it: the asking call has it now."""
    IN_FLIGHT = "in_flight"
    """Another call has it, and may yet fail."""
    DONE = "done"
    """A call that had it succeeded, inside the duplicate window."""


class ClaimEnd(Enum):
    """What becomes of a claim when its call ends."""

    DONE = "done"
    """The call succeeded: a repeat is held back until the window is over."""
    KEEP = "keep"
    """Nobody knows whether it did: it stays in flight until the window is over."""
    RELEASE = "release"
    """It failed for good: the next call may have it."""


class ClaimAsk(NamedTuple):
    """Ask for a content.

    Attributes:
        key: Keyed hash of it.
        lease: Seconds for which the claim stands if nothing more is heard of the call.
        token: What an earlier answer gave this call, if it has the claim already: it is renewed.
    """

    key: bytes
    lease: float
    token: int | None = None


class ClaimReport(NamedTuple):
    """Tell how the call with a content ended.

    Attributes:
        key: Keyed hash of the content.
        token: What the store's answer gave this call; None if another call had the claim.
        end: What becomes of the claim.
        lasts: Seconds from now until the duplicate window is over, for ``DONE`` and ``KEEP``; until the claim is over
            anyway, for ``RELEASE``.
    """

    key: bytes
    token: int | None
    end: ClaimEnd
    lasts: float = 0.0


class Correction(NamedTuple):
    """What became of a slot that was granted.

    Attributes:
        slot: The moment that was granted.
        cost: What was taken for it.
        actual: What it cost in the end; 0 if it was not used at all.
        late: Microseconds by which it was used later than granted.
    """

    slot: int
    cost: int
    actual: int
    late: int = 0


class PastUse(NamedTuple):
    """A use of a limit that the store knows nothing of, because it was not to be reached.

    Attributes:
        age: Microseconds ago.
        cost: What it took of the limit.
    """

    age: int
    cost: int


class Admit(NamedTuple):
    """Ask for a slot in a pool, for a content, or for both at once: a content that is done takes no slot, and a slot
    that is refused leaves no new claim.

    Attributes:
        pool: The pool; its owner also says whose content it is.
        limit: The pool's limit; None to ask for the claim alone, and whether the pool is closed.
        cost: What the attempt takes of the limit.
        longest_wait: Seconds. A slot further away is not taken.
        holding: A slot that was granted before and waited for. It is kept if the pool is still open and what came
            before it leaves room, else given up for a later one.
        corrections: What became of earlier slots of this pool; applied first.
        past: Uses that the store missed; applied first.
        claim: The content.
        worker: Who asks: the same bytes for all calls of a process.
        born: When the store's record of the pool began, as the worker knows it; 0 if it knows of none. One that knows
            of another has not told this one what it has used, and is not counted until it has.
    """

    pool: PoolKey
    limit: Limit | None = None
    cost: int = 1
    longest_wait: float = 0.0
    holding: int | None = None
    corrections: tuple[Correction, ...] = ()
    past: tuple[PastUse, ...] = ()
    claim: ClaimAsk | None = None
    worker: bytes = b""
    born: int = 0


class Admission(NamedTuple):
    """A store's answer to ``Admit``.

    Attributes:
        wait: Seconds until the slot; 0 for now. Also told if the slot was too far away to be taken.
        slot: The slot's moment; None if none was taken.
        closed: Whether the wait is for a pool that Insider closed.
        used: What is used of the limit in the window that ends now, this attempt included.
        workers: How many processes share the pool, at least 1: those who asked lately.
        born: When the store's record of the pool began. Another value than before: it has lost what it knew.
        learned: The limit that Insider named to one of those who share the pool.
        claim: What the store knows of the content; None if it was not asked for, or left because no slot was taken.
        claim_age: Seconds since the call that is, or was, in flight with it; 0 if the asking call has it.
        token: Proof of the claim, for ``ClaimReport``; None if the asking call does not have it.
    """

    wait: float = 0.0
    slot: int | None = None
    closed: bool = False
    used: int = 0
    workers: int = 1
    born: int = 0
    learned: Limit | None = None
    claim: ClaimState | None = None
    claim_age: float = 0.0
    token: int | None = None


class Report(NamedTuple):
    """Tell a store what it has to know at once.

    Attributes:
        pool: The pool.
        corrections: What became of slots.
        closed_for: Seconds for which Insider closed the pool.
        learned: The limit that Insider named.
        claim: How the call with a content ended.
    """

    pool: PoolKey
    corrections: tuple[Correction, ...] = ()
    closed_for: float | None = None
    learned: Limit | None = None
    claim: ClaimReport | None = None


@dataclass(frozen=True, slots=True)
class ListPools:
    """Ask what is known of every pool."""


@dataclass(frozen=True, slots=True)
class PoolUse:
    """What a store knows of a pool.

    Attributes:
        pool: The pool.
        limit: The limit it was last asked for with; None if it was only closed.
        used: What is used of it in the window that ends now.
        closed_for: Seconds until it is open again; 0 if it is open.
        workers: How many processes share it.
        learned: The limit that Insider named.
    """

    pool: PoolKey
    limit: Limit | None
    used: int
    closed_for: float
    workers: int
    learned: Limit | None = None


Request = Admit | Report | ListPools
"""What a store is asked."""

Reply = Admission | tuple[PoolUse, ...] | None
"""What it answers: an ``Admission`` to ``Admit``, nothing to ``Report``, the pools to ``ListPools``."""


class StoreError(Exception):
    """A store cannot be used now: it is down, slow, full or read-only. It names no secret; its cause is the driver."""


class Store(Protocol):
    """Where limits and claims live. Safe to use from any thread, event loop, greenlet, and after a fork."""

    @property
    def name(self) -> str:
        """Its kind: ``memory``, ``sqlite`` or ``redis``."""
        ...

    @property
    def address(self) -> str:
        """Its address, without user and password: for logs and the command line."""
        ...

    def perform(self, request: Request) -> Any:
        """Do what is asked, in one transaction.

        Raises:
            StoreError: It cannot be done, within the store's timeout.
        """
        ...

    async def perform_async(self, request: Request) -> Any:
        """``perform``, without holding up the event loop."""
        ...

    def close(self) -> None:
        """Let go of connections and files. The store may be used again."""
        ...


@dataclass(slots=True)
class Perform:
    """An effect: have a store do what it is asked; answered with its reply, or with the ``StoreError`` raised.

    Attributes:
        store: The store.
        request: What it is asked.
        reply: Its reply; who carries the effect out in an event loop leaves it here even if the call was cancelled
            meanwhile.
    """

    store: Store
    request: Request
    reply: Any = None


StoreEffects = Generator[Perform, Any, T]
"""A course of store effects that ends with a ``T``: whoever drives it blocks or awaits, and writes nothing twice."""
