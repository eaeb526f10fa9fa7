"""``insider-otel outbox``: look at deferred calls, deal with those that were given up, and send them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from insider_otel.cli.outboxes import commands as jobs
from insider_otel.cli.output import UsageError, print_json
from insider_otel.http.engine import Engine
from insider_otel.outbox.opening import open_outbox
from insider_otel.outbox.protocol import JobStore
from insider_otel.policy.outbox_url import OutboxURL
from insider_otel.policy.settings import Settings, SettingsError

_ELSEWHERE = {
    "celery": "Celery has the jobs of this outbox: its workers send them (`celery -A APP worker -Q {queue}`), its own "
    "tools, such as Flower, show them, and insider_otel.outbox.celery_dead_letters.DeadLetters, in a Python shell of "
    "the app, those that were given up",
    "django": "the app's own database is the outbox: `manage.py insider_outbox` has these commands",
}

_ABOUT_RUN = (
    "It sees nothing of the app's own settings: credentials come from INSIDER_OTEL_CREDENTIALS_<PRODUCT>, and hosts "
    "that are not Insider's own from INSIDER_OTEL_HOSTS. Example: opentelemetry-instrument insider-otel outbox run "
    "--outbox sqlite:///outbox.db"
)


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``insider-otel``."""
    parser = commands.add_parser(
        "outbox",
        help="deferred calls: look at them, retry, discard or send them",
        description="Deferred calls (jobs) in an outbox of the kind sqlite: look at them, send those again or forget "
        "those that were given up, and run the worker that sends them. Personal data is masked unless it is asked for.",
    )
    parser.set_defaults(run=run)
    parsers = jobs.add_commands(parser, about_run=_ABOUT_RUN)
    jobs.add_anywhere(
        parsers, "--outbox", default=None, metavar="URL", help="the outbox; INSIDER_OTEL_OUTBOX by default"
    )


def run(arguments: argparse.Namespace) -> int:
    """Run the command."""
    try:
        settings = Settings.from_env()
        if arguments.outbox is not None:
            settings = replace(settings, outbox=arguments.outbox)
        url = _url(settings)
        if arguments.action == "run":
            from insider_otel.cli.outboxes.working import work  # noqa: PLC0415  (who only looks sends nothing)

            return work(Engine(settings), arguments)
        store = cast("JobStore", open_outbox(url))
    except (ImportError, SettingsError) as error:
        raise UsageError(str(error)) from None
    try:
        if Path(url.path).exists():
            return jobs.run_command(store, arguments, settings)
    finally:
        store.close()
    return _absent(url, arguments)


def _url(settings: Settings) -> OutboxURL:
    if settings.outbox is None:
        raise UsageError(
            "no outbox is named: name it with --outbox sqlite:///outbox.db, or INSIDER_OTEL_OUTBOX. Of one in a Django "
            "app's own database `manage.py insider_outbox` has these commands"
        )
    url = OutboxURL.parse(settings.outbox)
    if url.scheme in _ELSEWHERE:
        raise UsageError(_ELSEWHERE[url.scheme].format(queue=url.queue))
    return url


def _absent(url: OutboxURL, arguments: argparse.Namespace) -> int:
    """Who only looks makes no file: it would belong to the wrong user."""
    text = f"No such outbox yet: {url.display} is made when the first call is deferred."
    if arguments.action not in {"list", "stats"}:
        raise UsageError(text)
    if arguments.json:
        nothing = {"waiting": 0, "sending": 0, "dead": 0, "oldest_age_s": None}
        print_json({"jobs": []} if arguments.action == "list" else nothing)
    else:
        print(text)
    return 0
