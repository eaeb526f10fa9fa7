"""What is put together wrongly is refused at once, and the error says what to write instead."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from insider_otel import AsyncInsiderTransport, InsiderInstrumentor, InsiderTransport, Settings


@pytest.mark.parametrize(
    ("ours", "theirs", "instead"),
    [
        (InsiderTransport, httpx.AsyncHTTPTransport, "AsyncInsiderTransport"),
        (AsyncInsiderTransport, httpx.HTTPTransport, "InsiderTransport"),
    ],
)
def test_a_transport_for_the_other_kind_of_client_is_refused(ours: Any, theirs: Any, instead: str) -> None:
    with pytest.raises(TypeError, match=rf"for this one take {instead}, in an? "):
        ours(theirs())


@pytest.mark.parametrize("other", [httpx.Client(), "https://unification.useinsider.com"])
def test_what_is_no_transport_is_refused(other: Any) -> None:
    with pytest.raises(TypeError, match=r"give it what sends, such as httpx\.HTTPTransport\(\)"):
        InsiderTransport(other)


def test_settings_that_are_none_are_refused() -> None:
    options: Any = {"deadline": 3}
    with pytest.raises(TypeError, match=r"settings is a dict; it takes Settings\(…\)"):
        InsiderTransport(httpx.HTTPTransport(), settings=options)


def test_a_setting_in_the_place_of_an_option_of_the_instrumentor_is_refused() -> None:
    instrumentor = InsiderInstrumentor()
    with pytest.raises(TypeError, match=r"mode is a setting: instrument\(settings=Settings\(mode=…\)\)"):
        instrumentor.instrument(mode="observe")
    assert not instrumentor.is_instrumented_by_opentelemetry


def test_a_misspelt_option_of_the_instrumentor_is_refused() -> None:
    """Its settings would be those of the variables, unsaid."""
    instrumentor = InsiderInstrumentor()
    with pytest.raises(TypeError, match=r"no keyword setting; there are: logger_provider, meter_provider, settings, "):
        instrumentor.instrument(setting=Settings())
    assert not instrumentor.is_instrumented_by_opentelemetry
