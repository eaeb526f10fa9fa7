"""One web app's use of the library: what it turns on in its process, and what it opens for a request."""

from __future__ import annotations

import httpx
import pytest

from insider_otel import InsiderInstrumentor, Settings, SettingsError, call_of
from insider_otel.testing import CapturedSpans, FakeClock, FakeInsider, sample_request
from insider_otel.web import WebApp, WebOptions


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
    with app.clients.override(FakeInsider().transport()):
        app.clients.client().post(sample.url, headers=sample.headers, content=sample.content)
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
    remaining = WebApp(WebOptions(request_deadline=3.0)).open_scope().remaining
    assert remaining is not None
    assert 2.0 < remaining <= 3.0
    assert WebApp(WebOptions(request_deadline=None)).open_scope().remaining is None


@pytest.mark.parametrize("error_responses", [True, False])
def test_failed_calls_are_answered_only_if_the_app_says_so(error_responses: bool) -> None:
    app = WebApp(WebOptions(error_responses=error_responses, settings=Settings(quick_retries=0, spread_retries=0)))
    fake = FakeInsider(clock=FakeClock())
    fake.script("user.upsert", "timeout")
    sample = sample_request("user.upsert")
    with app.clients.override(fake.transport()), pytest.raises(httpx.ReadTimeout) as raised:
        app.clients.client().post(sample.url, headers=sample.headers, content=sample.content)
    assert (app.failure_of(raised.value) is not None) == error_responses


def test_a_store_that_cannot_be_used_is_named_when_the_app_is_made() -> None:
    with pytest.raises(SettingsError, match="state"):
        WebApp(WebOptions.from_config({"state": "mysql://db"}, {}))
