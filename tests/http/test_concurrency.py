"""Many calls at once: threads, tasks, event loops, forks, and instrumentors that come and go meanwhile."""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import importlib.util
import itertools
import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import anyio
import httpx
import httpx2
import pytest
from opentelemetry.trace import SpanKind

from insider_otel import InsiderInstrumentor, InsiderTransport, RequestScope, Settings, Stop, call_of, request_scope
from insider_otel.state.opening import PROCESS_STATE
from insider_otel.testing import FakeClock

from .conftest import Flavour, OpenSpans, Rig
from .test_calls import MAIL, OK, UPSERT

MODULES = pytest.mark.parametrize("module", [httpx, httpx2], ids=lambda module: module.__name__)
HOST = "unification.useinsider.com"


# -- calls of every kind, all in flight together -----------------------------------------------------------------------


@dataclass(frozen=True)
class Kind:
    """A kind of call: what it gets, attempt by attempt, and how it must end."""

    answers: tuple[int | str, ...]
    outcome: str
    stopped: Stop | None = None
    rate_limited: int = 0
    generator: bool = False

    @property
    def attempts(self) -> int:
        return len(self.answers)


KINDS = (
    Kind((200,), "succeeded"),
    Kind((503, 200), "succeeded"),
    Kind(("ReadTimeout", "ConnectError", 200), "succeeded"),
    Kind((403,), "failed"),
    Kind((429, 200), "succeeded", rate_limited=1),
    Kind((503, 503, 503), "failed", Stop.ATTEMPTS),
    Kind(("ReadError", "ReadError", "ReadError"), "failed", Stop.ATTEMPTS),
    Kind((503,), "failed", Stop.NOT_REPLAYABLE, generator=True),
)
# Spread retries need no token of the budget that all share, so that each call's course is its own.
SETTINGS = Settings(quick_retries=0, spread_retries=2)


class Traffic:
    """A transport that knows each call by its ``x-call`` header, answers by its kind, and keeps what it was sent."""

    def __init__(self, module: Any, calls: int) -> None:
        self.module = module
        self.kinds = [KINDS[number % len(KINDS)] for number in range(calls)]
        self.sent: list[list[Any]] = [[] for _ in range(calls)]
        self.bodies: list[list[bytes]] = [[] for _ in range(calls)]

    def answer(self, request: Any) -> Any:
        number = int(request.headers["x-call"])
        answer = self.kinds[number].answers[len(self.sent[number])]
        self.sent[number].append(request)
        self.bodies[number].append(request.content)
        if isinstance(answer, str):
            raise getattr(self.module, answer)("broken", request=request)
        return self.module.Response(answer, json=OK[1] if answer == 200 else {})

    def headers(self, number: int) -> dict[str, str]:
        # A key of its own for each call, so that a 429 closes the pool for it alone.
        return {"x-call": str(number), "X-PARTNER-NAME": "shop", "X-REQUEST-TOKEN": f"key-{number}"}

    def check(self, number: int, result: Any, summary: dict[str, int], spans: list[Any]) -> None:
        """That everything about call ``number`` is its own: its record, its scope, its trace, its requests."""
        kind, record = self.kinds[number], call_of(result)
        assert (record.attempts, record.outcome, record.stopped) == (kind.attempts, kind.outcome, kind.stopped)
        assert summary == {
            "insider.request.calls": 1,
            "insider.request.failed_calls": int(kind.outcome == "failed"),
            "insider.request.retries": kind.attempts - 1,
            "insider.request.duplicates": 0,
            "insider.request.rate_limited": kind.rate_limited,
            "insider.request.deferred": 0,
            "insider.request.wait_ms": round(record.waited * 1000),
        }
        (root,) = [span for span in spans if span.name == f"shop {number}"]
        (call,) = [span for span in spans if span.name == "insider user.upsert"]
        attempts = [span for span in spans if span.kind is SpanKind.CLIENT]
        waits = [span for span in spans if span.name == "insider wait"]
        assert len(spans) == 2 + kind.attempts + (kind.attempts - 1)
        assert call.parent.span_id == root.context.span_id
        assert {span.parent.span_id for span in [*attempts, *waits]} == {call.context.span_id}
        resends = sorted(span.attributes.get("http.request.resend_count", 0) for span in attempts)
        assert resends == list(range(kind.attempts))
        sent = {request.headers["traceparent"].split("-")[2] for request in self.sent[number]}
        assert sent == {f"{span.context.span_id:016x}" for span in attempts}
        assert self.bodies[number] == [body(number)] * kind.attempts


def body(number: int) -> bytes:
    return b'{"users": [{"identifiers": {"uuid": "%d"}}]}' % number


def by_trace(spans: Any) -> dict[int, list[Any]]:
    traces: dict[int, list[Any]] = {}
    for span in spans.all():
        traces.setdefault(span.context.trace_id, []).append(span)
    return traces


@MODULES
def test_threads_that_share_a_transport_share_nothing_else(
    module: Any, insider_spans: Any, open_spans: OpenSpans
) -> None:
    calls = 64
    rig = Rig(Flavour(module, is_async=False), insider_spans, FakeClock())
    traffic = Traffic(module, calls)
    all_in_flight = threading.Barrier(calls, timeout=20)

    def handler(request: Any) -> Any:
        if not traffic.sent[int(request.headers["x-call"])]:
            all_in_flight.wait()
        return traffic.answer(request)

    tracer = rig.spans.tracer_provider.get_tracer("shop")

    def call(number: int) -> tuple[Any, dict[str, int], int]:
        content = iter([body(number)]) if traffic.kinds[number].generator else body(number)
        with tracer.start_as_current_span(f"shop {number}") as span, request_scope() as scope:
            try:
                result: Any = client.post(UPSERT, content=content, headers=traffic.headers(number))
            except module.TransportError as error:
                result = error
        return result, scope.summary(), span.get_span_context().trace_id

    with (
        module.Client(transport=rig.wrap(module.MockTransport(handler), settings=SETTINGS)) as client,
        ThreadPoolExecutor(calls) as pool,
    ):
        results = list(pool.map(call, range(calls)))
    assert open_spans.names() == []
    traces = by_trace(rig.spans)
    for number, (result, summary, trace_id) in enumerate(results):
        traffic.check(number, result, summary, traces[trace_id])
    assert sum(point.count for point in rig.points("insider.client.call.duration")) == calls


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@MODULES
def test_tasks_that_share_a_transport_share_nothing_else(
    module: Any, backend: str, insider_spans: Any, open_spans: OpenSpans
) -> None:
    calls = 500
    rig = Rig(Flavour(module, is_async=True), insider_spans, FakeClock())
    traffic = Traffic(module, calls)
    tracer = rig.spans.tracer_provider.get_tracer("shop")
    results: dict[int, tuple[Any, dict[str, int], int]] = {}

    async def main() -> None:
        in_flight, all_in_flight = itertools.count(1), anyio.Event()

        async def handler(request: Any) -> Any:
            if not traffic.sent[int(request.headers["x-call"])] and next(in_flight) == calls:
                all_in_flight.set()
            await all_in_flight.wait()
            return traffic.answer(request)

        async def call(number: int) -> None:
            async def generated() -> Any:
                yield body(number)

            content = generated() if traffic.kinds[number].generator else body(number)
            with tracer.start_as_current_span(f"shop {number}") as span, request_scope() as scope:
                try:
                    result: Any = await client.post(UPSERT, content=content, headers=traffic.headers(number))
                except module.TransportError as error:
                    result = error
            results[number] = result, scope.summary(), span.get_span_context().trace_id

        transport = rig.wrap(module.MockTransport(handler), settings=SETTINGS)
        async with module.AsyncClient(transport=transport) as client:
            with anyio.fail_after(20):
                async with anyio.create_task_group() as tasks:
                    for number in range(calls):
                        tasks.start_soon(call, number)

    anyio.run(main, backend=backend)
    assert open_spans.names() == []
    traces = by_trace(rig.spans)
    assert len(results) == len(traces) == calls
    for number, (result, summary, trace_id) in results.items():
        traffic.check(number, result, summary, traces[trace_id])


@MODULES
def test_calls_of_one_request_in_many_threads_are_all_counted(module: Any, insider_spans: Any) -> None:
    """Each thread has a copy of the request's context, and so the same scope."""
    rig = Rig(Flavour(module, is_async=False), insider_spans, FakeClock())
    transport = rig.wrap(module.MockTransport(lambda request: module.Response(503)), settings=SETTINGS)
    with module.Client(transport=transport) as client, request_scope() as scope, ThreadPoolExecutor(16) as pool:
        done = [pool.submit(contextvars.copy_context().run, client.post, UPSERT) for _ in range(64)]
        calls = [call_of(post.result()) for post in done]
        summary = scope.summary()
    assert (summary["insider.request.calls"], summary["insider.request.failed_calls"]) == (64, 64)
    assert summary["insider.request.retries"] == 128
    assert summary["insider.request.wait_ms"] == round(sum(call.waited for call in calls) * 1000)


def test_a_scope_loses_nothing_of_what_threads_record_at_once() -> None:
    """Numbers that are read, added to and written back without a lock get lost."""
    with request_scope() as scope, ThreadPoolExecutor(4) as pool:
        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)
        try:
            for done in [pool.submit(record_often, scope) for _ in range(4)]:
                done.result()
        finally:
            sys.setswitchinterval(interval)
    assert scope.summary()["insider.request.retries"] == 4 * 2000
    assert scope.summary()["insider.request.wait_ms"] == 4 * 2000


def record_often(scope: RequestScope) -> None:
    for _ in range(2000):
        scope.record(None, attempts=2, waited=0.001, rate_limited=0)


# -- the budget --------------------------------------------------------------------------------------------------------


@pytest.fixture
def process_state() -> Iterator[Any]:
    """What all transports of this process share, as new."""
    PROCESS_STATE.forget()
    yield PROCESS_STATE
    PROCESS_STATE.forget()


@MODULES
def test_transports_of_many_threads_draw_on_one_budget_to_the_token(module: Any, process_state: Any) -> None:
    """A budget for each transport lets a process with many of them retry as if nothing had failed."""

    def transport() -> Any:
        handler = module.MockTransport(lambda request: module.Response(int(request.headers["x-status"])))
        return InsiderTransport(handler, settings=Settings(quick_retries=0, spread_retries=0))

    def call(client: Any, status: int) -> Any:
        return client.post(UPSERT, json={}, headers={"x-status": str(status)})

    clients = [module.Client(transport=transport()) for _ in range(4)]
    for _ in range(5):
        call(clients[0], 503)
    # 50 successes and 4 failures: in whatever order, they never meet an end of the scale.
    statuses = ([200] * 12 + [503]) * 4 + [200, 200]
    start = threading.Barrier(18, timeout=20)

    def calls(worker: int) -> None:
        start.wait()
        for status in statuses[worker::18]:
            call(clients[worker % 4], status)

    with ThreadPoolExecutor(18) as pool:
        list(pool.map(calls, range(18)))
    assert process_state.budget(HOST).tokens == pytest.approx(10 - 5 - 4 + 5.0)
    assert process_state.budget("mail.useinsider.com").tokens == 10


# -- event loops and processes -----------------------------------------------------------------------------------------


@MODULES
def test_one_transport_serves_one_event_loop_after_another(module: Any, insider_spans: Any) -> None:
    """A lock or a timer that is bound to the first loop fails in the second."""
    rig = Rig(Flavour(module, is_async=True), insider_spans, FakeClock())
    statuses = itertools.cycle([503, 429, 200])
    transport = rig.wrap(module.MockTransport(lambda request: module.Response(next(statuses), json={})))

    async def main() -> int:
        async with module.AsyncClient(transport=transport) as client:
            responses = [await client.post(UPSERT, json={}) for _ in range(2)]
            return sum(call_of(response).attempts for response in responses)

    assert [anyio.run(main, backend=backend) for backend in ("asyncio", "trio", "asyncio")] == [6, 6, 6]


@MODULES
def test_one_transport_serves_event_loops_of_several_threads_at_once(module: Any, insider_spans: Any) -> None:
    rig = Rig(Flavour(module, is_async=True), insider_spans, FakeClock())
    seen: Counter[str] = Counter()

    def handler(request: Any) -> Any:
        name = request.headers["x-call"]
        seen[name] += 1
        return module.Response(503 if seen[name] == 1 else 200, json={})

    transport = rig.wrap(module.MockTransport(handler), settings=SETTINGS)
    start = threading.Barrier(4, timeout=20)

    async def main(thread: int) -> list[int]:
        client = module.AsyncClient(transport=transport)
        calls = [client.post(UPSERT, json={}, headers={"x-call": f"{thread}-{number}"}) for number in range(20)]
        return [call_of(response).attempts for response in await asyncio.gather(*calls)]

    def run(thread: int) -> list[int]:
        start.wait()
        return asyncio.run(main(thread))

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(run, range(4))) == [[2] * 20] * 4


FORKING = """
import os, signal, threading
import httpx, httpx2
from insider_otel import InsiderTransport, Settings, call_of, request_scope
from insider_otel.state.opening import PROCESS_STATE

UPSERT = "https://unification.useinsider.com/api/user/v1/upsert"
statuses = [503, 200, 429]

def calls(module):
    left = list(statuses)
    transport = InsiderTransport(
        module.MockTransport(lambda request: module.Response(left.pop(0), json={})), settings=Settings(quick_delay=0.0)
    )
    client = module.Client(transport=transport)
    with request_scope(deadline=5.0):
        done = [call_of(client.post(UPSERT, json={})) for _ in range(3)]
    return [(call.attempts, call.outcome.value, call.verdict.rule.startswith("local")) for call in done]

expected = [(2, "succeeded", False), (1, "failed", False), (0, "failed", True)]
budget = PROCESS_STATE.budget("unification.useinsider.com")
for _ in range(8):
    budget.failed()

held, forked = threading.Event(), threading.Event()

def hold():
    with PROCESS_STATE._lock, PROCESS_STATE._local._lock, budget._lock:
        held.set()
        forked.wait(30)

holder = threading.Thread(target=hold)
holder.start()
held.wait(30)
child = os.fork()
if child == 0:
    signal.alarm(20)  # a child that is stuck is killed
    for module in (httpx, httpx2):
        got = calls(module)
        if got != expected:
            print("child", module.__name__, got, flush=True)
            os._exit(1)
        PROCESS_STATE.forget()  # the 429 has closed the pool
    os._exit(0)
forked.set()
holder.join()
_, status = os.waitpid(child, 0)
print("child", os.waitstatus_to_exitcode(status))
print("parent", budget.tokens)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_child_that_was_forked_while_a_thread_held_the_locks_works_and_starts_anew() -> None:
    """A lock is copied as it is, and the thread that would release it does not live in the child."""
    arguments = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING]
    ran = subprocess.run(arguments, capture_output=True, text=True, timeout=60, check=False)
    assert ran.stdout.splitlines() == ["child 0", "parent 2.0"], ran.stderr


# -- instrumentors that come and go ------------------------------------------------------------------------------------

CLIENTS = [getattr(module, name) for module in (httpx, httpx2) for name in ("Client", "AsyncClient")]


@pytest.fixture
def clients_as_they_came() -> Iterator[Callable[[], bool]]:
    """Whether no client class is wrapped; at the end they are not, whatever the test did."""
    before = {cls: vars(cls)["_transport_for_url"] for cls in CLIENTS}
    yield lambda: all(vars(cls)["_transport_for_url"] is function for cls, function in before.items())
    if InsiderInstrumentor().is_instrumented_by_opentelemetry:
        InsiderInstrumentor().uninstrument()
    for cls, function in before.items():
        cls._transport_for_url = function


@MODULES
def test_a_call_that_is_in_flight_when_the_instrumentor_goes_ends_as_it_began(
    module: Any, insider_spans: Any, open_spans: OpenSpans, clients_as_they_came: Callable[[], bool]
) -> None:
    calls = 8
    in_flight, gone = threading.Barrier(calls + 1, timeout=20), threading.Event()
    seen: Counter[str] = Counter()

    def handler(request: Any) -> Any:
        name = request.headers["x-call"]
        seen[name] += 1
        if seen[name] == 1:
            in_flight.wait()
            gone.wait(20)
            return module.Response(503)
        return module.Response(200, json=OK[1])

    InsiderInstrumentor().instrument(
        settings=Settings(quick_retries=0, spread_retries=1, retry_window=0.0),
        tracer_provider=insider_spans.tracer_provider,
    )
    client = module.Client(transport=module.MockTransport(handler))
    with ThreadPoolExecutor(calls) as pool:
        posts = [pool.submit(client.post, UPSERT, json={}, headers={"x-call": str(n)}) for n in range(calls)]
        in_flight.wait()
        InsiderInstrumentor().uninstrument()
        assert clients_as_they_came()
        seen["after"] = 1
        after = client.post(MAIL, json={}, headers={"x-call": "after"})
        gone.set()
        responses = [post.result() for post in posts]
    assert [call_of(response).attempts for response in responses] == [2] * calls
    with pytest.raises(LookupError):
        call_of(after)
    assert open_spans.names() == []
    assert len(insider_spans.calls()) == calls


def test_threads_that_instrument_at_once_do_it_once(
    clients_as_they_came: Callable[[], bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each sees that nothing is instrumented yet and wraps; ``uninstrument`` then takes off one wrapper of two."""
    InsiderInstrumentor()  # the instance that both share; OpenTelemetry makes it without a lock
    find_spec, both = importlib.util.find_spec, threading.Barrier(2)

    def meet(name: str, package: str | None = None) -> Any:
        # What a thread does once it is wrapping. If the other one is let in as well, they meet here.
        with contextlib.suppress(threading.BrokenBarrierError):
            both.wait(0.2)
        return find_spec(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", meet)
    with ThreadPoolExecutor(2) as pool:
        for done in [pool.submit(InsiderInstrumentor().instrument, settings=Settings()) for _ in range(2)]:
            done.result()
    assert not clients_as_they_came()
    InsiderInstrumentor().uninstrument()
    assert clients_as_they_came()


@MODULES
def test_calls_go_on_while_the_instrumentor_comes_and_goes(
    module: Any, insider_spans: Any, open_spans: OpenSpans, clients_as_they_came: Callable[[], bool]
) -> None:
    stop = threading.Event()
    client = module.Client(transport=module.MockTransport(lambda request: module.Response(200, json=OK[1])))

    def calls() -> Counter[str]:
        kinds: Counter[str] = Counter()
        while not stop.is_set():
            response = client.post(UPSERT, json={})
            kinds["traced" if "insider_otel" in response.extensions else "plain"] += response.status_code == 200
        return kinds

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(calls) for _ in range(3)]
        try:
            for _ in range(10):
                InsiderInstrumentor().instrument(settings=Settings(), tracer_provider=insider_spans.tracer_provider)
                InsiderInstrumentor().uninstrument()
        finally:
            stop.set()
        kinds = sum((done.result() for done in running), Counter())
    assert clients_as_they_came()
    assert open_spans.names() == []
    assert len(insider_spans.calls()) == kinds["traced"]
