"""A fake in process, asked through every kind of client."""

from __future__ import annotations

from collections.abc import Callable
from types import ModuleType
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from insider_otel.testing import FakeClock, FakeInsider, sample_request

Ask = Callable[..., Any]
"""Calls an operation with its sample request, or with another body, and returns the response."""


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def fake(clock: FakeClock) -> FakeInsider:
    return FakeInsider(clock=clock)


@pytest.fixture
def ask(fake: FakeInsider) -> Ask:
    return asking(fake)


def asking(fake: FakeInsider) -> Ask:
    """What asks ``fake``, in process."""

    def ask(
        operation: str, json: Any = None, *, headers: dict[str, str] | None = None, **options: Any
    ) -> httpx.Response:
        sample = sample_request(operation, json)
        with httpx.Client(transport=fake.transport()) as client:
            sent = sample.headers if headers is None else headers
            content = options.pop("content", sample.content)
            return client.request(sample.method, sample.url, headers=sent, content=content, **options)

    return ask


@pytest.fixture(params=[httpx, httpx2], ids=["httpx", "httpx2"])
def family(request: pytest.FixtureRequest) -> ModuleType:
    """httpx and its fork: the same promises for both."""
    module: ModuleType = request.param
    return module


@pytest.fixture(params=["sync", "asyncio", "trio"])
def send(request: pytest.FixtureRequest, family: ModuleType) -> Callable[..., Any]:
    """Sends one request with a client of its own: sync, and async on both event loops.

    ``send(sample, transport=…, timeout=…)`` returns the response, read.
    """
    if request.param == "sync":

        def send_sync(sample: Any, **options: Any) -> Any:
            with family.Client(**options) as client:
                return client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)

        return send_sync

    def send_async(sample: Any, **options: Any) -> Any:
        async def run() -> Any:
            async with family.AsyncClient(**options) as client:
                return await client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)

        return anyio.run(run, backend=request.param)

    return send_async
