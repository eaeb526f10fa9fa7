"""One web app's use of the library: what it turns on in its process, and what it opens for a request."""

from __future__ import annotations

import gc
from types import ModuleType
from typing import Any

import httpx
import httpx2
import pytest

from insider_otel import CannotDefer, InsiderInstrumentor, OutboxError, Settings, SettingsError, call_of
from insider_otel.testing import CapturedSpans, FakeClock, FakeInsider, sample_request
from insider_otel.web import WebApp, WebOptions

UPSERT = sample_request("user.upsert")
families = pytest.mark.parametrize("module", [httpx, httpx2], ids=["httpx", "httpx2"])


def post(client: Any, sample: Any = UPSERT) -> Any:
    return client.post(sample.url, headers=sample.headers, content=sample.content)


def is_on() -> bool:
    return bool(InsiderInstrumentor().is_instrumented_by_opentelemetry)


def test_an_app_covers_every_client_of_the_process(fake_url: str, fake_hosts: dict[str, str]) -> None:
    WebApp(WebOptions(settings=Settings(hosts=fake_hosts)))
    sample = sample_request("user.upsert", base_url=fake_url)
    response = httpx.post(sample.url, headers=sample.headers, content=sample.content)
    assert call_of(response).outcome == "succeeded"


def test_an_app_covers_its_own_clients_alone_if_it_says_so(insider_spans: CapturedSpans) -> None:
    app = WebApp(WebOptions(instrument=False), tracer_provider=insider_spans.tracer_provider)
    assert not is_on()
    sample = sample_request("user.upsert")
    with app.override(FakeInsider()):
        app.clients().client().post(sample.url, headers=sample.headers, content=sample.content)
    assert len(insider_spans.calls()) == 1


def test_the_first_app_decides_for_the_clients_of_the_process_and_the_last_to_close_is_not_asked() -> None:
    first, second = WebApp(WebOptions()), WebApp(WebOptions())
    second.close()
    assert is_on()
    first.close()
    assert not is_on()
    first.close()


def test_an_app_leaves_on_what_it_found_on() -> None:
    InsiderInstrumentor().instrument()
    WebApp(WebOptions()).close()
    assert is_on()


def test_a_scope_has_the_deadline_of_the_app() -> None:
    remaining = WebApp(WebOptions(request_deadline=30.0)).open_scope().remaining
    assert remaining is not None
    assert 5.0 < remaining <= 30.0
    assert WebApp(WebOptions(request_deadline=None)).open_scope().remaining is None


@pytest.mark.parametrize("error_responses", [True, False])
def test_failed_calls_are_answered_only_if_the_app_says_so(error_responses: bool) -> None:
    app = WebApp(WebOptions(error_responses=error_responses, settings=Settings(quick_retries=0, spread_retries=0)))
    fake = FakeInsider(clock=FakeClock())
    fake.script("user.upsert", "timeout")
    sample = sample_request("user.upsert")
    with app.override(fake), pytest.raises(httpx.ReadTimeout) as raised:
        app.clients().client().post(sample.url, headers=sample.headers, content=sample.content)
    assert (app.failure_of(raised.value) is not None) == error_responses


def test_a_store_that_cannot_be_used_is_named_when_the_app_is_made() -> None:
    with pytest.raises(SettingsError, match="state"):
        WebApp(WebOptions.from_config({"state": "mysql://db"}, {}))


# -------------------------------------------------------------------------------------------------------- clients


@families
def test_an_app_has_clients_of_both_families(module: ModuleType) -> None:
    app = WebApp(WebOptions(instrument=False), module=httpx2)
    assert isinstance(app.clients(module).client(), module.Client)
    assert isinstance(app.clients().client(), httpx2.Client)
    app.close()


def test_its_clients_are_closed_when_it_is_forgotten() -> None:
    app = WebApp(WebOptions(instrument=False))
    client = app.clients().client()
    del app
    gc.collect()
    assert client.is_closed


@families
@pytest.mark.anyio
async def test_a_fake_takes_the_place_of_the_network_for_as_long_as_the_block(module: ModuleType) -> None:
    app = WebApp(WebOptions(instrument=False), module=module)
    outside = app.clients().client(), await app.clients().async_client()
    fake = FakeInsider()
    fake.script("user.upsert", "service_unavailable")
    with app.override(fake):
        assert call_of(post(app.clients().client())).attempts == 2
        assert (await post(await app.clients().async_client())).status_code == 200
        inside = app.clients().client(), await app.clients().async_client()
    assert len(fake.requests) == 3
    assert not set(map(id, inside)) & set(map(id, outside))
    assert inside[0].is_closed
    assert (app.clients().client(), await app.clients().async_client()) == outside
    await app.close_clients()
    assert [client.is_closed for client in outside] == [True, True]


def test_fakes_can_be_nested_and_be_mere_transports() -> None:
    app = WebApp(WebOptions(instrument=False))
    outer, inner = FakeInsider(), FakeInsider()
    with app.override(outer):
        with app.override(inner.transport()):
            post(app.clients().client())
        post(app.clients().client())
    assert (len(outer.requests), len(inner.requests)) == (1, 1)


def test_a_test_is_not_held_back_by_what_an_earlier_one_sent() -> None:
    app = WebApp(WebOptions(instrument=False))
    for _ in range(2):
        fake = FakeInsider()
        with app.override(fake):
            post(app.clients().client(), sample_request("mail.send"))
        assert len(fake.accepted("mail.send")) == 1


# ------------------------------------------------------------------------------------- what an answer would hide


def deferred(app: WebApp) -> Exception:
    """The exception of a call that was to be deferred, and could not be."""
    client = app.clients().client()
    with pytest.raises((CannotDefer, OutboxError)) as raised:
        client.post(UPSERT.url, headers=UPSERT.headers, content=UPSERT.content, extensions={"insider": {"defer": True}})
    return raised.value


@pytest.mark.parametrize("grouped", [False, True])
def test_an_answer_for_what_the_library_refused_leaves_its_reason_in_the_log(
    grouped: bool, caplog: pytest.LogCaptureFixture
) -> None:
    app = WebApp(WebOptions(instrument=False, error_responses=True))
    with app.override(FakeInsider()):
        error = deferred(app)
    failure = app.failure_of(ExceptionGroup("tasks", [error, error]) if grouped else error)
    assert failure is not None
    assert failure.status == 502
    [record, *others] = caplog.records
    assert len(others) == (1 if grouped else 0)
    assert (record.name, record.levelname) == ("insider_otel.web", "ERROR")
    assert record.getMessage().endswith(f"answered with 502: {error}")
    assert "there is no outbox" in record.getMessage()


def test_an_exception_that_the_app_logs_itself_is_not_logged_twice(caplog: pytest.LogCaptureFixture) -> None:
    app = WebApp(WebOptions(instrument=False))
    with app.override(FakeInsider()):
        assert app.failure_of(deferred(app)) is None
    assert not caplog.records


@pytest.mark.parametrize("step", ["400", "401", "503", "timeout", "reset"])
def test_what_insider_or_httpx_said_is_not_logged(step: str, caplog: pytest.LogCaptureFixture) -> None:
    app = WebApp(
        WebOptions(instrument=False, error_responses=True, settings=Settings(quick_retries=0, spread_retries=0))
    )
    fake = FakeInsider(clock=FakeClock())
    fake.script("user.upsert", step)
    with app.override(fake), pytest.raises(httpx.HTTPError) as raised:
        post(app.clients().client()).raise_for_status()
    assert app.failure_of(raised.value) is not None
    assert not [record for record in caplog.records if record.name.startswith("insider_otel")]
