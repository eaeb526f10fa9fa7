"""``insider-otel limits``: every pool with its limit and, from the store that the workers share, how full it is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

from insider_otel.api.operations import Limit, Operation, operations
from insider_otel.cli.checks.state import DOCTOR, is_absent
from insider_otel.cli.durations import seconds_text
from insider_otel.cli.operations import limit_text
from insider_otel.cli.output import UsageError, print_json, print_table
from insider_otel.policy.limits import limit_of
from insider_otel.policy.settings import Settings, SettingsError
from insider_otel.policy.state_url import StateURL
from insider_otel.state.credential import NOBODY
from insider_otel.state.opening import open_store
from insider_otel.state.protocol import ListPools, PoolUse, StoreError

_KEY_SHOWN = 8
_PATIENCE = 5.0
"""Seconds. Who looks has more time than a call that waits."""


@dataclass(frozen=True, slots=True)
class _Row:
    """One pool with one key.

    Attributes:
        pool: Its name.
        limit: The limit it is held to; ``off`` if the app lifted it, None if there is none.
        source: Who says so: ``documented``, ``settings`` or ``Insider``; None without a limit.
        key: The beginning of the fingerprint of the key it is used with, or ``none``; None if it is not in use.
        used: What is used of the limit in the window that ends now; None if that is not known here.
        share: ``used`` as a share of the limit, above 1 where a limit was lowered since; None without a limit.
        closed_for: Seconds until it is open again; 0 if it is open.
        workers: How many processes share it; None if that is not known here.
    """

    pool: str
    limit: str | None
    source: str | None
    key: str | None = None
    used: int | None = None
    share: float | None = None
    closed_for: float = 0.0
    workers: int | None = None


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``insider-otel``."""
    parser = commands.add_parser(
        "limits",
        help="show how full each rate limit is",
        description="List every pool of operations that share a rate limit, with the limit it is held to (documented, "
        "from the app's settings, or named by Insider) and, from the store that the workers share, what is used of it "
        "in the window that ends now and for how long Insider has closed it. A pool has a line for each key it is used "
        "with; a key is told by the beginning of its fingerprint.",
    )
    parser.add_argument("--state", metavar="URL", help="the store; INSIDER_OTEL_STATE by default")
    parser.add_argument("--used", action="store_true", help="only the pools that the store knows of")
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
    uses, remark = _look(url)
    rows = [row for row in _rows(settings, uses) if not arguments.used or row.key is not None]
    if arguments.json:
        print_json({"state": url.display, "remark": remark, "pools": [asdict(row) for row in rows]})
        return 0
    if rows:
        print_table(("POOL", "LIMIT", "SAID BY", "KEY", "USED", "CLOSED FOR", "WORKERS"), [_cells(row) for row in rows])
    if remark:
        print(f"\n{remark}" if rows else remark)
    elif not rows:
        print(f"No call has been made with the state {url.display} yet.")
    return 0


def _look(url: StateURL) -> tuple[tuple[PoolUse, ...], str | None]:
    """What the store knows, and a remark if it cannot know anything."""
    if url.scheme == "memory":
        return (), (
            f"The state is {url.display}: what is used is in the memory of your app's processes, and not to be seen "
            "from here. With sqlite:// or redis:// they share it, and it is shown."
        )
    try:
        store = open_store(replace(url, timeout=max(url.timeout, _PATIENCE)))
        assert store is not None, "only memory:// needs no store"
        if is_absent(url):
            return (), f"No such state yet: {url.display} is made by the first call."
        try:
            uses: tuple[PoolUse, ...] = store.perform(ListPools())
        finally:
            store.close()
    except (ImportError, OSError, StoreError, ValueError) as error:
        user = "; look as the app's user" if url.scheme == "sqlite" else ""
        raise UsageError(f"the state cannot be read: {error} (--state or INSIDER_OTEL_STATE names it{user})") from None
    return tuple(use for use in uses if use.pool != DOCTOR), None


def _rows(settings: Settings, uses: tuple[PoolUse, ...]) -> Iterator[_Row]:
    in_use: dict[str, list[PoolUse]] = {}
    for use in sorted(uses, key=lambda use: use.pool):
        in_use.setdefault(use.pool.pool, []).append(use)
    documented = {operation.name: operation for operation in operations() if operation.pool == operation.name}
    for pool in [*documented, *(pool for pool in in_use if pool not in documented)]:
        operation = documented.get(pool)
        for use in in_use.get(pool, ()):
            yield _used_row(use, None if operation is None else operation.limit)
        if pool not in in_use and operation is not None and (operation.limit or pool in settings.limits):
            yield _unused_row(settings, operation)


def _used_row(use: PoolUse, documented: Limit | None) -> _Row:
    """A pool as those who use it hold it: their settings may be others than those of this command's environment."""
    if use.limit not in (documented, use.learned or documented):
        limit, source = use.limit, "settings"
    elif use.learned is not None:
        limit, source = use.learned, "Insider"
    else:
        limit, source = documented, "documented"
    return _Row(
        use.pool.pool,
        _text(limit, source if documented else None),
        source if limit or documented else None,
        key="none" if use.pool.owner == NOBODY else use.pool.owner.hex()[:_KEY_SHOWN],
        used=use.used,
        share=None if limit is None else round(use.used / limit.count, 6),
        closed_for=use.closed_for,
        workers=use.workers,
    )


def _unused_row(settings: Settings, operation: Operation) -> _Row:
    source = "settings" if operation.pool in settings.limits else "documented"
    return _Row(operation.pool, _text(limit_of(operation, settings.pool_limits, None), source), source)


def _text(limit: Limit | None, source: str | None) -> str | None:
    return limit_text(limit) or ("off" if source == "settings" else None)


def _cells(row: _Row) -> tuple[object, ...]:
    closed = seconds_text(row.closed_for) if row.closed_for else None
    return (row.pool, row.limit, row.source, row.key, _use_text(row), closed, row.workers)


def _use_text(row: _Row) -> str | None:
    if row.used is None or row.share is None:
        return None
    share = "<1%" if 0 < row.share < 0.01 else f"{row.share:.0%}"
    return f"{row.used} ({share})"
