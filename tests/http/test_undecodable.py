"""An answer whose body is not what its ``Content-Encoding`` says: nobody knows what it said."""

from __future__ import annotations

import gc
import gzip
from typing import Any

import pytest

from insider_otel import Call, Category, Outcome, Settings, call_of, health
from insider_otel.http.body import PREFIX_LIMIT
from insider_otel.web import failure_of

from .conftest import Rig
from .test_calls import UPSERT, upsert
from .test_duplicates import send
from .test_leaks import exchanges
from .wire import UPSERTED, Reply, Wire

GZIP = {"content-encoding": "gzip"}


@pytest.fixture
def wired(server: Wire) -> Settings:
    return Settings(hosts={server.address: "unification.useinsider.com"}, quick_delay=0.01)


def garbled(status: int = 200) -> Reply:
    return Reply(status, b"no gzip", GZIP)


def failed(rig: Rig, server: Wire, settings: Settings) -> Exception:
    with pytest.raises(rig.flavour.module.DecodingError) as raised:
        upsert(rig.flavour, server, rig.wrap(settings=settings))
    error: Exception = raised.value
    return error


def test_a_success_that_cannot_be_read_is_none(rig: Rig, server: Wire, wired: Settings) -> None:
    server.script = [garbled()]
    error = failed(rig, server, wired)
    call = call_of(error)
    assert (call.outcome, call.verdict.rule) == (Outcome.FAILED, "exception.DecodingError")
    failure = failure_of(error)
    assert failure is not None
    assert failure.status == 502
    assert health()["products"]["unification"]["outcome"] == "failed"
    (span,) = rig.spans.calls()
    assert not span.status.is_ok
    assert span.attributes["error.type"] == "unexpected"


def test_a_long_one_is_none_either(rig: Rig, server: Wire, wired: Settings) -> None:
    server.script = [Reply(200, b"no gzip" * PREFIX_LIMIT, GZIP)]
    assert call_of(failed(rig, server, wired)).outcome is Outcome.FAILED
    (span,) = rig.spans.calls()
    assert not span.status.is_ok


def test_it_is_not_sent_again_for_insider_may_have_done_it(rig: Rig, server: Wire, wired: Settings) -> None:
    server.script = [garbled()]
    failed(rig, server, wired)
    assert len(server.seen) == 1


def test_an_error_status_says_what_it_says_without_its_body(rig: Rig, server: Wire, wired: Settings) -> None:
    server.script = [garbled(503), garbled(403)]
    call = call_of(failed(rig, server, wired))
    assert (call.attempts, call.verdict.category) == (2, Category.AUTHENTICATION)


def test_who_streams_the_raw_body_gets_it(rig: Rig, server: Wire, wired: Settings) -> None:
    server.script = [garbled()]
    seen: list[Call] = []
    raw = rig.flavour.stream(
        f"{server.url}/api/user/v1/upsert",
        on_open=lambda response: seen.append(call_of(response)),
        transport=rig.wrap(settings=wired),
    )
    assert raw == b"no gzip"
    assert seen[0].outcome is Outcome.FAILED


def test_what_is_cut_off_after_the_part_that_is_looked_at_says_nothing_of_the_rest(
    rig: Rig, server: Wire, wired: Settings
) -> None:
    # A long member that is stored as it is, so that the end of the prefix is in the middle of it.
    long = gzip.compress(UPSERTED + b" " * 2 * PREFIX_LIMIT, compresslevel=0)
    server.script = [Reply(body=long, headers=GZIP)]
    assert call_of(upsert(rig.flavour, server, rig.wrap(settings=wired))).outcome is Outcome.SUCCEEDED


def test_a_mail_that_insider_may_have_taken_is_not_sent_again_for_sure(rig: Rig) -> None:
    """Its content stays claimed, as after a success that broke off: a repeat is told of it and let through."""
    module, answers = rig.flavour.module, iter([(b"no gzip", GZIP), (b"{}", {})])

    def handler(request: Any) -> Any:
        body, headers = next(answers)
        return module.Response(202, headers=headers, stream=rig.flavour.body(body))

    transport = rig.wrap(rig.flavour.answering(handler))
    with pytest.raises(module.DecodingError):
        send(rig, transport)
    assert call_of(send(rig, transport)).outcome is Outcome.SUCCEEDED
    assert "insider.dedupe.in_flight" in [event.name for event in rig.spans.calls()[-1].events]


def test_a_call_with_such_an_answer_is_gone_without_the_garbage_collector(rig: Rig) -> None:
    module = rig.flavour.module

    def handler(request: Any) -> Any:
        return module.Response(200, headers=GZIP, stream=rig.flavour.body(b"no gzip"))

    transport = rig.wrap(rig.flavour.answering(handler))
    alive: list[Any] = []

    def use(client: Any) -> None:
        for _ in range(10):
            with pytest.raises(module.DecodingError):
                client.post(UPSERT, json={})
        alive.extend(exchanges())

    async def use_async(client: Any) -> None:
        for _ in range(10):
            with pytest.raises(module.DecodingError):
                await client.post(UPSERT, json={})
        alive.extend(exchanges())

    gc.collect()
    before = exchanges()
    gc.disable()
    try:
        rig.flavour.using(use_async if rig.flavour.is_async else use, transport=transport)
    finally:
        gc.enable()
    assert not [each for each in alive if not any(each is other for other in before)]
