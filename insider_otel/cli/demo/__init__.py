"""``insider-otel demo``: real traffic to a fake Insider, each call drawn as a trace."""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Generator, Iterable, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from insider_otel.cli.output import UsageError, wants_colour
from insider_otel.cli.whole_file import NotWrittenError, whole_file

if TYPE_CHECKING:
    from insider_otel.cli.demo.running import Played, Recorder
    from insider_otel.cli.demo.scenarios import Scenario
    from insider_otel.cli.demo.sending import Endpoint
    from insider_otel.cli.demo.showing import Paper

_WIDEST = 120
_EXTRAS = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http", "uvicorn")
_EXTRA_OF_PAGE = "jinja2"
_INTERRUPTED = 130


def add_parser(commands: Any) -> None:
    """Add the command to the parser of ``insider-otel``."""
    parser = commands.add_parser(
        "demo",
        help="show what calls to Insider look like as traces",
        description="Start a fake Insider, send it real traffic through an instrumented client, and draw each call as "
        "a trace. With OTEL_EXPORTER_OTLP_ENDPOINT set the traces also go there, by OTLP over HTTP.",
        epilog="example: OTEL_EXPORTER_OTLP_ENDPOINT=http://localhost:4318 insider-otel demo",
    )
    parser.add_argument("--scenario", action="append", metavar="NAME", help="play only this one; may be repeated")
    parser.add_argument("--list", action="store_true", help="list the scenarios and play none")
    parser.add_argument("--html", metavar="FILE", help="write the traces to a page for the browser too")
    parser.add_argument("--no-color", action="store_true", help="no colours, on a terminal either")
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """Run the command; 1 if traces were to be sent and did not arrive."""
    from insider_otel.cli.demo import scenarios  # noqa: PLC0415  (the fake is not needed to explain a reply)

    if arguments.list:
        width = max(len(each.name) for each in scenarios.SCENARIOS)
        for each in scenarios.SCENARIOS:
            print(f"{each.name:<{width}}  {each.title}")
        return 0
    try:
        chosen = [scenarios.scenario(name) for name in arguments.scenario or ()]
    except ValueError as error:
        raise UsageError(f"--scenario: {error}") from None
    _check_extras(_EXTRAS if arguments.html is None else (*_EXTRAS, _EXTRA_OF_PAGE))
    colour = wants_colour(sys.stdout) and not arguments.no_color
    try:
        return _demonstrate(chosen or scenarios.SCENARIOS, arguments.html, colour=colour)
    except KeyboardInterrupt:
        return _INTERRUPTED


def _check_extras(extras: Sequence[str]) -> None:
    missing = [name for name in extras if not _is_installed(name)]
    if missing:
        raise UsageError(f"the demo needs {' and '.join(missing)}: pip install 'insider-otel[cli]'")
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        raise UsageError("OTEL_SDK_DISABLED is true, so there would be no trace to show; unset it for the demo")


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:
        # A package above it is not there either.
        return False


def _demonstrate(scenarios: Sequence[Scenario], page: str | None, *, colour: bool) -> int:
    # Extras, all of it.
    from insider_otel.cli.demo.running import Recorder, stage  # noqa: PLC0415
    from insider_otel.cli.demo.sending import Endpoint  # noqa: PLC0415
    from insider_otel.cli.demo.showing import Paper, opening, scene  # noqa: PLC0415
    from insider_otel.cli.waterfall import can_draw  # noqa: PLC0415

    endpoints = {signal: Endpoint.of(signal, os.environ) for signal in ("traces", "metrics")}
    width = min(shutil.get_terminal_size().columns, _WIDEST)
    paper = Paper(width, colour, ascii_only=not can_draw(sys.stdout))
    recorder = Recorder()
    played: list[Played] = []
    with _page(page, played, recorder), stage(recorder) as set_stage:
        _print(opening(len(scenarios), set_stage.url, paper))
        for each in set_stage.play(scenarios):
            played.append(each)
            _print(scene(each, len(played), len(scenarios), paper))
    if page is not None:
        _print(["", f"The same as a page: {page}"])
    if endpoints["traces"] is None:
        return 0
    return _send(played, recorder, endpoints["traces"], endpoints["metrics"], paper)


@contextmanager
def _page(path: str | None, played: Sequence[Played], recorder: Recorder) -> Generator[None]:
    """Write what is played in the ``with`` block to a page, if one is wanted; whether that can be is known before."""
    if path is None:
        yield
        return
    from insider_otel.cli.demo.report import page  # noqa: PLC0415  (an extra)

    try:
        with whole_file(path) as write:
            yield
            write(page(played, recorder.service))
    except NotWrittenError as error:
        raise UsageError(f"--html: {error}") from None


def _send(
    played: Sequence[Played], recorder: Recorder, traces: Endpoint, metrics: Endpoint | None, paper: Paper
) -> int:
    from insider_otel.cli.demo.sending import NotSentError, send_metrics, send_spans  # noqa: PLC0415
    from insider_otel.cli.demo.showing import sending, whereabouts  # noqa: PLC0415

    _print(sending(len(played), str(traces), paper))
    try:
        send_spans([span for each in played for span in each.spans], traces)
    except NotSentError as error:
        print(f"insider-otel: {error}", file=sys.stderr)
        return 1
    _print(whereabouts(played, recorder.service, paper))
    measured = recorder.metrics()
    if metrics is None or measured is None:
        return 0
    try:
        send_metrics(measured, metrics)
    except NotSentError as error:
        if metrics.is_of_one_signal:
            print(f"insider-otel: {error}", file=sys.stderr)
            return 1
        # Jaeger and Tempo take no metrics, and the variable that is meant for everything need not mean them.
        _print([f"No metrics were taken at {metrics}, as usual where only traces are kept."])
    else:
        _print([f"The metrics are at {metrics}."])
    return 0


def _print(lines: Iterable[str]) -> None:
    for line in lines:
        print(line)
    sys.stdout.flush()
