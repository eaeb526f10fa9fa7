"""`insider-otel fake` serves Insider on this machine only, follows scripts, and tells what it was asked."""

from __future__ import annotations

import json
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import pytest

from insider_otel.cli import main

UPSERT = "/api/user/v1/upsert"
HEADERS = {"X-PARTNER-NAME": "shop", "X-REQUEST-TOKEN": "invented-token"}
USERS = {"users": [{"identifiers": {"email": "jane@example.com"}, "attributes": {"age": 30}}]}


@contextmanager
def fake(*arguments: str) -> Iterator[tuple[str, str, subprocess.Popen[str]]]:
    """The command in a process of its own: its address, what it said of how to use it, and the process."""
    command = [sys.executable, "-m", "insider_otel", "fake", "--port", "0", *arguments]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout
            said = "".join(process.stdout.readline() for _ in range(4))
            found = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert found, said + (process.stderr.read() if process.stderr else "")
            yield found[0], said, process
        finally:
            process.kill()


def interrupt(process: subprocess.Popen[str]) -> tuple[str, str]:
    """What it still had to say after Ctrl-C, which ends it well."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=30)
    assert process.returncode == 0
    return out, err


def test_it_says_how_to_point_an_app_at_it_and_tells_what_it_is_asked() -> None:
    with fake("--script", "user.upsert=503,ok") as (url, said, process):
        hosts = re.search(r"INSIDER_OTEL_HOSTS='(.*)'", said)
        assert hosts
        assert json.loads(hosts[1]) == {url.removeprefix("http://"): "*"}
        answers = [
            httpx.post(url + UPSERT + "?email=jane@example.com", json=USERS, headers=HEADERS, timeout=10)
            for _ in range(2)
        ]
        assert [answer.status_code for answer in answers] == [503, 200]
        assert answers[1].json()["data"]["successful"]["count"] == 1
        out, err = interrupt(process)
    assert [line.rpartition(": ")[2] for line in out.splitlines() if "(user.upsert)" in line] == ["503", "200"]
    assert out.endswith("stopped\n")
    assert err == ""
    assert "jane" not in out
    assert "invented-token" not in out


def test_it_serves_on_when_nobody_reads_what_it_tells() -> None:
    """`insider-otel fake | head -5` answers the sixth request like the first."""
    with fake() as (url, _, process):
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        for _ in range(3):
            assert httpx.post(url + UPSERT, json=USERS, headers=HEADERS, timeout=10).status_code == 200
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0
        assert process.stderr.read() == ""


def test_without_a_reader_or_a_request_it_still_ends_well() -> None:
    with fake() as (_, _, process):
        assert process.stdout
        process.stdout.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=30) == 0


def test_a_script_may_go_on_for_ever() -> None:
    with (
        fake("--script", "*=429,reset", "--repeat") as (url, _, _process),
        httpx.Client(base_url=url, timeout=10) as client,
    ):
        for _ in range(2):
            assert client.post(UPSERT, json=USERS, headers=HEADERS).status_code == 429
            with pytest.raises(httpx.TransportError):
                client.post(UPSERT, json=USERS, headers=HEADERS)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.1", "example.com"])
def test_it_does_not_listen_to_other_machines(host: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fake", "--host", host]) == 2
    assert "takes any key from anybody, so it listens on 127.0.0.1 only" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (["--port", "70000"], "a port is a number from 0 to 65535"),
        (["--script", "user.upsert"], "it accepts OPERATION=STEP,STEP"),
        (["--script", "user.upsrt=ok"], "did you mean 'user.upsert'?"),
        (["--script", "user.upsert=service_unavailble"], "did you mean 'service_unavailable'?"),
        (["--script", "user.upsert=700"], "a status is a number from 200 to 599"),
        (["--script", "user.upsert=ok:1"], "only delay and truncate take a number"),
        (["--script", "user.upsert=delay:soon"], "after delay comes a number of seconds, as in delay:2"),
        (["--script", "user.upsert=delay:-1"], "a delay is 0 or more"),
        (["--script", "user.upsert=delay:nan"], "a delay is 0 or more and 3600 at most"),
        (["--script", "user.upsert=truncate"], "--script is 'user.upsert=truncate'"),
        (["--script", "user.upsert="], "a step is empty; for the usual answer write ok"),
    ],
)
def test_what_it_cannot_do_is_refused_by_name(
    arguments: list[str], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fake", *arguments]) == 2
    assert complaint in capsys.readouterr().err


def test_a_port_that_is_taken_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["fake", "--port", str(port)]) == 2
    said = capsys.readouterr().err
    assert f"cannot listen on port {port}: Address already in use" in said
    assert said.endswith("choose another with --port\n")


def test_without_uvicorn_it_says_what_to_install(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["fake"]) == 2
    assert "pip install 'insider-otel[cli]'" in capsys.readouterr().err
