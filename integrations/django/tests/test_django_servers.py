"""Whole traces of real servers: gunicorn and uvicorn, the fake Insider on its own socket, spans over OTLP."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from insider_testkit import servers
from insider_testkit.otlp import Receiver, Tree, otlp_receiver

from insider_otel.testing import FakeInsider, delay
from insider_otel.testing.server import ServedFake

pytestmark = pytest.mark.once

HERE = Path(__file__).parent
ATTEMPT = "POST /api/user/v1/upsert"

Serve = Callable[..., AbstractContextManager[servers.Server]]


@pytest.fixture
def fake() -> FakeInsider:
    """A fake Insider."""
    return FakeInsider()


@pytest.fixture
def insider(fake: FakeInsider) -> Generator[ServedFake]:
    """The fake on a socket."""
    with fake.serve() as served:
        yield served


@pytest.fixture
def received() -> Generator[Receiver]:
    """A receiver of spans."""
    with otlp_receiver() as receiver:
        yield receiver


@pytest.fixture
def serve(insider: ServedFake, received: Receiver) -> Serve:
    """Starts a server: ``serve("wsgi", "--preload", django_otel="before")``."""

    @contextmanager
    def start(
        interface: str, *arguments: str, django_otel: str = "before", httpx_otel: str = "", **more: str
    ) -> Generator[servers.Server]:
        environ = {
            **received.environ,
            "DJANGO_OTEL": django_otel,
            "HTTPX_OTEL": httpx_otel,
            "INSIDER_OTEL_HOSTS": f'{{"127.0.0.1:{insider.port}": "*"}}',
            "INSIDER_URL": insider.url,
            **more,
        }
        run = servers.gunicorn if interface == "wsgi" else servers.uvicorn
        with run(
            f"django_project.{interface}:application", directory=HERE, environ=environ, arguments=arguments
        ) as server:
            yield server

    return start


def assert_one_trace(tree: Tree) -> None:
    """All in it has one trace id."""
    assert len({span.trace_id for span in tree.spans()}) == 1


CALL = ["call user.upsert succeeded", f"  {ATTEMPT} 200"]
HEALED = ["call user.upsert succeeded", f"  {ATTEMPT} 503", "  wait retry", f"  {ATTEMPT} 200"]


def within(parent: str, *children: list[str]) -> list[str]:
    """The lines of a span and what was done in it."""
    return [parent, *("  " + line for child in children for line in child)]


both = pytest.mark.parametrize("interface", ["wsgi", "asgi"])


@pytest.mark.parametrize(
    ("django_otel", "httpx_otel", "route"),
    [
        ("before", "", "signup"),
        ("before", "too", "signup"),
        ("after", "", "signup"),
        ("inside", "", "signup"),
        ("server", "", "/signup"),
        ("both", "", "/signup"),
    ],
)
@both
def test_a_request_is_one_trace_wherever_the_stock_instrumentation_stands(
    serve: Serve, received: Receiver, fake: FakeInsider, interface: str, django_otel: str, httpx_otel: str, route: str
) -> None:
    """From the server span to each attempt, with the summary on the server span."""
    fake.script("user.upsert", "503", "ok")
    with serve(interface, django_otel=django_otel, httpx_otel=httpx_otel) as server:
        assert server.get("/signup").json()["attempts"] == 2
        [tree] = received.wait_for_trees(1)
    inner = within("internal GET signup", HEALED) if django_otel == "both" else HEALED
    assert tree.lines() == within(f"server GET {route}", inner)
    assert_one_trace(tree)
    summary = tree.span.summary
    assert (summary["calls"], summary["retries"], summary["failed_calls"]) == (1, 1, 0)
    [wait] = [span for span in tree.spans() if str(span) == "wait retry"]
    assert summary["wait_ms"] == wait.attributes["insider.wait.ms"]


@both
def test_without_a_server_span_a_call_is_a_trace_of_its_own(serve: Serve, received: Receiver, interface: str) -> None:
    with serve(interface, django_otel="") as server:
        server.get("/signup")
        [tree] = received.wait_for_trees(1, kind="internal")
    assert tree.lines() == CALL


@both
def test_all_that_a_request_does_is_in_its_trace(serve: Serve, received: Receiver, interface: str) -> None:
    """Through threads and loops, in code that never heard of insider-otel, and after the transaction."""
    with serve(interface) as server:
        for path, children, calls in [
            ("async-to-thread", [CALL, CALL], 2),
            ("thread-to-async", [CALL, CALL], 2),
            ("bare", [CALL], 1),
            ("order", [["call mail.send succeeded", "  POST /mail/v1/send 202"], CALL], 1),
            ("broken", [CALL], 1),
        ]:
            received.clear()
            server.get(f"/{path}")
            [tree] = received.wait_for_trees(1)
            assert tree.lines() == within(f"server GET {path}", *children)
            assert_one_trace(tree)
            assert tree.span.summary["calls"] == calls


@pytest.mark.parametrize("django_otel", ["before", "inside", "server"])
@pytest.mark.parametrize(("interface", "path"), [("wsgi", "stream"), ("asgi", "stream/async")])
def test_a_stream_goes_on_in_the_trace(
    serve: Serve, received: Receiver, interface: str, path: str, django_otel: str
) -> None:
    """Wherever Django's own instrumentation stands, which ends its span before a stream begins."""
    with serve(interface, django_otel=django_otel) as server:
        lines = server.get(f"/{path}").text.splitlines()
        assert len(lines) == 2
        received.wait_until(lambda: len(received.spans()) == 7)
        [tree] = received.trees()
        assert "ended span" not in server.output()
    assert tree.lines()[1:] == within("", CALL, CALL, CALL)[1:]
    assert_one_trace(tree)
    assert tree.span.summary["calls"] == 3


@pytest.mark.parametrize(
    ("interface", "arguments", "more"),
    [
        ("wsgi", ["--workers", "4"], {}),
        ("wsgi", ["--workers", "4", "--preload"], {"CALL_BEFORE_FORK": "1"}),
        ("wsgi", ["--workers", "2", "--threads", "4"], {}),
        ("asgi", [], {}),
    ],
    ids=["workers", "preload", "threads", "asgi"],
)
def test_requests_at_once_are_kept_apart(
    serve: Serve, received: Receiver, fake: FakeInsider, interface: str, arguments: list[str], more: dict[str, str]
) -> None:
    """Each worker has a client of its own after the fork; a thread brings nothing of one request to the next."""
    fake.script("user.upsert", "ok", "503", "ok", "ok", "ok", repeat=True)
    paths = ["signup", "signup/async", "bare", "thread-to-async"] * 10
    with serve(interface, *arguments, **more) as server, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda path: server.get(f"/{path}").json(), paths))
        trees = received.wait_for_trees(len(paths))
    assert [answer["calls"] for answer in answers] == [1, 1, 1, 2] * 10
    assert (len({answer["process"] for answer in answers}) > 1) == (interface == "wsgi")
    for tree in trees:
        assert_one_trace(tree)
        lines = tree.lines()
        calls = 2 if "thread-to-async" in tree.span.name else 1
        assert sum("call user.upsert" in line for line in lines) == calls
        summary = tree.span.summary
        assert summary["calls"] == calls
        assert summary["retries"] == sum(ATTEMPT in line for line in lines) - calls
        assert summary["failed_calls"] == sum("call user.upsert failed" in line for line in lines)


def names(received: Receiver) -> list[str]:
    """What came, in words."""
    return [str(span) for span in received.spans()]


@pytest.mark.parametrize("django_otel", ["", "before", "server"])
def test_a_visitor_who_leaves_cancels_the_call(
    serve: Serve, received: Receiver, fake: FakeInsider, django_otel: str
) -> None:
    fake.script("user.upsert", delay(300.0))
    with serve("asgi", django_otel=django_otel) as server:
        server.visit_and_leave("GET", "/signup/async", once=lambda: fake.requests)
        received.wait_until(lambda: "call user.upsert cancelled" in names(received))
        if django_otel == "server":
            # Django's own instrumentation does not end its span when a visitor leaves.
            [tree] = received.wait_for_trees(1)
            assert tree.span.summary["calls"] == 1
        # The loop and its client go on.
        assert server.get("/signup/async").json()["outcome"] == "succeeded"
        assert "Traceback" not in server.output()


@pytest.mark.parametrize("django_otel", ["before", "server"])
def test_a_visitor_who_leaves_in_the_middle_of_a_stream_cancels_the_call(
    serve: Serve, received: Receiver, fake: FakeInsider, django_otel: str
) -> None:
    fake.script("user.upsert", "ok", "ok", delay(300.0))
    with serve("asgi", django_otel=django_otel) as server:
        server.visit_and_leave("GET", "/stream/async", once=lambda: len(fake.requests) == 3)
        [tree] = received.wait_for_trees(1)
        assert "Traceback" not in server.output()
    assert [line for line in tree.lines() if "call" in line] == [
        "  call user.upsert succeeded",
        "  call user.upsert succeeded",
        "  call user.upsert cancelled",
    ]
    assert tree.span.summary["calls"] == 3
