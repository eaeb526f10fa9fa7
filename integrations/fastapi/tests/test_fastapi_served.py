"""A real uvicorn, a fake Insider and a receiver of spans, each on a socket of its own: whole traces."""

from __future__ import annotations

import asyncio
from collections import Counter
from importlib.util import find_spec

import httpx
import pytest
from fastapi_calls import Serve
from insider_testkit.otlp import Receiver, Tree

from insider_otel.testing import FakeInsider

pytestmark = pytest.mark.once

NATIVE = pytest.mark.skipif(find_spec("fastapi.telemetry") is None, reason="this FastAPI makes no spans itself")
UPSERTED = ["  call user.upsert succeeded", "    POST /api/user/v1/upsert 200"]
ORDERS = 200
QUIET = {"calls": 1, "failed_calls": 0, "retries": 0, "duplicates": 0, "rate_limited": 0, "deferred": 0, "wait_ms": 0}


def spans_of(tree: Tree, word: str) -> list[dict[str, object]]:
    return [span.attributes for span in tree.spans() if str(span).startswith(word)]


@pytest.mark.parametrize("stock_httpx", [False, True], ids=["alone", "beside-stock-httpx"])
@pytest.mark.parametrize(
    "instrumented",
    [
        "before",
        "after",
        "inside",
        pytest.param("natively", marks=NATIVE),
        pytest.param("natively, inside", marks=NATIVE),
    ],
)
def test_call_and_attempts_stand_under_the_server_span_which_has_the_summary(
    serve: Serve, receiver: Receiver, fake: FakeInsider, instrumented: str, stock_httpx: bool
) -> None:
    """Whoever makes the span, whatever was instrumented first, and whichever of the two is further out."""
    fake.script("user.upsert", "service_unavailable")
    more = {"SHOP_HTTPX_INSTRUMENTOR": "1"} if stock_httpx else {}
    with serve(instrumented, **more) as shop:
        assert shop.post("/signup").json() == 200
        (tree,) = receiver.wait_for_trees(1)
    assert tree.lines() == [
        "server POST /signup",
        "  call user.upsert succeeded",
        "    POST /api/user/v1/upsert 503",
        "    wait retry",
        "    POST /api/user/v1/upsert 200",
    ]
    assert len({span.trace_id for span in tree.spans()}) == 1
    (wait,) = spans_of(tree, "wait")
    assert tree.span.summary == {**QUIET, "retries": 1, "wait_ms": wait["insider.wait.ms"]}


@NATIVE
def test_a_call_stands_under_the_endpoint_where_fastapi_traces_its_operations(serve: Serve, receiver: Receiver) -> None:
    with serve("natively, in detail") as shop:
        assert shop.post("/signup/sync").json() == 200
        (tree,) = receiver.wait_for_trees(1)
    assert tree.lines() == [
        "server POST /signup/sync",
        "  internal fastapi.dependencies",
        "  internal fastapi.endpoint",
        *("  " + line for line in UPSERTED),
        "  internal fastapi.serialization",
    ]
    assert tree.span.summary == QUIET


def test_without_a_server_span_a_call_is_a_trace_of_its_own(serve: Serve, receiver: Receiver) -> None:
    with serve("not") as shop:
        assert shop.post("/signup").json() == 200
        (tree,) = receiver.wait_for_trees(1, kind="internal")
    assert tree.lines() == ["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]


def test_the_trace_goes_on_from_the_visitors_service(serve: Serve, receiver: Receiver) -> None:
    trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
    with serve() as shop:
        shop.post("/signup", headers={"traceparent": f"00-{trace_id}-00f067aa0ba902b7-01"})
        (tree,) = receiver.wait_for_trees(1)
    assert {span.trace_id for span in tree.spans()} == {trace_id}


@pytest.mark.parametrize("path", ["/signup/sync", "/signup/threads", "/signup/httpx2", "/signup/untouched"])
def test_context_holds_in_sync_endpoints_threads_httpx2_and_code_that_knows_no_adapter(
    serve: Serve, receiver: Receiver, path: str
) -> None:
    with serve() as shop:
        assert shop.post(path).json() == 200
        (tree,) = receiver.wait_for_trees(1)
    assert tree.lines() == [f"server POST {path}", *UPSERTED]
    assert tree.span.summary == QUIET


def test_the_scope_is_open_until_the_last_chunk_of_a_stream(serve: Serve, receiver: Receiver) -> None:
    with serve() as shop:
        assert shop.get("/stream").text == "200\n200\n"
        (tree,) = receiver.wait_for_trees(1)
    assert tree.lines() == ["server GET /stream", *UPSERTED, *UPSERTED]
    assert tree.span.summary == {**QUIET, "calls": 2}


def test_a_failure_in_the_middle_of_a_stream_breaks_it_off_and_counts(
    serve: Serve, receiver: Receiver, fake: FakeInsider
) -> None:
    fake.script("user.upsert", "ok", "400")
    with serve() as shop:
        with pytest.raises(httpx.RemoteProtocolError):
            shop.get("/stream/broken")
        (tree,) = receiver.wait_for_trees(1)
    assert tree.lines() == [
        "server GET /stream/broken",
        *UPSERTED,
        "  call user.upsert failed",
        "    POST /api/user/v1/upsert 400",
    ]
    assert tree.span.summary == {**QUIET, "calls": 2, "failed_calls": 1}


def test_a_background_task_is_in_the_trace_but_not_in_the_summary(
    serve: Serve, receiver: Receiver, fake: FakeInsider
) -> None:
    with serve() as shop:
        assert shop.post("/later").json() == "soon"
        receiver.wait_until(lambda: len(receiver.spans()) == 6)
        (tree,) = receiver.wait_for_trees(1)
    task = ["  internal BackgroundTask upsert", *("  " + line for line in UPSERTED)]
    assert tree.lines() == ["server POST /later", *UPSERTED, *task]
    assert tree.span.summary == QUIET
    assert len(fake.accepted("user.upsert")) == 2


def test_a_failed_call_that_no_endpoint_handled_is_a_503_that_tells_nothing(
    serve: Serve, receiver: Receiver, fake: FakeInsider
) -> None:
    fake.script("user.upsert", "service_unavailable", repeat=True)
    with serve() as shop:
        response = shop.post("/careless")
        (tree,) = receiver.wait_for_trees(1)
    assert response.status_code == 503
    assert response.json() == {"detail": "A service this page needs is busy. Please try again in a moment."}
    assert tree.span.attributes["http.response.status_code"] == 503
    assert tree.span.summary["failed_calls"] == 1


def test_a_mistake_of_the_apps_own_stays_a_500_and_the_summary_is_kept(serve: Serve, receiver: Receiver) -> None:
    with serve() as shop:
        assert shop.post("/broken").status_code == 500
        (tree,) = receiver.wait_for_trees(1)
        assert "a mistake of the shop's own" in shop.output()
    assert tree.lines() == ["server POST /broken", *UPSERTED]
    assert (tree.span.status, tree.span.summary) == ("error", QUIET)


def test_a_visitor_who_goes_away_cancels_the_call_of_a_stream(
    serve: Serve, receiver: Receiver, fake: FakeInsider
) -> None:
    fake.script("user.upsert", "ok", "delay:300")
    with serve() as shop:
        received = shop.visit_and_leave("GET", "/stream", once=lambda: len(fake.requests) == 2)
        assert b"200\n" in received
        (tree,) = receiver.wait_for_trees(1)
        assert shop.get("/health/insider").json()["status"] == "ok"
        assert "Traceback" not in shop.output()
    assert tree.lines() == [
        "server GET /stream",
        *UPSERTED,
        "  call user.upsert cancelled",
        "    POST /api/user/v1/upsert unanswered",
    ]
    assert tree.span.summary == {**QUIET, "calls": 2}


@pytest.mark.parametrize("instrumented", ["before", "inside", pytest.param("natively", marks=NATIVE)])
def test_a_visitor_who_goes_away_cancels_the_call_that_an_endpoint_awaits(
    serve: Serve, receiver: Receiver, fake: FakeInsider, instrumented: str
) -> None:
    fake.script("user.upsert", "delay:300")
    with serve(instrumented) as shop:
        shop.visit_and_leave("POST", "/signup", once=lambda: fake.requests)
        (tree,) = receiver.wait_for_trees(1)
        # The loop and its client go on.
        assert shop.post("/signup").json() == 200
        assert "Traceback" not in shop.output()
    assert tree.lines() == [
        "server POST /signup",
        "  call user.upsert cancelled",
        "    POST /api/user/v1/upsert unanswered",
    ]
    assert tree.span.summary == {**QUIET, "calls": 1}


def test_a_shop_can_see_to_the_end_what_it_does_for_a_visitor_who_goes_away(
    serve: Serve, receiver: Receiver, fake: FakeInsider
) -> None:
    """That is Starlette's way: half a sign-up may be worse than one that nobody waits for."""
    fake.script("user.upsert", "delay:1")
    with serve(SHOP_KEEPS_ON="1") as shop:
        shop.visit_and_leave("POST", "/signup", once=lambda: fake.requests)
        (tree,) = receiver.wait_for_trees(1)
    assert tree.lines() == ["server POST /signup", *UPSERTED]
    assert tree.span.summary == QUIET


def test_a_wrong_option_keeps_the_server_from_starting_and_is_printed(serve: Serve) -> None:
    with pytest.raises(AssertionError) as stopped, serve(INSIDER_OTEL_REQUEST_DEADLINE="-1"):
        pass
    assert "the server did not start" in str(stopped.value)
    assert "insider-otel: request_deadline (INSIDER_OTEL_REQUEST_DEADLINE) is -1.0; it accepts" in str(stopped.value)


def test_200_requests_at_once_with_faults_have_each_their_own_summary_and_none_is_lost(
    serve: Serve, receiver: Receiver, fake: FakeInsider
) -> None:
    """One call in twenty is answered with 503; some are healed by a retry, some fail, and each counts where it was."""
    fake.script("user.upsert", *["ok"] * 19, "service_unavailable", repeat=True)

    async def visit(url: str) -> list[list[int]]:
        limits = httpx.Limits(max_connections=None)
        async with httpx.AsyncClient(limits=limits, timeout=300) as visitor:
            paths = [f"/orders/{number}{'/sync' if number % 4 == 0 else ''}" for number in range(ORDERS)]
            responses = await asyncio.gather(*(visitor.post(url + path) for path in paths))
        return [response.raise_for_status().json() for response in responses]

    patient = {"INSIDER_OTEL_REQUEST_DEADLINE": "300", "INSIDER_OTEL_SPREAD_RETRIES": "0"}
    with serve(**patient) as shop:
        answers = asyncio.run(visit(shop.url))
        trees = receiver.wait_for_trees(ORDERS, seconds=300)
    assert Counter(map(len, answers)) == Counter(number % 3 + 1 for number in range(ORDERS))

    for tree in trees:
        assert len({span.trace_id for span in tree.spans()}) == 1
        number = int(str(tree.span.attributes["url.path"]).split("/")[2])
        calls, attempts = (spans_of(tree, word) for word in ("call", "POST"))
        assert len(calls) == number % 3 + 1
        assert tree.span.summary == {
            **QUIET,
            "calls": len(calls),
            "failed_calls": sum(call["insider.outcome"] == "failed" for call in calls),
            "retries": len(attempts) - len(calls),
            # Not those of the waits: a sum that is rounded is not the sum of what is rounded.
            "wait_ms": sum(int(str(call["insider.wait.ms"])) for call in calls),
        }
    total = Counter[str]()
    for tree in trees:
        total.update(tree.span.summary)
    assert total["calls"] == sum(map(len, answers))
    assert total["calls"] + total["retries"] == len(fake.requests)
    assert total["failed_calls"] == sum(status == 503 for statuses in answers for status in statuses)
    refused = len(fake.requests) - len(fake.accepted("user.upsert"))
    assert refused == len(fake.requests) // 20 == total["retries"] + total["failed_calls"]
    assert total["retries"] > 0
