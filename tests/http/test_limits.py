"""Rate limits are held before Insider has to: slots, waits, refusals, closed pools, learned limits."""

from __future__ import annotations

import gc
import logging
import threading
from pathlib import Path
from typing import Any

import anyio
import httpx
import pytest

from insider_otel import AsyncInsiderTransport, InsiderTransport, Outcome, Settings, Stop, call_of, request_scope
from insider_otel.state.opening import PROCESS_STATE
from insider_otel.testing import FakeClock, FakeInsider, sample_request, set_testing
from tests.metronome import assert_nobody_is_late

from .conftest import Rig, event_names

CATALOG = "https://catalog.api.useinsider.com/v2/ingest"
CATALOG_UPDATE = "https://catalog.api.useinsider.com/v2/update"
EXPORT = "https://unification.useinsider.com/api/raw/v1/export"
PROFILE = "https://unification.useinsider.com/api/user/v1/profile"
KEYS = {"X-PARTNER-NAME": "shop", "X-REQUEST-TOKEN": "token-of-shop"}
OTHER_KEYS = {"X-PARTNER-NAME": "other", "X-REQUEST-TOKEN": "token-of-other"}
TOO_MANY = (429, {"error": "rejected: too many requests"})


def tight(limit: str = "3/10s", pool: str = "catalog.ingest", **more: Any) -> Settings:
    return Settings(limits={pool: limit}, **more)


def post_many(
    rig: Rig, count: int, *, url: str = CATALOG, transport: Any, headers: dict[str, str] | None = None
) -> list[Any]:
    """Post one after the other through one transport."""
    return [rig.flavour.post(url, transport=transport, headers=headers or KEYS, json=[]) for _ in range(count)]


def test_as_many_as_the_limit_allows_go_at_once_and_the_next_waits_for_its_slot(rig: Rig) -> None:
    started = rig.clock()
    calls = [call_of(response) for response in post_many(rig, 4, transport=rig.answers(200, settings=tight()))]
    assert [call.waited for call in calls] == [0.0, 0.0, 0.0, 10.0]
    assert rig.clock() - started == pytest.approx(10.0, abs=1e-5)


def test_a_wait_for_a_slot_is_a_span_and_an_event(rig: Rig) -> None:
    post_many(rig, 4, transport=rig.answers(200, settings=tight()))
    assert rig.spans.tree()[-3:] == [
        "call catalog.ingest succeeded",
        "  wait rate_limit",
        "  POST /v2/ingest 200",
    ]
    wait, call = rig.spans.waits()[-1], rig.spans.calls()[-1]
    assert wait.attributes["insider.wait.source"] == "limiter"
    assert wait.attributes["insider.wait.ms"] == 10_000
    assert event_names(call) == ["insider.rate_limit.waited"]


def test_operations_of_one_pool_share_its_limit(rig: Rig) -> None:
    transport = rig.answers(200, settings=tight("2/10s"))
    post_many(rig, 1, transport=transport)
    post_many(rig, 1, url=CATALOG_UPDATE, transport=transport)
    assert call_of(post_many(rig, 1, transport=transport)[0]).waited == 10.0


def test_another_key_has_a_limit_of_its_own(rig: Rig) -> None:
    transport = rig.answers(200, settings=tight("1/10s"))
    post_many(rig, 1, transport=transport)
    assert call_of(post_many(rig, 1, transport=transport, headers=OTHER_KEYS)[0]).waited == 0.0


def test_a_slot_beyond_the_deadline_is_refused_and_not_taken(rig: Rig) -> None:
    transport = rig.answers(200, settings=tight("1/10s"))
    post_many(rig, 1, transport=transport)
    with request_scope(deadline=2.0, clock=rig.clock) as scope:
        response = post_many(rig, 1, transport=transport)[0]
    call = call_of(response)
    assert (response.status_code, response.headers["x-insider-otel"]) == (429, "refused")
    assert response.headers["retry-after"] == "10"
    assert (call.outcome, call.attempts, call.verdict.rule) == (Outcome.FAILED, 0, "local.rate_limit")
    assert event_names(rig.spans.calls()[-1]) == ["insider.rate_limit.refused"]
    assert scope.summary()["insider.request.rate_limited"] == 1
    # The slot it could not have is the next one's.
    assert call_of(post_many(rig, 1, transport=transport)[0]).waited == 10.0


def test_without_a_deadline_no_slot_is_waited_for_longer_than_the_retry_window(rig: Rig) -> None:
    transport = rig.answers(200, settings=tight("1/400s"))
    assert [r.status_code for r in post_many(rig, 2, transport=transport)] == [200, 429]
    assert rig.clock.sleeps == []


def test_a_limit_of_a_utc_day_begins_anew_at_midnight(rig: Rig) -> None:
    """The fake clock starts at midnight; the second export of a day is refused until the next."""
    transport = rig.answers(200, settings=Settings())
    post_many(rig, 1, url=EXPORT, transport=transport)
    refused = post_many(rig, 1, url=EXPORT, transport=transport)[0]
    assert refused.status_code == 429
    assert 86_390 < int(refused.headers["retry-after"]) <= 86_402
    rig.clock.advance(86_403)
    assert post_many(rig, 1, url=EXPORT, transport=transport)[0].status_code == 200


def test_an_export_that_failed_does_not_count(rig: Rig) -> None:
    transport = rig.answers((400, {"error": "bad request"}), 200, settings=Settings())
    assert [r.status_code for r in post_many(rig, 2, url=EXPORT, transport=transport)] == [400, 200]


def test_profile_reads_are_counted_by_what_insider_says_they_cost(rig: Rig) -> None:
    answer = (200, {"attributes": {}, "quota": {"cost": 4, "used": 4, "total": 10}})
    transport = rig.answers(answer, settings=Settings(limits={"user.profile": "10/60s"}))
    waited = [call_of(r).waited for r in post_many(rig, 3, url=PROFILE, transport=transport)]
    assert waited == [0.0, 0.0, 60.0]


def test_an_attempt_that_never_arrived_does_not_count(rig: Rig) -> None:
    transport = rig.answers("ConnectError", 200, settings=tight("1/1000s", quick_retries=0, spread_retries=0))
    with pytest.raises((httpx.ConnectError, rig.flavour.module.ConnectError)):
        post_many(rig, 1, transport=transport)
    assert post_many(rig, 1, transport=transport)[0].status_code == 200


def test_retries_take_slots_too(rig: Rig) -> None:
    transport = rig.answers(503, 200, settings=tight("1/10s"))
    call = call_of(post_many(rig, 1, transport=transport)[0])
    assert (call.outcome, call.attempts) == (Outcome.SUCCEEDED, 2)
    assert call.waited == pytest.approx(10.0, abs=1e-5)


def test_a_retry_whose_slot_is_beyond_the_deadline_is_not_made(rig: Rig) -> None:
    transport = rig.answers(503, 200, settings=tight("1/10s", deadline=5.0))
    response = post_many(rig, 1, transport=transport)[0]
    assert (response.status_code, call_of(response).stopped) == (503, Stop.DEADLINE)


def test_a_pool_that_insider_closed_is_closed_for_every_call_with_the_key(rig: Rig) -> None:
    closed = rig.flavour.module.Response(
        429, headers={"Retry-After": "20"}, json={"error": "rejected: too many requests"}
    )
    answers = iter([closed])
    transport = rig.wrap(
        rig.flavour.answering(lambda request: next(answers, None) or rig.flavour.module.Response(200)),
        settings=Settings(deadline=5.0),
    )
    assert post_many(rig, 1, transport=transport)[0].status_code == 429
    held = post_many(rig, 1, transport=transport, url=CATALOG_UPDATE)[0]
    assert (held.status_code, held.headers["x-insider-otel"]) == (429, "refused")
    assert post_many(rig, 1, transport=transport, headers=OTHER_KEYS)[0].status_code == 200
    rig.clock.advance(20)
    assert post_many(rig, 1, transport=transport)[0].status_code == 200


def test_a_success_that_says_nothing_remains_closes_the_pool(rig: Rig) -> None:
    module = rig.flavour.module
    transport = rig.wrap(
        rig.flavour.answering(lambda request: module.Response(200, headers={"RateLimit": '"default";r=0;t=7'})),
        settings=Settings(),
    )
    waited = [call_of(r).waited for r in post_many(rig, 2, transport=transport)]
    assert waited[0] == 0.0
    assert 7.0 <= waited[1] <= 8.0


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param(
            (
                403,
                {},
                {
                    "error": {
                        "message": "Too many attempts, please slow down the request. 2 Requests/minute is allowed."
                    }
                },
            ),
            id="text",
        ),
        pytest.param(
            (200, {"RateLimit-Policy": '"default";q=2;w=60', "RateLimit": '"default";r=2;t=60'}, {}), id="headers"
        ),
    ],
)
def test_what_insider_says_of_a_limit_corrects_what_was_believed_and_is_logged_once(
    rig: Rig, answer: tuple[int, dict[str, str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    status, headers, body = answer
    module = rig.flavour.module
    answers = iter([module.Response(status, headers=headers, json=body)] * 2)
    transport = rig.wrap(
        rig.flavour.answering(lambda request: next(answers, None) or module.Response(200)),
        settings=Settings(quick_retries=0, spread_retries=0),
    )
    with caplog.at_level(logging.WARNING, "insider_otel"):
        post_many(rig, 2, transport=transport)
        rig.clock.advance(120)
        waited = [call_of(r).waited for r in post_many(rig, 3, transport=transport)]
    assert waited[:2] == [0.0, 0.0]
    assert waited[2] == pytest.approx(60.0, abs=1e-4)
    named = [record for record in caplog.records if "2/60s" in record.getMessage()]
    assert len(named) == 1
    assert "catalog.ingest" in named[0].getMessage()
    assert KEYS["X-REQUEST-TOKEN"] not in caplog.text


@pytest.mark.parametrize(
    "sentence",
    [
        "Rate limit exceeded: 1 request per minute per user",
        "rate limit exceeded, you sent 1 requests in 60 seconds",
        "rate limit exceeded: 5.000 requests per minute are allowed",
    ],
)
def test_a_sentence_that_names_no_lower_limit_of_the_key_closes_the_pool_and_teaches_nothing(
    rig: Rig, sentence: str, caplog: pytest.LogCaptureFixture
) -> None:
    """One user's limit is not the pool's: it would throttle the calls for everybody else, and for good."""
    transport = rig.answers((429, {"message": sentence}), 200, settings=Settings(quick_retries=0, spread_retries=0))
    post_many(rig, 1, transport=transport)
    rig.clock.advance(60)
    with caplog.at_level(logging.WARNING, "insider_otel"):
        assert {call_of(response).waited for response in post_many(rig, 20, transport=transport)} == {0.0}
    assert "Insider names" not in caplog.text


def test_what_a_sentence_has_lowered_another_raises_again_as_far_as_documented(rig: Rig) -> None:
    """Sixty in a minute are documented."""
    said = [(429, {"message": f"rate limit: {count} requests per minute are allowed"}) for count in (5, 60)]
    transport = rig.answers(*said, 200, settings=Settings(quick_retries=0, spread_retries=0))
    for _ in said:
        post_many(rig, 1, transport=transport)
        rig.clock.advance(120)
    assert {call_of(response).waited for response in post_many(rig, 60, transport=transport)} == {0.0}


@pytest.mark.parametrize(
    ("answer", "waits"),
    [
        pytest.param((429, {}, {"message": "rate limit: 500 requests per minute are allowed"}), 60.0, id="text"),
        pytest.param(
            (200, {"RateLimit-Policy": '"default";q=500;w=60', "RateLimit": '"default";r=499;t=60'}, {}),
            0.0,
            id="headers",
        ),
    ],
)
def test_headers_raise_a_documented_limit_and_words_do_not(
    rig: Rig, answer: tuple[int, dict[str, str], Any], waits: float
) -> None:
    """Who is refused and reads of a higher limit has met another one. Sixty in a minute are documented."""
    status, headers, body = answer
    module = rig.flavour.module
    answers = iter([module.Response(status, headers=headers, json=body)])
    transport = rig.wrap(
        rig.flavour.answering(lambda request: next(answers, None) or module.Response(200)),
        settings=Settings(quick_retries=0, spread_retries=0),
    )
    post_many(rig, 1, transport=transport)
    rig.clock.advance(120)
    calls = [call_of(response) for response in post_many(rig, 61, transport=transport)]
    assert calls[-1].waited == pytest.approx(waits, abs=1e-3)


@pytest.mark.parametrize(
    "answer",
    [
        pytest.param((429, {}, {"message": "rate limit exceeded: 100 requests/second"}), id="text"),
        pytest.param(
            (200, {"RateLimit-Policy": '"burst";q=100;w=1', "RateLimit": '"burst";r=99;t=1'}, {}), id="headers"
        ),
    ],
)
def test_the_limit_of_a_day_holds_beside_one_of_a_second(rig: Rig, answer: tuple[int, dict[str, str], Any]) -> None:
    status, headers, body = answer
    module = rig.flavour.module
    answers = iter([module.Response(status, headers=headers, json=body)])
    transport = rig.wrap(
        rig.flavour.answering(lambda request: next(answers, None) or module.Response(200)),
        settings=Settings(quick_retries=0, spread_retries=0),
    )
    post_many(rig, 1, url=EXPORT, transport=transport)
    rig.clock.advance(5)
    statuses = [response.status_code for response in post_many(rig, 3, url=EXPORT, transport=transport)]
    # A refused export is none of the day.
    assert statuses == ([200, 429, 429] if status == 429 else [429] * 3)


def test_a_limit_of_the_app_is_not_raised_by_insider(rig: Rig) -> None:
    module = rig.flavour.module
    headers = {"RateLimit-Policy": '"default";q=500;w=60', "RateLimit": '"default";r=499;t=60'}
    transport = rig.wrap(
        rig.flavour.answering(lambda request: module.Response(200, headers=headers)), settings=tight("1/10s")
    )
    assert [call_of(r).waited for r in post_many(rig, 2, transport=transport)] == [0.0, 10.0]


def test_a_limit_can_be_lifted(rig: Rig) -> None:
    calls = post_many(rig, 100, transport=rig.answers(200, settings=tight("off")))
    assert {call_of(response).waited for response in calls} == {0.0}


def test_an_observer_holds_nothing(rig: Rig) -> None:
    calls = post_many(rig, 5, transport=rig.answers(200, settings=tight("1/10s", mode="observe")))
    assert {call_of(response).waited for response in calls} == {0.0}


def test_in_tests_nothing_is_held_unless_asked_for(rig: Rig) -> None:
    transport = rig.answers(200, settings=tight("1/10s"))
    with set_testing():
        assert [call_of(r).waited for r in post_many(rig, 3, transport=transport)] == [0.0] * 3
    with set_testing(hold=True, sleep=True):
        assert [call_of(r).waited for r in post_many(rig, 2, transport=transport)] == [0.0, 10.0]
    with set_testing(hold=True), request_scope(deadline=1.0, clock=rig.clock):
        assert post_many(rig, 1, transport=transport)[0].status_code == 429


def test_utilization_is_a_gauge_for_each_pool(rig: Rig) -> None:
    transport = rig.answers(200, settings=tight("4/10s"))
    post_many(rig, 3, transport=transport)
    points = {p.attributes["insider.pool"]: p.value for p in rig.points("insider.client.rate_limit.utilization")}
    assert points == {"catalog.ingest": 0.75}
    rig.clock.advance(10)
    assert [p.value for p in rig.points("insider.client.rate_limit.utilization")] == [0.0]


def test_one_gauge_tells_of_the_pools_of_every_store(rig: Rig, tmp_path: Path) -> None:
    """Each with the fullest pool of that name, also when the transport that came first is gone."""
    files = [f"sqlite:///{tmp_path / name}?timeout=5" for name in ("one.db", "other.db")]
    states = {"memory://": 1, files[0]: 3, files[1]: 2}
    transports = []
    for state, calls in states.items():
        settings = Settings(limits={"catalog.ingest": "4/10s"}, state=state)
        transports.append(rig.answers(200, settings=settings))
        post_many(rig, calls, transport=transports[-1])

    def values() -> list[float]:
        gc.collect()
        return [point.value for point in rig.points("insider.client.rate_limit.utilization")]

    assert values() == [0.75]
    transports.pop(0)
    assert values() == [0.75]
    transports.pop(0)
    assert values() == [0.5]


def test_a_transport_for_every_request_does_not_pile_up_gauges(rig: Rig) -> None:
    for _ in range(20):
        post_many(rig, 1, transport=rig.answers(200, settings=tight("4/10s")))
    assert len(rig.points("insider.client.rate_limit.utilization")) <= 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_waiter_gives_its_slot_back(backend: str, insider_spans: Any) -> None:
    """Ten waiters are cancelled; who comes after them waits as if they had never been."""
    clock = FakeClock()

    async def run() -> float:
        waiting = anyio.Event()

        async def sleep(seconds: float) -> None:
            if not waiting.is_set():
                await anyio.sleep_forever()
            await clock.async_sleep(seconds)

        transport = AsyncInsiderTransport(
            httpx.MockTransport(lambda request: httpx.Response(200)),
            settings=tight("1/10s"),
            tracer_provider=insider_spans.tracer_provider,
            clock=clock,
            sleep=sleep,
        )
        async with httpx.AsyncClient(transport=transport, headers=KEYS) as client:
            await client.post(CATALOG, json=[])
            async with anyio.create_task_group() as group:
                for _ in range(10):
                    group.start_soon(client.post, CATALOG)
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            waiting.set()
            return call_of(await client.post(CATALOG, json=[])).waited

    assert anyio.run(run, backend=backend) == 10.0


def test_who_wakes_too_late_for_its_slot_gives_slot_and_content_back(insider_spans: Any) -> None:
    """Nothing was sent: the next call is not held up by it, and its content is not in flight."""
    clock = FakeClock()

    def oversleep(seconds: float) -> None:
        clock.sleep(seconds + 6.0)

    transport = InsiderTransport(
        httpx.MockTransport(lambda request: httpx.Response(200)),
        settings=tight("1/60s", dedupe="all"),
        tracer_provider=insider_spans.tracer_provider,
        clock=clock,
        sleep=oversleep,
    )
    with httpx.Client(transport=transport, headers=KEYS) as client:
        client.post(CATALOG, json=["first"])
        clock.advance(55.0)
        with request_scope(deadline=10.0, clock=clock):
            assert client.post(CATALOG, json=["second"]).headers["x-insider-otel"] == "refused"
            # 66 s after the first.
        again = call_of(client.post(CATALOG, json=["second"]))
    assert (again.outcome, again.waited) == (Outcome.SUCCEEDED, 0.0)
    assert event_names(insider_spans.calls()[-1]) == []


def test_threads_share_a_limit_first_come_first_served(insider_spans: Any) -> None:
    """Forty threads on 10 in 0.3 s, for real: the fake Insider counts, and nobody waits more than in a queue."""
    limit = "10/0.3s"
    sample = sample_request("catalog.ingest")

    def late() -> list[tuple[float, float]]:
        """The waits that are too long, with those of a queue."""
        PROCESS_STATE.forget()
        fake = FakeInsider(limits={"catalog.ingest": limit})
        transport = InsiderTransport(
            fake.transport(), settings=tight(limit), tracer_provider=insider_spans.tracer_provider
        )
        waits: list[float] = []
        ready = threading.Barrier(40)

        def call() -> None:
            ready.wait()
            with httpx.Client(transport=transport) as client:
                response = client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)
                waits.append(call_of(response).waited)
                assert response.status_code == 200

        threads = [threading.Thread(target=call) for _ in range(40)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(fake.accepted("catalog.ingest")) == len(fake.requests) == 40
        in_a_queue = [0.3 * (place // 10) for place in range(40)]
        pairs = zip(sorted(waits), in_a_queue, strict=True)
        return [(wait, ideal) for wait, ideal in pairs if wait > 1.2 * ideal + 0.1]

    assert_nobody_is_late(late)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_cancelled_in_the_air_has_used_its_slot(backend: str, insider_spans: Any) -> None:
    """Insider may have received it, and counts it."""
    clock = FakeClock()

    async def run() -> float:
        on_its_way = anyio.Event()

        async def handle(request: httpx.Request) -> httpx.Response:
            if not on_its_way.is_set():
                on_its_way.set()
                await anyio.sleep_forever()
            return httpx.Response(200)

        transport = AsyncInsiderTransport(
            httpx.MockTransport(handle),
            settings=tight("1/10s"),
            tracer_provider=insider_spans.tracer_provider,
            clock=clock,
            sleep=clock.async_sleep,
        )
        async with httpx.AsyncClient(transport=transport, headers=KEYS) as client:
            async with anyio.create_task_group() as group:
                group.start_soon(client.post, CATALOG)
                await on_its_way.wait()
                group.cancel_scope.cancel()
            return call_of(await client.post(CATALOG, json=[])).waited

    assert anyio.run(run, backend=backend) == 10.0
