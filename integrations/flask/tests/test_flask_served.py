"""Real servers, the fake Insider on a socket of its own, and the traces that arrive by OTLP."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from itertools import pairwise
from pathlib import Path

import pytest
from insider_testkit.otlp import Receiver, otlp_receiver
from insider_testkit.servers import Server, gunicorn

from insider_otel.testing import FakeInsider, delay, reply
from insider_otel.testing.server import ServedFake

pytestmark = pytest.mark.once

CALL = ["  call user.upsert succeeded", "    POST /api/user/v1/upsert 200"]
Serve = Callable[..., AbstractContextManager[Server]]


@pytest.fixture
def fake() -> FakeInsider:
    return FakeInsider()


@pytest.fixture
def served(fake: FakeInsider) -> Iterator[ServedFake]:
    with fake.serve() as served:
        yield served


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture
def serve(served: ServedFake, receiver: Receiver) -> Serve:
    """Serves the app with gunicorn: ``serve("--workers", "4", STOCK="after")``."""

    def start(*arguments: str, app: str = "app", **environ: str) -> AbstractContextManager[Server]:
        variables = {
            **receiver.environ,
            "INSIDER_OTEL_HOSTS": json.dumps(served.hosts),
            "FAKE": served.url,
            "STOCK": "class",
            **environ,
        }
        return gunicorn(f"flask_served:{app}", directory=Path(__file__).parent, environ=variables, arguments=arguments)

    return start


@pytest.mark.parametrize("preload", [(), ("--preload",)], ids=["", "preload"])
@pytest.mark.parametrize("worker", ["sync", "gevent"])
def test_four_workers_give_each_request_a_trace_and_a_summary_of_its_own(
    serve: Serve, fake: FakeInsider, receiver: Receiver, worker: str, preload: tuple[str, ...]
) -> None:
    """Each worker has a client of its own, also if the app used its client before the workers were forked."""
    if worker == "gevent":
        pytest.importorskip("gevent")
    wanted = [number % 4 for number in range(48)]
    with serve("--workers", "4", "--worker-class", worker, *preload, EARLY="on") as server:
        with ThreadPoolExecutor(8) as visitors:
            answers = list(visitors.map(lambda count: server.get(f"/calls/{count}").json(), wanted))
        trees = receiver.wait_for_trees(len(wanted))
    assert [answer["statuses"] for answer in answers] == [[200] * count for count in wanted]
    assert {answer["fresh"] for answer in answers} == {bool(preload)}
    assert len({answer["pid"] for answer in answers}) > 1
    for tree in trees:
        calls = tree.span.summary.get("calls", 0)
        assert tree.lines() == ["server GET /calls/<int:count>", *CALL * calls]
        assert len({span.trace_id for span in tree.spans()}) == 1
    assert sorted(tree.span.summary.get("calls", 0) for tree in trees) == sorted(wanted)
    assert len({tree.span.trace_id for tree in trees}) == len(wanted)


def test_greenlets_of_one_worker_have_nothing_in_common(serve: Serve, fake: FakeInsider, receiver: Receiver) -> None:
    pytest.importorskip("gevent")
    fake.script("user.upsert", delay(0.2), repeat=True)
    wanted = [1 + number % 3 for number in range(30)]
    with serve("--workers", "1", "--worker-class", "gevent") as server:
        # The first call makes the client. With it httpx imports httpcore and that, where there is one, trio, which runs
        # ldconfig. Under gevent the forked child goes on with other greenlets for a moment: it would read what some
        # visitor has sent, who then waits in vain.
        server.get("/calls/1")
        with ThreadPoolExecutor(len(wanted)) as visitors:
            list(visitors.map(lambda count: server.get(f"/calls/{count}"), wanted))
        trees = receiver.wait_for_trees(len(wanted) + 1)
    at_work = sorted((tree.span.start, tree.span.end) for tree in trees)
    assert any(start < end for (_, end), (start, _) in pairwise(at_work)), "they were served one after the other"
    for tree in trees:
        calls = tree.span.summary.get("calls", 0)
        assert tree.lines()[1:] == CALL * calls
    assert sorted(tree.span.summary.get("calls", 0) for tree in trees) == sorted([1, *wanted])


def test_greenlets_of_a_request_belong_to_it_in_copied_contexts(serve: Serve, receiver: Receiver) -> None:
    pytest.importorskip("gevent")
    with serve("--worker-class", "gevent") as server:
        assert server.get("/greenlets").json() == {"answers": [[200, True]] * 3}
        (tree,) = receiver.wait_for_trees(1)
    assert sorted(tree.lines()) == sorted(["server GET /greenlets", *CALL * 3])
    assert tree.span.summary["calls"] == 3


@pytest.mark.parametrize("with_httpx", ["on", "off"])
@pytest.mark.parametrize("stock", ["class", "before", "after"])
def test_a_request_is_one_trace_whoever_was_installed_first(
    serve: Serve, fake: FakeInsider, receiver: Receiver, stock: str, with_httpx: str
) -> None:
    fake.script("user.upsert", "503", "ok")
    with serve(STOCK=stock, HTTPX=with_httpx) as server:
        assert server.get("/calls/1").json()["statuses"] == [200]
        assert server.get("/stream").text == "200\n" * 3
        assert server.get("/breaks").status_code == 500
        assert server.get("/nowhere").status_code == 404
        trees = receiver.wait_for_trees(4)
        assert "ended span" not in server.output()
    assert [tree.lines() for tree in trees] == [
        [
            "server GET /calls/<int:count>",
            "  call user.upsert succeeded",
            "    POST /api/user/v1/upsert 503",
            "    wait retry",
            "    POST /api/user/v1/upsert 200",
        ],
        ["server GET /stream", *CALL * 3],
        ["server GET /breaks", *CALL],
        ["server GET /nowhere", *CALL],
    ]
    assert [tree.span.summary["calls"] for tree in trees] == [1, 3, 1, 1]
    assert trees[0].span.summary["retries"] == 1
    for tree in trees:
        assert len({span.trace_id for span in tree.spans()}) == 1


def test_without_the_stock_instrumentation_each_call_is_a_trace(serve: Serve, receiver: Receiver) -> None:
    with serve(STOCK="none", HTTPX="on") as server:
        server.get("/calls/2")
        trees = receiver.wait_for_trees(2, kind="internal")
    assert [tree.lines() for tree in trees] == [["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]] * 2


def test_a_failed_call_is_answered_and_nothing_of_it_leaks(serve: Serve, fake: FakeInsider, receiver: Receiver) -> None:
    fake.script("user.upsert", reply(429, {"error": "jane@example.com"}, headers={"Retry-After": "7"}), repeat=True)
    with serve() as server:
        answer = server.get("/fails", headers={"Accept": "application/json"})
        (tree,) = receiver.wait_for_trees(1)
        printed = server.output()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "7")
    assert tree.span.summary["failed_calls"] == 1
    assert tree.span.attributes["http.response.status_code"] == 503
    for text in (answer.text, printed, *(str(span) + repr(span) for span in tree.spans())):
        assert "jane" not in text
        assert "fake-key" not in text


def test_a_worker_does_not_sleep_through_an_outage(serve: Serve, fake: FakeInsider) -> None:
    fake.script("user.upsert", "503", repeat=True)
    with serve() as server:
        began = time.monotonic()
        answer = server.get("/hurries").json()
        assert time.monotonic() - began < 60.0
    assert answer["status"] == 503
    assert answer["left"] <= 10.0


def test_two_apps_of_one_process_have_their_own_summaries(serve: Serve, receiver: Receiver) -> None:
    with serve(app="both") as server:
        for path in ("/calls/1", "/office/calls/2", "/calls/3"):
            assert server.get(path).status_code == 200
        trees = receiver.wait_for_trees(3)
    assert [tree.span.summary["calls"] for tree in trees] == [1, 2, 3]
