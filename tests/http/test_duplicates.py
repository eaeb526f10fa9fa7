"""The same content is sent once: held back after success, let through while nobody knows, free after a failure."""

from __future__ import annotations

from typing import Any

import anyio
import httpx
import pytest

from insider_otel import AsyncInsiderTransport, Category, Outcome, Settings, call_of, request_scope
from insider_otel.testing import FakeClock, set_testing

from .conftest import Rig, event_names

MAIL = "https://mail.useinsider.com/mail/v1/send"
SMS = "https://sms.useinsider.com/v1/send"
CHECK = "https://verify.useinsider.com/v1/check"
KEY = {"X-INS-AUTH-KEY": "key-of-shop"}
LETTER = {
    "subject": "Your order",
    "tos": [{"email": "jane@example.com"}],
    "content": [{"type": "text/plain", "value": "Thanks"}],
}
TAKEN = (202, {"message_id": "00000000-0000-4000-8000-000000000001", "status_message": "accepted"})
DUPLICATE = (
    409,
    {
        "status_message": "This request has already been received and is being processed. "
        "Any duplicate content from the user will be ignored for the next 15 minutes."
    },
)
ONCE = Settings(quick_retries=0, spread_retries=0)


def send(rig: Rig, transport: Any, *, letter: Any = LETTER, key: dict[str, str] = KEY, url: str = MAIL) -> Any:
    return rig.flavour.post(url, transport=transport, headers=key, json=letter)


def outcomes(*responses: Any) -> list[Outcome]:
    return [call_of(response).outcome for response in responses]


def test_a_mail_that_insider_took_is_held_back_for_fifteen_minutes(rig: Rig) -> None:
    transport = rig.answers(TAKEN)
    first = send(rig, transport)
    rig.clock.advance(60)
    second = send(rig, transport)
    rig.clock.advance(841)
    third = send(rig, transport)
    assert outcomes(first, second, third) == [Outcome.SUCCEEDED, Outcome.HELD_BACK, Outcome.SUCCEEDED]


def test_what_is_held_back_is_answered_here_and_says_so(rig: Rig) -> None:
    transport = rig.answers(TAKEN)
    send(rig, transport)
    rig.clock.advance(60)
    with request_scope(clock=rig.clock) as scope:
        response = send(rig, transport)
    call, span = call_of(response), rig.spans.calls()[-1]
    assert (response.status_code, response.headers["x-insider-otel"]) == (202, "held_back")
    assert isinstance(response, rig.flavour.module.Response)
    assert (call.attempts, call.verdict.category, call.verdict.rule) == (0, Category.DUPLICATE, "local.duplicate")
    assert rig.spans.tree()[-1] == "call mail.send held_back"
    assert span.attributes["insider.outcome"] == "held_back"
    assert "error.type" not in span.attributes
    assert [(event.name, dict(event.attributes)) for event in span.events] == [
        ("insider.dedupe.held_back", {"insider.dedupe.age.ms": 60_000})
    ]
    assert scope.summary()["insider.request.duplicates"] == 1
    assert scope.summary()["insider.request.failed_calls"] == 0
    assert {p.attributes["insider.duplicate.source"]: p.value for p in rig.points("insider.client.duplicates")} == {
        "local": 1
    }


def test_key_order_white_space_and_number_spelling_do_not_make_another_mail(rig: Rig) -> None:
    transport = rig.answers(TAKEN)

    def post(content: str) -> Any:
        headers = {**KEY, "content-type": "application/json"}
        return rig.flavour.post(MAIL, transport=transport, headers=headers, content=content)

    first = post('{"subject": "Hi", "dynamic_fields": {"total": 10, "n": 1.50}}')
    second = post('{"dynamic_fields":{"n":15e-1,"total":10.0},\n "subject":"\\u0048i"}')
    third = post('{"dynamic_fields":{"n":15e-1,"total":"10"},"subject":"Hi"}')
    assert outcomes(first, second, third) == [Outcome.SUCCEEDED, Outcome.HELD_BACK, Outcome.SUCCEEDED]


def test_another_content_or_another_key_is_another_mail(rig: Rig) -> None:
    transport = rig.answers(TAKEN)
    send(rig, transport)
    other = send(rig, transport, letter={**LETTER, "subject": "Your other order"})
    foreign = send(rig, transport, key={"X-INS-AUTH-KEY": "key-of-other"})
    assert outcomes(other, foreign) == [Outcome.SUCCEEDED, Outcome.SUCCEEDED]


def test_a_mail_that_failed_for_good_may_be_sent_again(rig: Rig) -> None:
    transport = rig.answers((400, {"status_message": "failed to validate request"}), TAKEN)
    assert outcomes(send(rig, transport), send(rig, transport)) == [Outcome.FAILED, Outcome.SUCCEEDED]
    assert event_names(rig.spans.calls()[-1]) == []


def test_a_mail_that_insider_was_too_busy_for_may_be_sent_again(rig: Rig) -> None:
    transport = rig.answers(503, TAKEN, settings=ONCE)
    send(rig, transport)
    assert outcomes(send(rig, transport)) == [Outcome.SUCCEEDED]


def test_after_silence_a_repeat_is_let_through_with_a_word_until_one_is_taken(rig: Rig) -> None:
    """Nobody knows whether the first arrived: Insider's own window sorts the two, ours holds neither back."""
    transport = rig.answers("ReadTimeout", TAKEN, settings=ONCE)
    with pytest.raises(rig.flavour.module.ReadTimeout):
        send(rig, transport)
    rig.clock.advance(30)
    repeated = send(rig, transport)
    assert outcomes(repeated, send(rig, transport)) == [Outcome.SUCCEEDED, Outcome.HELD_BACK]
    events = rig.spans.calls()[1].events
    assert [(e.name, e.attributes["insider.dedupe.age.ms"]) for e in events] == [("insider.dedupe.in_flight", 30_000)]


def test_a_retry_is_not_held_back_by_its_own_claim(rig: Rig) -> None:
    call = call_of(send(rig, rig.answers(503, TAKEN)))
    assert (call.outcome, call.attempts) == (Outcome.SUCCEEDED, 2)


def test_an_answer_duplicate_after_silence_counts_from_the_attempt_that_arrived(rig: Rig) -> None:
    transport = rig.answers("ReadTimeout", DUPLICATE, TAKEN)
    assert outcomes(send(rig, transport), send(rig, transport)) == [Outcome.SUCCEEDED, Outcome.HELD_BACK]
    rig.clock.advance(901)
    assert outcomes(send(rig, transport)) == [Outcome.SUCCEEDED]


def test_an_answer_duplicate_to_a_first_attempt_holds_nothing_back(rig: Rig) -> None:
    """Insider's window began before this call, nobody knows when; ours must not outlast it."""
    transport = rig.answers(DUPLICATE, TAKEN)
    send(rig, transport)
    assert outcomes(send(rig, transport)) == [Outcome.SUCCEEDED]


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_repeat_of_a_mail_in_flight_goes_through_and_says_so(backend: str, insider_spans: Any) -> None:
    async def run() -> list[Outcome]:
        on_its_way, answer = anyio.Event(), anyio.Event()

        async def handle(request: httpx.Request) -> httpx.Response:
            if not on_its_way.is_set():
                on_its_way.set()
                await answer.wait()
            return httpx.Response(TAKEN[0], json=TAKEN[1])

        transport = AsyncInsiderTransport(
            httpx.MockTransport(handle), tracer_provider=insider_spans.tracer_provider, clock=FakeClock()
        )
        ended: list[Outcome] = []
        async with httpx.AsyncClient(transport=transport, headers=KEY) as client:

            async def first() -> None:
                ended.append(call_of(await client.post(MAIL, json=LETTER)).outcome)

            async with anyio.create_task_group() as group:
                group.start_soon(first)
                await on_its_way.wait()
                ended.append(call_of(await client.post(MAIL, json=LETTER)).outcome)
                answer.set()
            ended.append(call_of(await client.post(MAIL, json=LETTER)).outcome)
        return ended

    assert anyio.run(run, backend=backend) == [Outcome.SUCCEEDED, Outcome.SUCCEEDED, Outcome.HELD_BACK]
    assert [event_names(span) for span in insider_spans.calls()].count(["insider.dedupe.in_flight"]) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_call_cancelled_while_it_waits_gives_its_content_back(backend: str, insider_spans: Any) -> None:
    async def run() -> list[str]:
        clock = FakeClock()
        answers = iter([503])

        async def sleep(seconds: float) -> None:
            await anyio.sleep_forever()

        transport = AsyncInsiderTransport(
            httpx.MockTransport(lambda request: httpx.Response(next(answers, 202), json={})),
            tracer_provider=insider_spans.tracer_provider,
            clock=clock,
            sleep=sleep,
        )
        async with httpx.AsyncClient(transport=transport, headers=KEY) as client:
            async with anyio.create_task_group() as group:
                group.start_soon(lambda: client.post(MAIL, json=LETTER))
                await anyio.wait_all_tasks_blocked()
                group.cancel_scope.cancel()
            assert call_of(await client.post(MAIL, json=LETTER)).outcome is Outcome.SUCCEEDED
        return event_names(insider_spans.calls()[-1])

    assert anyio.run(run, backend=backend) == []


def test_other_operations_are_deduplicated_only_if_asked_for(rig: Rig) -> None:
    message = {"to": "+905550000001", "content": "Hi"}
    by_default = rig.answers(TAKEN)
    assert outcomes(*(send(rig, by_default, letter=message, url=SMS) for _ in range(2))) == [Outcome.SUCCEEDED] * 2
    for_all = rig.answers(TAKEN, settings=Settings(dedupe="all"))
    assert outcomes(*(send(rig, for_all, letter=message, url=SMS) for _ in range(2))) == [
        Outcome.SUCCEEDED,
        Outcome.HELD_BACK,
    ]


def test_a_one_time_code_is_never_answered_here(rig: Rig) -> None:
    """A held-back check would tell the app that a code is right."""
    transport = rig.answers((202, {"status": "success"}), settings=Settings(dedupe="all"))
    check = {"to": "+905550000001", "code": "123456"}
    assert outcomes(*(send(rig, transport, letter=check, url=CHECK) for _ in range(2))) == [Outcome.SUCCEEDED] * 2


def test_deduplication_can_be_turned_off(rig: Rig) -> None:
    for settings in (Settings(dedupe="off"), Settings(mode="observe")):
        transport = rig.answers(TAKEN, settings=settings)
        assert outcomes(send(rig, transport), send(rig, transport)) == [Outcome.SUCCEEDED] * 2


def test_in_tests_nothing_is_held_back_unless_asked_for(rig: Rig) -> None:
    transport = rig.answers(TAKEN)
    with set_testing():
        assert outcomes(send(rig, transport), send(rig, transport)) == [Outcome.SUCCEEDED] * 2
    with set_testing(hold=True):
        assert outcomes(send(rig, transport), send(rig, transport)) == [Outcome.SUCCEEDED, Outcome.HELD_BACK]


def test_a_repeat_takes_no_slot(rig: Rig) -> None:
    transport = rig.answers(TAKEN, settings=Settings(limits={"mail.send": "2/60s"}))
    send(rig, transport)
    for _ in range(5):
        send(rig, transport)
    assert call_of(send(rig, transport, letter={"subject": "Another"})).waited == 0.0


def test_a_mail_that_was_refused_a_slot_is_not_claimed(rig: Rig) -> None:
    transport = rig.answers(TAKEN, settings=Settings(limits={"mail.send": "1/60s"}, deadline=5.0))
    send(rig, transport, letter={"subject": "Another"})
    assert send(rig, transport).status_code == 429
    rig.clock.advance(60)
    assert outcomes(send(rig, transport)) == [Outcome.SUCCEEDED]
    assert event_names(rig.spans.calls()[-1]) == []


def test_nothing_of_a_mail_is_in_what_is_exported(rig: Rig) -> None:
    transport = rig.answers(TAKEN)
    send(rig, transport)
    send(rig, transport)
    rig.spans.assert_no_secrets("jane@example.com", "Your order", KEY["X-INS-AUTH-KEY"])
