"""``insider-otel limits``: every pool with its limit and, from the store that the workers share, how full it is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from insider_otel.api.operations import Operation, operations
from insider_otel.cli.operations import limit_text
from insider_otel.cli.output import UsageError, print_json, print_table
from insider_otel.policy.limits import limit_of
from insider_otel.policy.settings import Settings, SettingsError
from insider_otel.policy.state_url import StateURL
from insider_otel.state.opening import open_store
from insider_otel.state.protocol import ListPools, PoolUse, StoreError

_KEY_SHOWN = 8


@dataclass(frozen=True, slots=True)
class _Row:
    """One pool with one key.

    Attributes:
        pool: Its name.
        limit: The limit it is held to.
        source: Who says so: ``documented``, ``settings`` or ``Insider``; None without a limit.
        key: The beginning of the fingerprint of the key it is used with; None if it is not in use.
        used: What is used of the limit in the window that ends now; None if that is not known here.
        closed_for: Seconds until it is open again; 0 if it is open.
        workers: How many processes share it; None if that is not known here.
    """

    pool: str
    limit: str
    source: str | None
    key: str | None = None
    used: int | None = None
    closed_for: float = 0.0
    workers: int | None = None


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``insider-otel``."""
    parser = commands.add_parser(
        "limits",
        help="show how full each rate limit is",
        description="List every pool of operations that share a rate limit, with the limit it is held to (documented, "
        "set by INSIDER_OTEL_LIMITS, or named by Insider) and, from the store that the workers share, what is used of "
        "it in its last window and for how long it is closed. A pool has a line for each key it is used with; a key is "
        "told by the beginning of its fingerprint.",
    )
    parser.add_argument("--state", metavar="URL", help="the store; INSIDER_OTEL_STATE by default")
    parser.add_argument("--used", action="store_true", help="only the pools that are in use or closed")
    parser.add_argument("--json", action="store_true", help="print as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    try:
        settings = Settings.from_env()
        if arguments.state is not None:
            settings = replace(settings, state=arguments.state)
    except SettingsError as error:
        raise UsageError(str(error)) from None
    url = StateURL.parse(settings.state)
    rows = [
        row for row in _rows(settings, _uses(url)) if not arguments.used or (row.used or 0) > 0 or row.closed_for > 0
    ]
    if arguments.json:
        print_json({"state": url.display, "pools": [asdict(row) for row in rows]})
        return 0
    print_table(("POOL", "LIMIT", "SAID BY", "KEY", "USED", "CLOSED FOR", "WORKERS"), [_cells(row) for row in rows])
    if url.scheme == "memory":
        print(
            f"\nThe state is {url.display}: what is used is in the memory of your app's processes, and not to be seen "
            "from here. With sqlite:// or redis:// they share it, and it is shown."
        )
    return 0


def _uses(url: StateURL) -> tuple[PoolUse, ...]:
    try:
        store = open_store(url)
        if store is None:
            return ()
        try:
            uses: tuple[PoolUse, ...] = store.perform(ListPools())
        finally:
            store.close()
    except (ImportError, StoreError) as error:
        raise UsageError(f"the state {url.display} cannot be read: {error}") from None
    return uses


def _rows(settings: Settings, uses: tuple[PoolUse, ...]) -> Iterator[_Row]:
    in_use: dict[str, list[PoolUse]] = {}
    for use in uses:
        in_use.setdefault(use.pool.pool, []).append(use)
    documented = {operation.name: operation for operation in operations() if operation.pool == operation.name}
    for pool in [*documented, *sorted(in_use.keys() - documented.keys())]:
        operation = documented.get(pool)
        for use in in_use.get(pool, ()):
            yield _row(settings, pool, operation, use)
        if pool not in in_use and operation is not None and (operation.limit or pool in settings.limits):
            yield _row(settings, pool, operation, None)


def _row(settings: Settings, pool: str, operation: Operation | None, use: PoolUse | None) -> _Row:
    learned = None if use is None else use.learned
    limit = learned if operation is None else limit_of(operation, settings.pool_limits, learned)
    source = None if limit is None else "Insider" if limit == learned else "documented"
    if source == "documented" and pool in settings.limits:
        source = "settings"
    row = _Row(pool, limit_text(limit), source)
    if use is None:
        return row
    return replace(
        row, key=use.pool.owner.hex()[:_KEY_SHOWN], used=use.used, closed_for=use.closed_for, workers=use.workers
    )


def _cells(row: _Row) -> tuple[object, ...]:
    closed = f"{row.closed_for:.0f} s" if row.closed_for else None
    return (row.pool, row.limit, row.source, row.key, row.used, closed, row.workers)
