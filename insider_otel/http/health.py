"""How it goes, at a glance and without asking anybody: ``health()``."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from insider_otel.api.verdict import Fault, Verdict
from insider_otel.policy.steps import Outcome
from insider_otel.state.opening import all_states


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

    It asks nobody: neither Insider nor the store of limits.

    Returns:
        A new dictionary that JSON can hold:

        * ``status``: ``ok``; ``degraded`` if the store of limits is away, or if a product's last call failed and it is
          for Insider or the network to mend that.
        * ``products``: by product, how its last call ended: ``outcome``, ``category``, ``fault`` and ``age_s``.
        * ``pools``: by pool, the share of its rate limit that is used, 0 to 1.
        * ``stores``: where limits and duplicates are held: ``kind`` and ``available``.
    """
    now = time.monotonic()
    products = {
        product: {
            "outcome": last.outcome.value,
            "category": last.category,
            "fault": last.fault.value,
            "age_s": round(now - last.at, 1),
        }
        for product, last in sorted(_last.items())
    }
    states = all_states()
    pools: dict[str, float] = {}
    for state in states:
        for pool, used in state.utilization():
            pools[pool] = max(pools.get(pool, 0.0), round(used, 4))
    stores = [
        {"kind": "memory" if state.store is None else state.store.name, "available": not state.is_away}
        for state in states
    ]
    failing = any(
        last.outcome is Outcome.FAILED and last.fault in {Fault.INSIDER, Fault.NETWORK} for last in _last.values()
    )
    is_away = any(state.is_away for state in states)
    return {
        "status": "degraded" if failing or is_away else "ok",
        "products": products,
        "pools": pools,
        "stores": stores,
    }


def forget() -> None:
    """Know nothing, as at the start of a process."""
    _last.clear()
