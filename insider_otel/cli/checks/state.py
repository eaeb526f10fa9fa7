"""Where limits and duplicates are kept, and the limits that the app sets itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from insider_otel.api.operations import Limit, operations_by_name
from insider_otel.cli.checks.environment import Environment, Finding, Level
from insider_otel.policy.settings import Settings, SettingsError, variable_of
from insider_otel.policy.state_url import StateURL
from insider_otel.state.credential import NOBODY
from insider_otel.state.opening import open_store
from insider_otel.state.protocol import Admit, PoolKey, Store, StoreError
from insider_otel.state.redis_commands import ServerInfo

DOCTOR = PoolKey("doctor", NOBODY)
"""What the doctor asks a store for, to see whether it can be written: no operation has a pool of this name."""

_VARIABLE = variable_of("state")
_PATIENCE = 2.0
_ASKS = 5


def limits(environment: Environment) -> Iterator[Finding]:
    """Limits of the app that Insider may not agree with."""
    variable = variable_of("limits")
    for pool, limit in _readable(environment, "limits").pool_limits.items():
        operation = operations_by_name().get(pool)
        known = None if operation is None else operation.limit
        if known is None and limit is not None:
            yield Finding(
                Level.NOTE,
                f"{variable} holds {pool} to {limit}, and Insider documents no limit for it",
                "What Insider says at run time can lower it, and not raise it.",
                f"If you do not know it from Insider, take {pool} out.",
            )
        elif known is not None and limit is None:
            yield Finding(
                Level.WARNING,
                f"{variable} lifts the limit of {pool}, documented as {known}",
                "Nobody waits for a slot; Insider refuses what is too much, and then the pool is closed for everybody.",
                f"Take {pool} out, unless Insider has lifted it for your account.",
            )
        elif known is not None and limit is not None and _rate(limit) > _rate(known):
            yield Finding(
                Level.WARNING,
                f"{variable} lets {pool} have {limit}, and {known} is documented",
                "Insider refuses what is too much, and then the pool is closed for everybody.",
                f"Take {pool} out, unless Insider has raised the limit for your account.",
            )


def _rate(limit: Limit) -> float:
    return limit.count / limit.window


def _readable(environment: Environment, name: str) -> Settings:
    """One setting, the others at their defaults; so is this one if it cannot be used, which another check tells."""
    variable = variable_of(name)
    try:
        return Settings.from_env({variable: environment.variable(variable)})
    except SettingsError:
        return Settings()


def state(environment: Environment) -> Iterator[Finding]:
    """Whether limits and duplicates can be kept, where the environment says."""
    url = StateURL.parse(_readable(environment, "state").state)
    if url.scheme == "memory":
        yield Finding(
            Level.NOTE,
            "limits and duplicates are kept in the memory of each process (memory://), unless the code says otherwise",
            "Enough for one process. Of several each takes a limit for its own, so that Insider refuses what is too "
            "much, and none holds back a mail that another has sent.",
            f"With several workers set {_VARIABLE} to sqlite:////path/of/a/file, on several machines to redis://host.",
        )
        return
    if url.scheme == "redis" and "redis" not in environment.versions:
        yield Finding(
            Level.ERROR,
            f"{_VARIABLE} is {url.display}, and redis-py is not installed",
            "insider-otel refuses to start with it.",
            "pip install 'insider-otel[redis]'",
        )
        return
    try:
        store = open_store(replace(url, timeout=max(url.timeout, _PATIENCE)))
        absent = is_absent(url)
    except (ImportError, OSError, StoreError, ValueError) as error:
        yield Finding(
            Level.ERROR,
            f"{_VARIABLE} cannot be used: {error}",
            "insider-otel refuses to start with it.",
            "Correct the variable, or what it names.",
        )
        return
    assert store is not None, "only memory:// needs no store"
    if absent:
        yield _absent(url)
    elif url.scheme == "sqlite" and not _is_writable(Path(url.target)):
        # Not even opened: sqlite would read it, and leave files beside it that its owner cannot write.
        yield Finding(
            Level.ERROR, f"the state {url.display} cannot be used: it is not writable", _WITHOUT, _REMEDIES["sqlite"]
        )
    else:
        yield _tried(store, url)


def is_absent(url: StateURL) -> bool:
    """Whether the store is a file that is not there. The first call makes it; who only looks does not.

    Args:
        url: Its address.

    Raises:
        OSError: The directory cannot be read.
    """
    try:
        return url.scheme == "sqlite" and not os.stat(url.target)
    except FileNotFoundError:
        return True


def _is_writable(path: Path) -> bool:
    return os.access(path, os.R_OK | os.W_OK) and os.access(path.parent, os.W_OK | os.X_OK)


def _absent(url: StateURL) -> Finding:
    directory = Path(url.target).absolute().parent
    if os.access(directory, os.W_OK | os.X_OK):
        return Finding(Level.OK, f"the state {url.display} is not there yet; the first call makes it")
    return Finding(
        Level.ERROR,
        f"the state {url.display} cannot be made: {directory} is not writable",
        _WITHOUT,
        _REMEDIES["sqlite"],
    )


def _tried(store: Store, url: StateURL) -> Finding:
    try:
        slowest = _slowest(store)
        server = _server(store) if url.scheme == "redis" else None
    except StoreError as error:
        return Finding(Level.ERROR, f"the state cannot be used: {error}", _WITHOUT, _REMEDIES[url.scheme])
    finally:
        store.close()
    if server is not None and server.is_cluster and not url.cluster:
        return Finding(
            Level.ERROR,
            f"the state {url.display} ({server.version}) is one node of a cluster, and {_VARIABLE} does not say so",
            f"Other nodes have the limits of some keys, or will when the cluster grows. {_WITHOUT}",
            f"Say it: {_VARIABLE}=…?cluster=true. Or take a server that is in no cluster.",
        )
    version = "" if server is None else f" ({server.version})"
    took = f"the state {url.display}{version} is read and written in {slowest * 1000:.1f} ms"
    if slowest > url.timeout:
        return Finding(
            Level.WARNING,
            f"{took}, and it is given {url.timeout * 1000:g} ms",
            f"An answer that comes too late is no answer. {_WITHOUT}",
            f"Bring it closer, or give it more time: {_VARIABLE}=…?timeout={max(round(slowest * 3, 2), 0.1):g}",
        )
    return Finding(Level.OK, f"{took}; it is given {url.timeout * 1000:g} ms")


def _server(store: Store) -> ServerInfo | None:
    from insider_otel.state.redis_store import RedisStore  # noqa: PLC0415  (an extra)

    assert isinstance(store, RedisStore), "no other store has a server"
    try:
        return store.server()
    except StoreError:
        # A user who may not ask for it may still do all that the store needs.
        return None


def _slowest(store: Store) -> float:
    """Seconds of the slowest of some asks. The first, which has to connect, is not one of them."""
    store.perform(Admit(DOCTOR))
    slowest = 0.0
    for _ in range(_ASKS):
        began = time.perf_counter()
        store.perform(Admit(DOCTOR))
        slowest = max(slowest, time.perf_counter() - began)
    return slowest


_WITHOUT = (
    "Calls go on without it, and each process then holds its share of a limit by itself and holds back its own repeats "
    "only."
)
_REMEDIES = {
    "redis": f"Start the server, or correct {_VARIABLE}. It has to allow EVAL and EVALSHA, and to be no replica; "
    "with cluster=true, it has to be a node of a cluster and to allow CLUSTER SLOTS.",
    "sqlite": "Run the doctor as the app's user. The file and its directory have to be writable.",
}
