"""One web app's use of the library: what its adapter opens at the start, and for each request."""

from __future__ import annotations

import logging
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from types import ModuleType
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import httpx

from insider_otel.http.engine import Engine
from insider_otel.http.instrumentor import InsiderInstrumentor
from insider_otel.http.scope import RequestScope, open_scope
from insider_otel.telemetry.server_span import watch_server_spans
from insider_otel.web.clients import Clients
from insider_otel.web.delivering import OutboxWorker
from insider_otel.web.failures import Failure, failure_of, own_errors
from insider_otel.web.options import WebOptions

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


_log = logging.getLogger("insider_otel.web")


class Providers(TypedDict, total=False):
    """Where spans, metrics and log-based events go; to the global providers by default."""

    tracer_provider: TracerProvider | None
    meter_provider: MeterProvider | None
    logger_provider: LoggerProvider | None


class WebApp:
    """One web app's use of the library.

    Its worker, if it has one, is stopped and its clients are closed when it is forgotten, and with the process.

    Args:
        options: Its options.
        module: The httpx its clients are of, unless another is asked for: ``httpx`` or ``httpx2``.
        prepare_async: What is done with each async client of its own before it is used.
        **providers: Where telemetry goes: ``tracer_provider``, ``meter_provider``, ``logger_provider``.

    Raises:
        StoreError: The store of limits can never be used.
        ImportError: The store of limits needs a package that is not installed.
    """

    def __init__(
        self,
        options: WebOptions,
        *,
        module: ModuleType = httpx,
        prepare_async: Callable[[Any], None] | None = None,
        **providers: Unpack[Providers],
    ) -> None:
        self.options = options
        self._engine = Engine(options.settings, **providers)
        self._module = module
        self._prepare_async = prepare_async
        self._transport: Any = None
        self._clients: dict[str, Clients] = {}
        this: Callable[[], WebApp | None] = weakref.ref(self)
        self._worker = OutboxWorker(self._engine, lambda: _client_of(this), wanted=options.outbox_worker)
        weakref.finalize(self, _shut, self._worker, self._clients)
        # Those of its own httpx are prepared now, before any visitor waits for them.
        self.clients()
        watch_server_spans()
        instrumentor = InsiderInstrumentor()
        # The first app of a process decides for the clients that are not an adapter's.
        self._instruments = options.instrument and not instrumentor.is_instrumented_by_opentelemetry
        if self._instruments:
            instrumentor.instrument(settings=options.settings, **providers)

    def open_scope(self) -> RequestScope:
        """A scope for a request that begins now."""
        self.start_worker()
        return open_scope(self.options.request_deadline)

    def start_worker(self) -> None:
        """Have a thread of this process send what is in the outbox, if there is one and nobody else does it.

        Each request asks for it, so that it is there in whatever process serves, and after a fork.
        """
        self._worker.start()

    def failure_of(self, error: BaseException) -> Failure | None:
        """The HTTP answer for an exception that left a view; None if it is not to be answered here.

        What it hides and the library itself said goes to the log: nobody would see it otherwise.
        """
        failure = failure_of(error) if self.options.error_responses else None
        if failure is not None:
            for own in own_errors(error):
                _log.error("a call to Insider failed, and its visitor is answered with %d: %s", failure.status, own)
        return failure

    def clients(self, module: ModuleType | None = None) -> Clients:
        """Its clients.

        Args:
            module: The httpx they are of, if not the app's own.
        """
        module = module or self._module
        clients = self._clients.get(module.__name__)
        if clients is None:
            new = Clients(self._engine, module, transport=self._transport, prepare_async=self._prepare_async)
            # Two threads may come here at once.
            clients = self._clients.setdefault(module.__name__, new)
        return clients

    @property
    def is_overridden(self) -> bool:
        """Whether its clients send to a fake Insider, in tests."""
        return self._transport is not None

    @contextmanager
    def override(self, fake: Any) -> Generator[None]:
        """Let the clients send to a fake Insider, in tests; those of the network are back afterwards.

        Args:
            fake: A ``FakeInsider``, or a transport for sync clients, async ones or both.
        """
        before = self._transport, self._clients
        self.replace_network(fake)
        try:
            yield
        finally:
            # What it has not sent to the fake is not to go to the network instead.
            self._worker.stop()
            _close(self._clients)
            self._transport, self._clients = before

    def replace_network(self, fake: Any) -> None:
        """Let the clients send to a fake Insider from now on, in tests.

        This process forgets what was sent before: one test's mail does not hold another's back as its duplicate.

        Args:
            fake: A ``FakeInsider``, or a transport for sync clients, async ones or both.
        """
        self._engine.state.forget()
        self._transport = fake.transport() if callable(getattr(fake, "transport", None)) else fake
        self._clients = {}

    async def close_clients(self) -> None:
        """Stop the worker, and close the clients of the running loop and of the process.

        They begin again if they are used again.
        """
        if self._worker.is_alive:
            from anyio import to_thread  # noqa: PLC0415  (sync apps need no anyio)

            await to_thread.run_sync(self._worker.stop)
        for clients in list(self._clients.values()):
            await clients.aclose()
        _close(self._clients)

    def close(self) -> None:
        """Stop the worker, close the clients, put back what the app changed in the process: it is to be made anew."""
        _shut(self._worker, self._clients)
        instrumentor = InsiderInstrumentor()
        if self._instruments and instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
        self._instruments = False


def _client_of(this: Callable[[], WebApp | None]) -> Any:
    app = this()
    if app is None:
        raise RuntimeError("the app is no more")
    return app.clients().client()


def _shut(worker: OutboxWorker, families: dict[str, Clients]) -> None:
    worker.stop()
    _close(families)


def _close(families: dict[str, Clients]) -> None:
    for clients in list(families.values()):
        clients.close()
