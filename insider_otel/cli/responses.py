"""``insider-otel responses``: the table of Insider's documented replies."""

from __future__ import annotations

import argparse
from typing import Any

from insider_otel.api.responses import Row, responses
from insider_otel.api.verdict import Category
from insider_otel.cli.output import print_json, print_table


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``insider-otel``."""
    parser = commands.add_parser(
        "responses",
        help="list Insider's documented replies",
        description="List Insider's documented replies and what they mean. Other replies are understood too: "
        "`insider-otel explain` says how.",
    )
    parser.add_argument(
        "--category", choices=[str(category) for category in Category], help="only those of one category"
    )
    parser.add_argument("--status", type=int, help="only those with one HTTP status")
    parser.add_argument("--json", action="store_true", help="print the whole rows as JSON, samples and advice included")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    rows = [
        row
        for row in responses()
        if arguments.category in (None, row.meaning.category) and arguments.status in (None, row.status)
    ]
    if arguments.json:
        print_json([_facts(row) for row in rows])
    elif not rows:
        print("No documented reply matches. `insider-otel explain` says what any other reply means.")
    else:
        print_table(
            ("RESPONSE", "STATUS", "CATEGORY", "FAULT", "RETRY", "TITLE"),
            [
                (row.id, row.status, row.meaning.category, row.meaning.fault, row.meaning.retry, row.title)
                for row in rows
            ],
        )
    return 0


def _facts(row: Row) -> dict[str, Any]:
    return {
        "id": row.id,
        "status": row.status,
        "title": row.title,
        "category": row.meaning.category,
        "fault": row.meaning.fault,
        "retry": row.meaning.retry,
        "advice": row.meaning.advice,
        "body": row.body,
    }
