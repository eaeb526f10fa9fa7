"""Which state a setting names: one for the whole process, however many transports name it."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from weakref import WeakSet

from insider_otel.policy.frames import raises_bare
from insider_otel.policy.settings import SettingsError, variable_of
from insider_otel.policy.state_url import StateURL
from insider_otel.state.dropped import forget_dropped
from insider_otel.state.protocol import Store, StoreError
from insider_otel.state.shared import SharedState


def open_store(url: StateURL) -> Store | None:
    """The store at an address.

    Args:
        url: The address.

    Returns:
        The store; None for the memory of this process, which needs none.

    Raises:
        ImportError: The store needs a package that is not installed.
        StoreError: The store can never be used, for instance because a directory is missing.
    """
    match url.scheme:
        case "memory":
            return None
        case "sqlite":
            from insider_otel.state.sqlite_store import SQLiteStore  # noqa: PLC0415  (who has no such store loads none)

            return SQLiteStore(url.target, timeout=url.timeout)
        case "redis":
            from insider_otel.state.redis_store import RedisStore  # noqa: PLC0415

            return RedisStore(url.target, timeout=url.timeout, prefix=url.prefix, cluster=url.cluster)


PROCESS_STATE = SharedState()
"""What all calls of this process share that name no other store and go by the process's own clock."""

_states: dict[StateURL, SharedState] = {}
_of_other_clocks: WeakSet[SharedState] = WeakSet()
"""Each belongs to the one who brought the clock, and ends with it."""
_lock = threading.Lock()


@raises_bare
def shared_state(address: str, clock: Callable[[], float] | None = None) -> SharedState:
    """The state that calls share.

    Args:
        address: The setting ``state``.
        clock: The calls' own clock; None for the process's. Moments of another clock mean nothing to the rest of the
            process, so such calls share nothing with it but the store.

    Raises:
        SettingsError: The address cannot be read, or the store can never be used.
        ImportError: The store needs a package that is not installed.
    """
    url = StateURL.parse(address)
    if url.scheme == "memory" and clock is None:
        return PROCESS_STATE
    with _lock:
        state = _states.get(url) if clock is None else None
        if state is None:
            try:
                store = open_store(url)
            except StoreError as error:
                raise SettingsError(f"state ({variable_of('state')}): {error}") from error
            if clock is not None:
                state = SharedState(store, clock, clock, owners_fail_apart=url.cluster)
                _of_other_clocks.add(state)
                return state
            state = _states[url] = SharedState(store, time.monotonic, time.time, owners_fail_apart=url.cluster)
    return state


def all_states() -> tuple[SharedState, ...]:
    """Every state that calls of this process share; not those of other clocks, which nobody shares."""
    return (PROCESS_STATE, *_states.values())


def forget_states() -> None:
    """Let this process forget what its calls have left behind, by whichever clock. A store remembers."""
    with _lock:
        states = (*all_states(), *_of_other_clocks)
    for state in states:
        state.forget()


def _after_fork_in_child() -> None:
    # A child must not inherit a lock that some thread of its parent happened to hold, nor its parent's slots.
    global _lock  # noqa: PLW0603
    _lock = threading.Lock()
    forget_dropped()
    forget_states()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
