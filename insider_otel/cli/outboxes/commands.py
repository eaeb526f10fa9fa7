"""The commands, and what they do with an outbox that is open; ``run`` has a module of its own."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from insider_otel.cli.durations import seconds_text
from insider_otel.cli.outboxes import showing
from insider_otel.cli.output import UsageError, print_json, print_table
from insider_otel.outbox.content import Codec
from insider_otel.outbox.protocol import JobStore, OutboxError
from insider_otel.policy.settings import Settings

_SHORTEST_PREFIX = 4
_BEGINNING = f"the beginning of it, {_SHORTEST_PREFIX} characters at least"


def add_commands(parser: argparse.ArgumentParser, *, about_run: str) -> Sequence[argparse.ArgumentParser]:
    """Add the commands to an argument parser.

    Args:
        parser: The parser.
        about_run: Where the settings of the worker come from, and an example: the end of the help of ``run``.

    Returns:
        The parser and those of the commands: for ``add_anywhere``.
    """
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="action", required=True)
    listing = _add(commands, "list", _list, "list the jobs, the oldest first")
    which = listing.add_mutually_exclusive_group()
    which.add_argument("--waiting", action="store_const", const="waiting", dest="state", help="only those to be sent")
    which.add_argument("--dead", action="store_const", const="dead", dest="state", help="only those that were given up")
    listing.add_argument("--most", type=int, default=100, metavar="N", help="so many at most (default: 100)")

    shown = _add(commands, "show", _show, "show one job")
    shown.add_argument("job", metavar="ID", help=f"its name, or {_BEGINNING}")
    shown.add_argument(
        "--reveal",
        action="store_true",
        help="show what is sent too: URL, headers and body, with the personal data in them. Credentials are not kept. "
        "What is encrypted needs the key: INSIDER_OTEL_OUTBOX_KEY",
    )

    retry = _add(
        commands,
        "retry",
        _retry,
        "send jobs now, also those that were given up",
        "Whether Insider may have processed the call already is not asked any more: look at it with `show` first.",
    )
    discard = _add(commands, "discard", _discard, "forget jobs: their calls are never sent")
    discard.add_argument("--yes", action="store_true", help="do not ask")
    for each in (retry, discard):
        each.add_argument("jobs", nargs="*", metavar="ID", help=f"a job's name, or {_BEGINNING}")
        each.add_argument("--all-dead", action="store_true", help="all that were given up")

    _add(commands, "stats", _stats, "tell how many jobs wait, how many were given up, and since when the oldest waits")
    _add_run(commands, about_run)
    parsers = (parser, *commands.choices.values())
    add_anywhere(parsers, "--json", action="store_true", default=False, help="print as JSON")
    return parsers


def add_anywhere(parsers: Sequence[argparse.ArgumentParser], name: str, *, default: object, **options: Any) -> None:
    """Add an option that may stand before the name of a command as well as after it.

    Args:
        parsers: The parser, and those of its commands.
        name: The option.
        default: Its value where it stands nowhere.
        **options: What else ``add_argument`` is to know.
    """
    parser, *commands = parsers
    parser.add_argument(name, default=default, **options)
    for command in commands:
        # Without a default, which would take the place of what was said before the command's name.
        command.add_argument(name, default=argparse.SUPPRESS, **options)


def _add_run(commands: Any, about: str) -> None:
    parser = commands.add_parser(
        "run",
        help="send the jobs",
        description="Send the jobs as they fall due, in the traces of their calls and no faster than their rate limits "
        "allow, until SIGTERM or Ctrl-C: what is being sent then is seen through, the rest is left to others. Any "
        "number may run. Traces and metrics go where those of the process go: run it under opentelemetry-instrument.",
        epilog=about,
    )
    parser.add_argument("--concurrency", type=int, metavar="N", help="calls at a time; a few by default")
    parser.add_argument("--drain", action="store_true", help="stop when nothing is left to send now, for cron")
    parser.set_defaults(act=None)


def run_command(store: JobStore, arguments: argparse.Namespace, settings: Settings) -> int:
    """Run one of the commands.

    Args:
        store: The outbox.
        arguments: What the parser made of the command line.
        settings: Say how long a job that is retried has and dead letters are kept, and hold the key to what is
            encrypted.

    Returns:
        The exit status: 1 if a job could not be retried or discarded.

    Raises:
        UsageError: It cannot be done.
    """
    act: Callable[[JobStore, argparse.Namespace, Settings], int] = arguments.act
    try:
        return act(store, arguments, settings)
    except OutboxError as error:
        raise UsageError(f"the outbox cannot be used: {error}") from None


def _add(commands: Any, name: str, act: Callable[..., int], text: str, more: str = "") -> argparse.ArgumentParser:
    sentence = f"{text[0].upper()}{text[1:]}."
    parser: argparse.ArgumentParser = commands.add_parser(name, help=text, description=f"{sentence} {more}".strip())
    parser.set_defaults(act=act)
    return parser


def _list(store: JobStore, arguments: argparse.Namespace, settings: Settings) -> int:
    if arguments.most < 1:
        raise UsageError(f"--most is {arguments.most}; it accepts a number from 1 up")
    jobs = store.jobs(arguments.state, most=arguments.most)
    if arguments.json:
        print_json({"jobs": [showing.facts(job, settings.outbox_retention) for job in jobs]})
    elif jobs:
        now = time.time()
        print_table(showing.HEADER, [showing.cells(job, now, settings.outbox_retention) for job in jobs])
        if len(jobs) == arguments.most:
            print(f"\nThere may be more than {arguments.most}; --most shows them.")
    else:
        print(f"No job {'is ' + arguments.state if arguments.state else 'is in the outbox'}.")
    return 0


def _show(store: JobStore, arguments: argparse.Namespace, settings: Settings) -> int:
    job = store.job(_find(store, arguments.job))
    if job is None:
        raise UsageError(f"the job {arguments.job!r} was done just now")
    codec = _codec(settings)
    if arguments.reveal:
        try:
            request = showing.request_revealed(job, codec)
        except ValueError as error:
            raise UsageError(f"{job.id} cannot be revealed: {error}") from None
    else:
        request = showing.request_masked(job, codec)
    facts = {**showing.facts(job, settings.outbox_retention), "request": request}
    if arguments.json:
        print_json(facts)
    else:
        del facts["request"]
        print_table(("JOB", job.id), [*showing.lines(facts)[1:], *showing.lines(request)])
    return 0


def _retry(store: JobStore, arguments: argparse.Namespace, settings: Settings) -> int:
    now = time.time()

    def retry(job_id: str) -> bool:
        return store.retry(job_id, now=now, expires=now + settings.outbox_horizon)

    return _each(_chosen(store, arguments), retry, "retried", as_json=arguments.json)


def _discard(store: JobStore, arguments: argparse.Namespace, settings: Settings) -> int:
    jobs = _chosen(store, arguments)
    if jobs and not arguments.yes:
        number = f"{len(jobs)} job{'' if len(jobs) == 1 else 's'}"
        if not sys.stdin.isatty():
            raise UsageError(f"{number} would be forgotten, and the calls never sent; if that is meant, say --yes")
        if not _agreed(f"Forget {number}, and never send the calls?"):
            print("Nothing was discarded.")
            return 1
    return _each(jobs, store.discard, "discarded", as_json=arguments.json)


def _agreed(question: str) -> bool:
    try:
        return input(f"{question} [y/N] ").strip().lower() in {"y", "yes"}
    except EOFError:
        # Ctrl-D is no answer; it leaves the cursor after the question.
        print()
        return False


def _stats(store: JobStore, arguments: argparse.Namespace, settings: Settings) -> int:
    stats = store.stats()
    age = None if stats.oldest is None else max(time.time() - stats.oldest, 0.0)
    if arguments.json:
        counts = {"waiting": stats.waiting, "sending": stats.leased, "dead": stats.dead}
        print_json({**counts, "oldest_age_s": None if age is None else round(age, 1)})
    else:
        oldest = None if age is None else seconds_text(age)
        print_table(("WAITING", "SENDING", "DEAD", "OLDEST"), [(stats.waiting, stats.leased, stats.dead, oldest)])
    return 0


def _each(jobs: Sequence[str], act: Callable[[str], bool], done: str, *, as_json: bool) -> int:
    results: dict[str, bool] = {}
    try:
        for job in jobs:
            results[job] = act(job)
    except OutboxError as error:
        if results:
            # What was done until then is done.
            _tell(results, done, as_json=as_json)
        raise UsageError(f"{len(jobs) - len(results)} of {len(jobs)} jobs are not {done}: {error}") from None
    return _tell(results, done, as_json=as_json)


def _tell(results: Mapping[str, bool], done: str, *, as_json: bool) -> int:
    refused = [name for name, is_done in results.items() if not is_done]
    if as_json:
        print_json({done: [name for name, is_done in results.items() if is_done], "refused": refused})
        return int(bool(refused))
    for name, is_done in results.items():
        print(f"{name}  {done if is_done else f'not {done}: it is being sent, or is done already'}")
    if not results:
        print(f"There is no job to be {done}.")
    return int(bool(refused))


def _chosen(store: JobStore, arguments: argparse.Namespace) -> Sequence[str]:
    if bool(arguments.jobs) == arguments.all_dead:
        raise UsageError("name the jobs, or say --all-dead")
    if arguments.all_dead:
        return store.ids("dead")
    return list(dict.fromkeys(_find(store, name) for name in arguments.jobs))


def _find(store: JobStore, name: str) -> str:
    found = store.ids(beginning=name)
    if name in found:
        return name
    if len(name) < _SHORTEST_PREFIX:
        raise UsageError(f"no job is called {name!r}, and the beginning of a name needs {_SHORTEST_PREFIX} characters")
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{len(found)} jobs begin with {name!r}: give more of the name")
    raise UsageError(f"no job is called {name!r}: it is done or discarded, or `list` shows it by another name")


def _codec(settings: Settings) -> Codec:
    try:
        return Codec(settings.outbox_key)
    except (ImportError, ValueError) as error:
        raise UsageError(str(error)) from None
