"""``manage.py insider_outbox``: what ``insider-otel outbox`` does, with the outbox and the credentials of this app."""

from __future__ import annotations

import argparse
from typing import Any, cast

from django.core.management.base import BaseCommand, CommandError, CommandParser

from insider_otel.cli.outboxes.commands import add_commands, run_command
from insider_otel.cli.outboxes.working import work
from insider_otel.cli.output import UsageError
from insider_otel.http.engine import Engine
from insider_otel.http.instrumentor import engine_of
from insider_otel.outbox.protocol import JobStore
from insider_otel_django.site import client


class Command(BaseCommand):
    """Deferred calls: look at them, deal with those that were given up, and send them."""

    help = "Deferred calls to Insider: send them, look at them, retry or discard them."

    def add_arguments(self, parser: CommandParser) -> None:
        """Add a command for each thing to do."""
        add_commands(
            parser,
            about_run="Settings and credentials are those of the app. Example: opentelemetry-instrument "
            "python manage.py insider_outbox run",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        """Run the command."""
        engine = engine_of(client())
        assert engine is not None, "the adapter's own client is covered"
        try:
            status = _run(engine, argparse.Namespace(**options))
        except UsageError as error:
            raise CommandError(str(error), returncode=2) from None
        if status:
            raise SystemExit(status)


def _run(engine: Engine, arguments: argparse.Namespace) -> int:
    if engine.desk is None:
        raise UsageError('there is no outbox: set INSIDER_OTEL = {"OUTBOX": "django"}')
    if arguments.action == "run":
        return work(engine, arguments)
    store = engine.desk.outbox
    if not hasattr(store, "jobs"):
        raise UsageError(
            "Celery has the jobs of this outbox: its own tools, such as Flower, show them, and DeadLetters, in "
            "`manage.py shell`, those that were given up"
        )
    return run_command(cast("JobStore", store), arguments, engine.settings)
