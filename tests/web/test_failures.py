"""The HTTP answer for a call that failed and that no view handled."""

from __future__ import annotations

import socket
from dataclasses import replace
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from insider_otel import InsiderTransport, Settings, request_scope
from insider_otel.testing import FakeClock, FakeInsider, sample_request
from insider_otel.web import Failure, failure_of

ONCE = Settings(quick_retries=0, spread_retries=0)


def raised(
    step: str, *, operation: str = "user.upsert", module: ModuleType = httpx, fake: FakeInsider | None = None
) -> Exception:
    """The exception that a careless view lets pass."""
    fake = fake or FakeInsider(clock=FakeClock())
    fake.script(operation, step)
    sample = sample_request(operation)
    family: Any = module
    with family.Client(transport=InsiderTransport(fake.transport(), settings=ONCE)) as client:
        try:
            response = client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)
            response.raise_for_status()
        except family.HTTPError as error:
            failed: Exception = error
            return failed
    raise AssertionError("the call succeeded")


@pytest.mark.parametrize("module", [httpx, httpx2])
@pytest.mark.parametrize(
    ("step", "status"),
    [
        ("service_unavailable", 503),
        ("429", 503),
        ("502", 503),
        ("timeout", 504),
        ("504", 504),
        ("reset", 502),
        ("401", 502),
        ("400", 502),
        ("500", 502),
        ("truncate:5", 502),
    ],
)
def test_what_failed_and_how_decides_the_status(step: str, status: int, module: ModuleType) -> None:
    failure = failure_of(raised(step, module=module))
    assert failure is not None
    assert failure.status == status


def test_a_refused_connection_is_no_usable_answer() -> None:
    with socket.socket() as held:
        # Bound and not listening: nobody else takes the port meanwhile.
        held.bind(("127.0.0.1", 0))
        port = held.getsockname()[1]
        settings = replace(ONCE, hosts={f"127.0.0.1:{port}": "*"})
        sample = sample_request("user.upsert", base_url=f"http://127.0.0.1:{port}")
        with (
            httpx.Client(transport=InsiderTransport(httpx.HTTPTransport(), settings=settings)) as client,
            pytest.raises(httpx.ConnectError) as refused,
        ):
            client.post(sample.url, headers=sample.headers, content=sample.content)
    assert failure_of(refused.value) == Failure(502, "A service this page needs gave no usable answer.")


def test_a_busy_insider_says_when_to_come_back() -> None:
    fake = FakeInsider(clock=FakeClock(), limits={"user.upsert": "1/60s"}, retry_after=True)
    with pytest.raises(AssertionError, match="succeeded"):
        raised("ok", fake=fake)
    failure = failure_of(raised("ok", fake=fake))
    assert failure is not None
    assert failure.status == 503
    assert failure.retry_after is not None
    assert failure.headers == {"Retry-After": str(failure.retry_after)}
    assert 1 <= failure.retry_after <= 60


def test_nothing_that_insider_said_or_was_told_is_told_on() -> None:
    for step in ("401", "400", "500", "timeout", "reset", "service_unavailable"):
        error = raised(step)
        failure = failure_of(error)
        assert failure is not None
        said = f"{failure.detail}{failure.headers}"
        for word in ("nsider", "upsert", "jane", "fake-key", "http"):
            assert word not in said


def test_a_deadline_that_had_passed_is_a_timeout() -> None:
    with request_scope(deadline=0):
        failure = failure_of(raised("ok"))
    assert failure == Failure(504, "A service this page needs did not answer in time.")


@pytest.mark.parametrize("error", [ValueError("a mistake"), httpx.ConnectError("refused"), KeyboardInterrupt()])
def test_what_came_from_no_call_is_not_answered(error: BaseException) -> None:
    assert failure_of(error) is None


def test_the_answer_of_another_service_is_not_answered() -> None:
    response = httpx.Response(503, request=httpx.Request("GET", "https://example.com/"))
    with pytest.raises(httpx.HTTPStatusError) as raised_here:
        response.raise_for_status()
    assert failure_of(raised_here.value) is None


def test_a_group_of_failed_calls_is_answered_and_a_mistake_among_them_is_not_hidden() -> None:
    calls = [raised("service_unavailable"), raised("timeout")]
    failure = failure_of(ExceptionGroup("tasks", calls))
    assert failure is not None
    assert failure.status == 503
    assert failure_of(ExceptionGroup("tasks", [*calls, ValueError("a mistake")])) is None
    assert failure_of(ExceptionGroup("tasks", [ExceptionGroup("more", calls)])) == failure
