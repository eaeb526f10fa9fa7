"""How it goes, at a glance and without asking anybody: ``health()``."""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from insider_otel.api.verdict import Fault, Verdict
from insider_otel.policy.steps import Outcome
from insider_otel.state.opening import all_states

if TYPE_CHECKING:
    from insider_otel.outbox.watch import Watch

# An outbox elsewhere, in a broker or the app's own database, is not asked: a health page must answer at once.
_LOCAL_OUTBOXES = frozenset({"sqlite"})


@dataclass(frozen=True, slots=True)
class _Last:
    """The last call of a product that ended."""

    outcome: Outcome
    category: str
    fault: Fault
    at: float


_last: dict[str, _Last] = {}


def note_outcome(product: str, outcome: Outcome, verdict: Verdict) -> None:
    """A call ended.

    Args:
        product: Insider's product.
        outcome: How it ended.
        verdict: What its last attempt meant.
    """
    _last[product] = _Last(outcome, verdict.category.value, verdict.fault, time.monotonic())


def health() -> dict[str, Any]:
    """What this process knows of its calls to Insider: for a health page, a dashboard or a log line.

    It asks nobody beyond this machine: neither Insider nor the store of limits.

    Returns:
        A new dictionary that JSON can hold:

        * ``status``: ``ok``; ``degraded`` if the store of limits is away, an outbox cannot be used, or a product's last
          call failed and it is for Insider or the network to mend that.
        * ``products``: by product, how its last call ended: ``outcome``, ``category``, ``fault`` and ``age_s``.
        * ``pools``: by pool, the share of its rate limit that is used, 0 to 1.
        * ``stores``: where limits and duplicates are held: ``kind`` and ``available``. The memory of the process is
          named only if no call names another store.
        * ``outboxes``: where deferred calls are: ``kind``; ``worker``, whether one works in this process; and of one on
          this machine, as it was within the last second, ``available``, ``waiting``, ``dead`` and ``oldest_age_s``.
          None for what is not known here.
    """
    now = time.monotonic()
    # Copied in one step: calls of other threads end meanwhile.
    ended = _last.copy()
    products = {
        product: {
            "outcome": last.outcome.value,
            "category": last.category,
            "fault": last.fault.value,
            "age_s": round(now - last.at, 1),
        }
        for product, last in sorted(ended.items())
    }
    states = all_states()
    pools: dict[str, float] = {}
    for state in states:
        for pool, used in state.utilization():
            pools[pool] = max(pools.get(pool, 0.0), round(used, 4))
    stores = [
        {"kind": state.store.name, "available": not state.is_away} for state in states if state.store is not None
    ] or [{"kind": "memory", "available": True}]
    outboxes = [_outbox(watch) for watch in _watches()]
    failing = any(
        last.outcome is Outcome.FAILED and last.fault in {Fault.INSIDER, Fault.NETWORK} for last in ended.values()
    )
    is_away = any(state.is_away for state in states) or any(outbox["available"] is False for outbox in outboxes)
    return {
        "status": "degraded" if failing or is_away else "ok",
        "products": products,
        "pools": pools,
        "stores": stores,
        "outboxes": outboxes,
    }


def _watches() -> tuple[Watch, ...]:
    # Who has no outbox loads nothing of it.
    module = sys.modules.get("insider_otel.outbox.watch")
    return () if module is None else module.all_watches()


def _outbox(watch: Watch) -> dict[str, Any]:
    is_asked = watch.outbox.name in _LOCAL_OUTBOXES
    stats = watch.stats() if is_asked else None
    oldest = None if stats is None or stats.oldest is None else round(max(time.time() - stats.oldest, 0.0), 1)
    return {
        "kind": watch.outbox.name,
        "available": stats is not None if is_asked else None,
        "waiting": None if stats is None else stats.waiting,
        "dead": None if stats is None else stats.dead,
        "oldest_age_s": oldest,
        "worker": any(worker.is_alive for worker in watch.workers),
    }


def forget() -> None:
    """Know nothing, as at the start of a process."""
    _last.clear()
