"""The registry, and what calls of every kind export."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from semconv.registry import Registry

from .calls import Shop, all_calls
from .recorder import Exported, Recorder


@pytest.fixture(scope="session")
def registry() -> Registry:
    return Registry.read()


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Exported]:
    """The calls are made once for all tests, which only look at what they exported."""
    recorder = Recorder()
    shop = Shop(recorder)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_REQUEST", "x-shop")
        environment.setenv("OTEL_INSTRUMENTATION_HTTP_CAPTURE_HEADERS_CLIENT_RESPONSE", "x-trace")
        for calls in all_calls(tmp_path_factory.mktemp("state")):
            calls(shop)
    yield recorder.exported()
    recorder.tracer_provider.shutdown()
    recorder.meter_provider.shutdown()
    recorder.logger_provider.shutdown()
