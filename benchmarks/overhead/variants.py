"""What is measured: clients of httpx or httpx2, bare, with the library and with its peers."""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import stamina
from httpx_retries import Retry, RetryTransport
from opentelemetry.instrumentation.httpx import (
    AsyncOpenTelemetryTransport,
    AsyncOpenTelemetryTransportHttpx2,
    SyncOpenTelemetryTransport,
    SyncOpenTelemetryTransportHttpx2,
)

from benchmarks.common.calls import OTHER_URL, UPSERT, headers_of, instant_transport
from benchmarks.common.sdk import SDK
from benchmarks.overhead.telemetry import bare_telemetry
from insider_otel import AsyncInsiderTransport, InsiderTransport, Settings

Send = Callable[[], Any]
"""Makes one call; returns its response, or something to await."""


@dataclass(frozen=True, slots=True)
class World:
    """Where calls are made.

    Attributes:
        family: ``httpx`` or ``httpx2``.
        is_async: Whether the clients are async.
        port: Of a server on 127.0.0.1; None for transports that answer in process.
    """

    family: str
    is_async: bool
    port: int | None = None

    @property
    def module(self) -> Any:
        """The family's module."""
        return importlib.import_module(self.family)

    def transport(self) -> Any:
        """What sends: as httpx would make it, or in process."""
        if self.port is None:
            return instant_transport(self.module)
        return self.module.AsyncHTTPTransport() if self.is_async else self.module.HTTPTransport()

    def url(self, url: str) -> str:
        """A URL, or the same path on the server."""
        return url if self.port is None else str(self.module.URL(url).copy_with(scheme="http", netloc=self._netloc))

    def settings(self, **changes: Any) -> Settings:
        """The default settings, but for the server's address and what is changed."""
        return Settings(hosts={} if self.port is None else {self._netloc.decode(): "*"}, **changes)

    def client(self, transport: Any) -> Any:
        """A client with a transport."""
        return (self.module.AsyncClient if self.is_async else self.module.Client)(transport=transport)

    def insider(self, **options: Any) -> Any:
        """The library's transport around one that sends."""
        options.setdefault("settings", self.settings())
        return (AsyncInsiderTransport if self.is_async else InsiderTransport)(self.transport(), **options)

    def stock(self, **options: Any) -> Any:
        """The stock instrumentation's transport around one that sends."""
        transports = {
            ("httpx", False): SyncOpenTelemetryTransport,
            ("httpx", True): AsyncOpenTelemetryTransport,
            ("httpx2", False): SyncOpenTelemetryTransportHttpx2,
            ("httpx2", True): AsyncOpenTelemetryTransportHttpx2,
        }
        return transports[self.family, self.is_async](self.transport(), **options)

    @property
    def _netloc(self) -> bytes:
        return f"127.0.0.1:{self.port}".encode()


NOTHING_HELD: dict[str, Any] = {"limits": {UPSERT.operation.pool: "off"}, "dedupe": "off"}


def variants(world: World, sdk: SDK) -> dict[str, Send]:
    """Everything that is measured in a world, by name.

    Args:
        world: Where.
        sdk: Where telemetry goes.
    """

    def calls(name: str, transport: Any, url: str = UPSERT.url) -> Send:
        client = world.client(transport)
        return partial(client.post, world.url(url), content=UPSERT.content, headers=headers_of(name))

    def and_telemetry(**providers: Any) -> Send:
        return _after(world, bare_telemetry(**providers), calls("telemetry", world.transport()))

    all_of_them = {
        "bare": calls("bare", world.transport()),
        "sampled": calls("sampled", world.insider(**sdk.recording())),
        "not sampled": calls("not sampled", world.insider(**sdk.dropping())),
        "no SDK": calls("no SDK", world.insider()),
        "sampled, nothing held": calls(
            "sampled, nothing held", world.insider(settings=world.settings(**NOTHING_HELD), **sdk.recording())
        ),
        "no SDK, nothing held": calls("no SDK, nothing held", world.insider(settings=world.settings(**NOTHING_HELD))),
        "telemetry alone, sampled": and_telemetry(**sdk.recording()),
        "telemetry alone, not sampled": and_telemetry(**sdk.dropping()),
        "telemetry alone, no SDK": and_telemetry(),
        # With settings that do not name the server, its address is another host.
        "other host": calls("other host", world.insider(settings=Settings(), **sdk.recording()), OTHER_URL),
        "stock sampled": calls("stock sampled", world.stock(**sdk.recording())),
        "stock not sampled": calls("stock not sampled", world.stock(**sdk.dropping())),
        "stock no SDK": calls("stock no SDK", world.stock()),
        "stock sampled, stamina": _with_stamina(world, calls("stamina", world.stock(**sdk.recording()))),
    }
    if world.family == "httpx":
        # It knows the responses of httpx alone. Without being allowed to repeat a POST it would only pass it on.
        stock = RetryTransport(transport=world.stock(**sdk.recording()), retry=Retry(allowed_methods=["POST"]))
        all_of_them["stock sampled, httpx-retries"] = calls("httpx-retries", stock)
    return all_of_them


def _after(world: World, first: Callable[[], object], send: Send) -> Send:
    """A call, and something else before it."""

    def call() -> Any:
        first()
        return send()

    async def call_async() -> Any:
        first()
        return await send()

    return call_async if world.is_async else call


def _with_stamina(world: World, send: Send) -> Send:
    """With stamina's defaults, as its documentation shows for httpx."""

    @stamina.retry(on=world.module.HTTPError)
    def call() -> Any:
        return send().raise_for_status()

    @stamina.retry(on=world.module.HTTPError)
    async def call_async() -> Any:
        return (await send()).raise_for_status()

    return call_async if world.is_async else call


def check(world: World, sends: dict[str, Send], runner: asyncio.Runner) -> None:
    """Make each call once, and see that it is answered; what a wrong call costs is of no interest.

    Args:
        world: Where.
        sends: The calls.
        runner: Runs the async ones.

    Raises:
        RuntimeError: One is not answered with 200.
    """

    async def awaited(send: Send) -> Any:
        return await send()

    for name, send in sends.items():
        response = runner.run(awaited(send)) if world.is_async else send()
        if response.status_code != 200:
            raise RuntimeError(f"{name}: {response.status_code} {response.text}")
