"""One web app's use of the library: what its adapter opens at the start, and for each request."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import httpx

from insider_otel.http.engine import Engine
from insider_otel.http.instrumentor import InsiderInstrumentor
from insider_otel.http.scope import RequestScope, open_scope
from insider_otel.telemetry.server_span import watch_server_spans
from insider_otel.web.clients import Clients
from insider_otel.web.failures import Failure, failure_of
from insider_otel.web.options import WebOptions

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


class WebApp:
    """One web app's use of the library.

    Args:
        options: Its options.
        module: The httpx its clients are of: ``httpx`` or ``httpx2``.
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: Where metrics go; the global provider by default.
        logger_provider: Where log-based events go; the global provider by default.

    Attributes:
        options: Its options.
        clients: Its clients.
    """

    def __init__(
        self,
        options: WebOptions,
        *,
        module: ModuleType = httpx,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        self.options = options
        providers = {
            "tracer_provider": tracer_provider,
            "meter_provider": meter_provider,
            "logger_provider": logger_provider,
        }
        self.engine = Engine(
            options.settings,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            logger_provider=logger_provider,
        )
        self.clients = Clients(self.engine, module)
        watch_server_spans()
        instrumentor = InsiderInstrumentor()
        # The first app of a process decides for the clients that are not an adapter's.
        self._instruments = options.instrument and not instrumentor.is_instrumented_by_opentelemetry
        if self._instruments:
            instrumentor.instrument(settings=options.settings, **providers)

    def open_scope(self) -> RequestScope:
        """A scope for a request that begins now."""
        return open_scope(self.options.request_deadline)

    def close(self) -> None:
        """Close the process's client and put back what the app changed in the process: it is to be made anew."""
        self.clients.close()
        instrumentor = InsiderInstrumentor()
        if self._instruments and instrumentor.is_instrumented_by_opentelemetry:
            instrumentor.uninstrument()
        self._instruments = False

    def failure_of(self, error: BaseException) -> Failure | None:
        """The HTTP answer for an exception that left a view; None if it is not to be answered here."""
        return failure_of(error) if self.options.error_responses else None
