"""The tables of responses and operations: whole, selectable, plain in a pipe and coloured on a terminal."""

from __future__ import annotations

import io
import json
import sys
from typing import Any

import pytest

from insider_otel.api.operations import Limit, operations
from insider_otel.api.responses import responses
from insider_otel.cli import main
from insider_otel.cli.operations import limit_text
from insider_otel.cli.output import aligned, print_table, wants_colour


class Terminal(io.StringIO):
    """Standard output as a terminal."""

    encoding = "utf-8"

    def isatty(self) -> bool:
        return True


def table(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    """The lines that a command prints."""
    assert main(arguments) == 0
    return capsys.readouterr().out.splitlines()


def as_json(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command prints as JSON."""
    assert main([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_operation_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    header, *lines = table(capsys, "operations")
    assert header.split()[:3] == ["OPERATION", "METHOD", "ENDPOINT"]
    assert [line.split()[0] for line in lines] == [operation.name for operation in operations()]


def test_a_row_says_what_an_operation_may_do(capsys: pytest.CaptureFixture[str]) -> None:
    (upsert,) = [line for line in table(capsys, "operations") if line.startswith("user.upsert ")]
    assert "unification.useinsider.com/api/user/v1/upsert" in upsert
    assert "25000/60s" in upsert
    assert " 1000 " in upsert


def test_operations_of_one_product(capsys: pytest.CaptureFixture[str]) -> None:
    rows = as_json(capsys, "operations", "--product", "mail")
    assert {row["product"] for row in rows} == {"mail"}
    assert "mail.send" in {row["name"] for row in rows}


def test_an_unknown_product_is_refused_with_the_ones_there_are(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["operations", "--product", "fax"]) == 2
    error = capsys.readouterr().err
    assert "--product is 'fax'" in error
    assert "mail" in error


@pytest.mark.parametrize(
    ("limit", "text"),
    [
        (None, ""),
        (Limit(60, 60.0), "60/60s"),
        (Limit(1, 86400.0, calendar=True), "1/UTC day"),
        (Limit(1000, 60.0, unit="quota"), "1000 quota/60s"),
    ],
)
def test_limits_are_said_in_short(limit: Limit | None, text: str) -> None:
    assert limit_text(limit) == text


def test_every_documented_response_is_listed(capsys: pytest.CaptureFixture[str]) -> None:
    header, *lines = table(capsys, "responses")
    assert header.split()[0] == "RESPONSE"
    assert [line.split()[0] for line in lines] == [row.id for row in responses()]


def test_responses_can_be_selected_by_category_and_by_status(capsys: pytest.CaptureFixture[str]) -> None:
    limits = as_json(capsys, "responses", "--category", "rate_limit")
    assert {row["category"] for row in limits} == {"rate_limit"}
    forbidden = as_json(capsys, "responses", "--category", "rate_limit", "--status", "403")
    assert forbidden
    assert {row["status"] for row in forbidden} == {403}
    assert len(forbidden) < len(limits)


@pytest.mark.parametrize("selection", [["--status", "999"], ["--status", "202", "--category", "rate_limit"]])
def test_a_selection_that_is_empty_says_so(selection: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    (line,) = table(capsys, "responses", *selection)
    assert line.startswith("No documented reply matches.")
    assert as_json(capsys, "responses", *selection) == []


@pytest.mark.parametrize("arguments", [["--category", "nonsense"], ["--status", "many"]])
def test_a_selection_that_cannot_be_is_a_usage_error(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["responses", *arguments])
    assert ended.value.code == 2
    assert arguments[0] in capsys.readouterr().err


def test_columns_are_aligned_and_nothing_is_cut() -> None:
    assert aligned([["a", "b"], ["long one", "x" * 200]]) == ["a         b", "long one  " + "x" * 200]


def test_a_terminal_gets_the_same_cells_in_colour(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setenv("TERM", "xterm-256color")
    print_table(["NAME"], [["[bold]not markup[/]"], [None]])
    assert "[bold]not markup[/]" in terminal.getvalue()
    assert "\x1b[1mNAME" in terminal.getvalue()


def test_a_terminal_without_rich_gets_plain_columns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", terminal := Terminal())
    monkeypatch.setitem(sys.modules, "rich", None)
    print_table(["NAME", "N"], [["one", 1]])
    assert terminal.getvalue() == "NAME  N\none   1\n"


@pytest.mark.parametrize(
    ("stream", "variables", "coloured"),
    [
        (Terminal(), {}, True),
        (Terminal(), {"NO_COLOR": "1"}, False),
        (Terminal(), {"TERM": "dumb"}, False),
        (io.StringIO(), {}, False),
    ],
)
def test_colour_is_for_terminals_that_want_it(
    stream: io.StringIO, variables: dict[str, str], coloured: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert wants_colour(stream) is coloured
