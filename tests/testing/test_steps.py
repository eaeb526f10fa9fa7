"""One language of steps, for tests and for the command line: each is spelt as its function is called."""

from __future__ import annotations

import re
from collections.abc import Callable

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel.testing import (
    FakeClock,
    FakeInsider,
    Step,
    delay,
    documented,
    reply,
    reset,
    sample_request,
    timeout,
    truncate,
)
from insider_otel.testing.faults import step_of


@pytest.mark.parametrize(
    ("text", "step"),
    [
        ("ok", Step()),
        (" reset ", reset()),
        ("timeout", timeout()),
        ("503", reply(503)),
        ("service_unavailable", documented("service_unavailable")),
        ("delay:0.5", delay(0.5)),
        ("delay:2:503", delay(2, reply(503))),
        ("delay:2:timeout", delay(2, timeout())),
        ("truncate:10", truncate(10)),
        ("delay:1:truncate:4:ok", delay(1, truncate(4))),
    ],
)
def test_steps_are_spelt_as_their_functions_are_called(text: str, step: Step) -> None:
    assert step_of(text) == step


def test_a_script_takes_every_spelling(fake: FakeInsider, clock: FakeClock) -> None:
    fake.script("user.upsert", "timeout", "reset", "503", "delay:2")
    sample = sample_request("user.upsert")
    met: list[object] = []
    with httpx.Client(transport=fake.transport(), timeout=5) as client:
        for _ in range(4):
            try:
                request = client.build_request(
                    sample.method, sample.url, headers=sample.headers, content=sample.content
                )
                met.append(client.send(request).status_code)
            except httpx.TransportError as error:
                met.append(type(error))
    assert met == [httpx.ReadTimeout, httpx.ReadError, 503, 200]
    assert clock.sleeps == [5, 2]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "a step is empty; for the usual answer write ok"),
        ("delay:2:", "a step is empty"),
        ("delay", "step 'delay': after delay comes a number of seconds, as in delay:2"),
        ("delay:x", "step 'delay:x': after delay comes a number of seconds"),
        ("truncate:x", "step 'truncate:x': after truncate comes a whole number of bytes, as in truncate:10"),
        ("truncate:1.5", "comes a whole number of bytes"),
        ("truncate:-1", "it is 0 or more"),
        ("delay:nan", "seconds is nan; a delay is 0 or more and 3600 at most"),
        ("delay:inf", "seconds is inf"),
        ("delay:-inf", "seconds is -inf"),
        ("delay:3601", "3600 at most in all, or write timeout"),
        ("delay:3000:delay:3000", "3600 at most in all"),
        ("ok:1", "step 'ok:1': only delay and truncate take a number"),
        ("reset:", "only delay and truncate take a number"),
        ("199", "a status is a number from 200 to 599"),
        ("600", "a status is a number from 200 to 599"),
        ("delay:1:service_unavailabel", "did you mean 'service_unavailable'"),
    ],
)
def test_a_spelling_that_cannot_be_read_says_what_can(text: str, complaint: str, fake: FakeInsider) -> None:
    with pytest.raises(ValueError, match=re.escape(complaint)):
        fake.script("user.upsert", text)


@pytest.mark.parametrize("seconds", [float("nan"), float("inf"), -1, 3600.1])
def test_a_delay_that_nobody_could_wait_for_is_refused(seconds: float) -> None:
    with pytest.raises(ValueError, match="a delay is 0 or more and 3600 at most"):
        delay(seconds)


@pytest.mark.parametrize("make", [lambda: delay(-1), lambda: truncate(-1)])
def test_a_negative_amount_is_an_error(make: Callable[[], Step]) -> None:
    with pytest.raises(ValueError, match="-1"):
        make()


@given(st.text(max_size=30) | st.from_regex(r"(delay|truncate):[-+.0-9a-z]{0,8}(:[a-z0-9]{0,8})?", fullmatch=True))
def test_any_text_is_a_step_or_refused(text: str) -> None:
    try:
        step = step_of(text)
    except ValueError:
        return
    assert 0 <= step.delay <= 3600
    assert step.after_bytes >= 0
