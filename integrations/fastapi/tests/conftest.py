"""A fake Insider and a receiver of spans on sockets of their own, and the app on uvicorn between them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import pytest
from fastapi_calls import Serve
from insider_testkit.otlp import Receiver, otlp_receiver
from insider_testkit.servers import Server, uvicorn
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor

from insider_otel import InsiderInstrumentor
from insider_otel.testing import FakeInsider
from insider_otel.testing.server import ServedFake

HERE = Path(__file__).parent


@pytest.fixture
def anyio_backend() -> str:
    """The clients of an app are those of asyncio's loops."""
    return "asyncio"


@pytest.fixture(autouse=True)
def nothing_is_left_on() -> Iterator[None]:
    """The first app of a process turns the instrumentor on, and the next test's app is not the first."""
    yield
    for instrumentor in (InsiderInstrumentor(), FastAPIInstrumentor()):
        if instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with otlp_receiver() as received:
        yield received


@pytest.fixture
def fake() -> FakeInsider:
    """By the real clock: others wait for its answers on a socket."""
    return FakeInsider()


@pytest.fixture
def served(fake: FakeInsider) -> Iterator[ServedFake]:
    with fake.serve() as address:
        yield address


@pytest.fixture
def serve(receiver: Receiver, served: ServedFake) -> Serve:
    """Serves the app: ``with serve("after") as shop``; see it for the ways in which it can be instrumented."""

    def serve_with(instrumented: str = "before", **more: str) -> AbstractContextManager[Server]:
        where = {"SHOP_INSIDER": served.url, "INSIDER_OTEL_HOSTS": json.dumps(served.hosts)}
        environ = {**receiver.environ, **where, "SHOP_INSTRUMENTED": instrumented, **more}
        return uvicorn("fastapi_served:app", directory=HERE / "served", environ=environ)

    return serve_with
