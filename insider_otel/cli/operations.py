"""``insider-otel operations``: the table of Insider's endpoints."""

from __future__ import annotations

import argparse
from dataclasses import asdict
from typing import Any

from insider_otel.api.operations import Limit, Operation, operations
from insider_otel.cli.output import UsageError, print_json, print_table


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``insider-otel``."""
    parser = commands.add_parser(
        "operations",
        help="list Insider's endpoints with their limits",
        description="List Insider's endpoints: names as in insider.operation, limits, and when a request "
        "may be sent twice (idempotent: always; window: inside Insider's duplicate window; answered: only after an "
        "answer; never).",
    )
    parser.add_argument("--product", help="only those of one product, such as mail")
    parser.add_argument("--json", action="store_true", help="print the whole rows as JSON")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    rows = operations()
    if arguments.product is not None:
        products = dict.fromkeys(operation.product for operation in rows)
        if arguments.product not in products:
            raise UsageError(f"--product is {arguments.product!r}; the products are: {', '.join(products)}")
        rows = tuple(operation for operation in rows if operation.product == arguments.product)
    if arguments.json:
        print_json([asdict(operation) for operation in rows])
    else:
        print_table(
            ("OPERATION", "METHOD", "ENDPOINT", "LIMIT", "SHARED WITH", "RECORDS", "SEND TWICE"),
            [_cells(operation) for operation in rows],
        )
    return 0


def _cells(operation: Operation) -> tuple[object, ...]:
    return (
        operation.name,
        "/".join(operation.methods),
        f"{operation.host}{operation.path}",
        limit_text(operation.limit),
        None if operation.pool == operation.name else operation.pool,
        operation.max_records,
        operation.resend,
    )


def limit_text(limit: Limit | None) -> str:
    """A limit in short: ``60/60s``, ``1 successful/UTC day``, ``1000 quota/60s``; empty if there is none."""
    return "" if limit is None else str(limit)
