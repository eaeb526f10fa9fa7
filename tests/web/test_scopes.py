"""A request's deadline and summary: where they hold, and where they end."""

from __future__ import annotations

import math
import threading
from contextvars import copy_context
from typing import Any

import httpx
import pytest

from insider_otel import InsiderTransport, RequestScope, background, call_of, request_scope
from insider_otel.http.scope import check_deadline, current_scope, open_scope, within
from insider_otel.testing import FakeClock, FakeInsider, sample_request

UPSERT = sample_request("user.upsert")


def upsert(fake: FakeInsider | None = None) -> Any:
    with httpx.Client(transport=InsiderTransport((fake or FakeInsider()).transport())) as client:
        return client.post(UPSERT.url, headers=UPSERT.headers, content=UPSERT.content)


def calls(scope: RequestScope) -> int:
    return scope.summary()["insider.request.calls"]


def test_a_scope_binds_and_counts_what_is_done_within_it() -> None:
    scope = open_scope(10)
    upsert()
    assert calls(scope) == 0
    with within(scope):
        assert current_scope() is scope
        upsert()
    assert current_scope() is None
    assert calls(scope) == 1


def test_a_scope_can_be_left_and_entered_again_until_it_is_closed() -> None:
    """As a streamed body does, chunk by chunk."""
    scope = open_scope(10)
    for _ in range(2):
        with within(scope):
            upsert()
    scope.close()
    with within(scope):
        upsert()
    assert calls(scope) == 2
    assert scope.is_closed


def test_a_closed_scope_binds_nobody() -> None:
    scope = open_scope(0)
    with within(scope):
        with pytest.raises(httpx.ConnectTimeout, match="deadline"):
            upsert()
        scope.close()
        assert scope.remaining is None
        assert upsert().status_code == 200


def test_a_routes_deadline_counts_from_the_beginning_of_the_request(insider_clock: FakeClock) -> None:
    with request_scope(5, clock=insider_clock) as scope:
        insider_clock.sleep(1)
        scope.set_deadline(2)
        assert scope.remaining == pytest.approx(1)
        scope.set_deadline(20)
        assert scope.remaining == pytest.approx(19)
        scope.set_deadline(None)
        assert scope.remaining is None


def test_a_scope_within_a_scope_cannot_outlast_it_and_counts_in_both(insider_clock: FakeClock) -> None:
    with request_scope(5, clock=insider_clock) as outer:
        with request_scope(60, clock=insider_clock) as inner:
            assert inner.remaining == pytest.approx(5)
            inner.set_deadline(None)
            assert inner.remaining == pytest.approx(5)
            inner.set_deadline(1)
            assert inner.remaining == pytest.approx(1)
            upsert()
        upsert()
    assert (calls(inner), calls(outer)) == (1, 2)


def test_a_scope_that_is_over_bounds_no_later_one() -> None:
    """A thread or task that outlived its request serves another one."""
    with request_scope(0):
        context = copy_context()

    def serve() -> float | None:
        with request_scope(30) as scope:
            upsert()
            assert calls(scope) == 1
            return scope.remaining

    remaining = context.run(serve)
    assert remaining is not None
    assert remaining > 20


def test_a_scope_can_be_closed_while_its_request_takes_note_of_a_call() -> None:
    """The garbage collector may come then, and find a generator that was left in the middle."""

    class ServerSpan:
        def is_recording(self) -> bool:
            return True

        def set_attributes(self, attributes: Any) -> None:
            left.close()

    whole = open_scope(5)
    with within(whole):
        left = open_scope(5)
    span: Any = ServerSpan()
    whole.found_server_span(span)

    def serve() -> None:
        with within(whole):
            upsert()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    thread.join(30)
    assert not thread.is_alive()
    assert (left.is_closed, calls(whole)) == (True, 1)


def test_in_the_background_a_call_has_no_deadline_and_counts_nowhere() -> None:
    with request_scope(0) as scope:
        with background():
            assert current_scope() is None
            assert call_of(upsert()).outcome == "succeeded"
        assert current_scope() is scope
    assert calls(scope) == 0


def test_a_thread_with_a_copied_context_is_in_the_request_until_that_ends() -> None:
    with request_scope(30) as scope:
        thread = threading.Thread(target=copy_context().run, args=(upsert,))
        thread.start()
        thread.join()
        late = copy_context()
    late.run(upsert)
    assert calls(scope) == 1


def test_a_plain_thread_is_in_no_request() -> None:
    with request_scope(0) as scope:
        thread = threading.Thread(target=upsert)
        thread.start()
        thread.join()
    assert calls(scope) == 0


@pytest.mark.parametrize("deadline", [-1, math.inf, 10**400, math.nan, "3", True])
def test_what_is_no_deadline_is_refused(deadline: Any) -> None:
    for refuse in (check_deadline, open_scope, RequestScope(None).set_deadline):
        with pytest.raises(ValueError, match=r"deadline is .*; it accepts seconds from 0 up, or None"):
            refuse(deadline)
    for accepted in (None, 0, 0.5, 3):
        check_deadline(accepted)
