"""InsiderInstrumentor: every httpx and httpx2 client of the process, Insider hosts only."""

from __future__ import annotations

import importlib
import importlib.util
import logging
import threading
from collections.abc import Callable, Collection, Iterator
from dataclasses import fields, replace
from typing import Any, ClassVar, cast

from opentelemetry.instrumentation.instrumentor import BaseInstrumentor  # type: ignore[attr-defined]
from opentelemetry.instrumentation.utils import unwrap
from wrapt import wrap_function_wrapper

from insider_otel.api.operations import hosts
from insider_otel.http.engine import Engine
from insider_otel.http.family import NAMES
from insider_otel.http.transport import AsyncEngineTransport, AsyncInsiderTransport, EngineTransport, InsiderTransport
from insider_otel.policy.settings import Mode, Settings

_log = logging.getLogger("insider_otel")

# The one place in a client that every request passes and that lies above whatever transport the client uses. The stock
# instrumentations wrap transports, so they are always below us, whoever came first.
_WRAPPED = "_transport_for_url"
_KEYWORDS = frozenset({"settings", "tracer_provider", "meter_provider", "logger_provider"})
_TRANSPORTS = {"Client": EngineTransport, "AsyncClient": AsyncEngineTransport}


class _Installed:
    """The engines of the instrumentors that are on. The clients use the one that came last."""

    engines: ClassVar[dict[type, Engine]] = {}
    active: ClassVar[Engine | None] = None
    lock: ClassVar[threading.RLock] = threading.RLock()

    @classmethod
    def choose(cls) -> None:
        cls.active = next(reversed(cls.engines.values()), None)


def _clients() -> Iterator[tuple[type, Any]]:
    """Every client class there is, with the transport of ours that fits it."""
    for name in NAMES:
        if importlib.util.find_spec(name) is None:
            continue
        module = importlib.import_module(name)
        for client_name, transport_class in _TRANSPORTS.items():
            client_class = getattr(module, client_name)
            if not hasattr(client_class, _WRAPPED):
                raise RuntimeError(
                    f"{name} {getattr(module, '__version__', '')} has no {client_name}.{_WRAPPED}, which insider-otel "
                    f"instruments; install an earlier {name}, or pass InsiderTransport to each client"
                )
            yield client_class, transport_class


def _wrapper(transport_class: Any) -> Callable[..., Any]:
    def transport_for_url(wrapped: Callable[..., Any], client: Any, args: Any, kwargs: Any) -> Any:
        transport = wrapped(*args, **kwargs)
        engine = _Installed.active
        # The last one: mocks of httpx call what they found in the class, and give it the client first.
        if engine is None or engine.insider_host(kwargs["url"] if kwargs else args[-1]) is None:
            return transport
        if isinstance(transport, transport_class):
            return transport
        return transport_class(engine, transport, client=client)

    return transport_for_url


def cover_client(client: Any, engine: Engine) -> None:
    """Let the calls of one client be calls of an engine, whatever the instrumentor does for the others.

    The client keeps its transports, its mounts and the proxies of its environment.

    Args:
        client: A client of httpx or httpx2, sync or async.
        engine: The engine.
    """
    transport_class = _TRANSPORTS["AsyncClient" if hasattr(client, "aclose") else "Client"]
    client_class = cast("Any", type(client))

    def transport_for_url(url: Any) -> Any:
        # Looked up each time: a test that comes later may put a mock into the class.
        transport = getattr(client_class, _WRAPPED)(client, url)
        if engine.insider_host(url) is None or isinstance(transport, InsiderTransport | AsyncInsiderTransport):
            return transport
        if type(transport) is transport_class:
            # The instrumentor's, put there a moment ago.
            transport = transport.inner
        return transport_class(engine, transport, client=client)

    setattr(client, _WRAPPED, transport_for_url)


def engine_of(client: Any) -> Engine | None:
    """The engine of a client's calls to Insider; None if they are not covered.

    Args:
        client: A client of httpx or httpx2, sync or async.
    """
    request = client.build_request("GET", f"https://{next(iter(hosts()))}/")
    transport = getattr(client, _WRAPPED)(request.url)
    return transport.engine if isinstance(transport, EngineTransport | AsyncEngineTransport) else None


def leads_past(client: Any, url: Any) -> bool:
    """Whether a request certainly does not come to insider-otel. A transport of the app's own may still pass it on.

    Args:
        client: A client of httpx or httpx2, sync or async.
        url: The request's URL.
    """
    transport = getattr(client, _WRAPPED)(url)
    if isinstance(transport, EngineTransport | AsyncEngineTransport):
        return transport.engine.insider_host(url) is None
    return type(transport).__module__.partition(".")[0] in NAMES


class InsiderInstrumentor(BaseInstrumentor):  # type: ignore[misc]
    """Instruments every httpx and httpx2 client of the process, made before or after; requests to other hosts pass.

        InsiderInstrumentor().instrument()

    ``instrument`` takes these keywords:

    * ``settings``: the app's ``Settings``; read from the ``INSIDER_OTEL_*`` variables by default.
    * ``tracer_provider``, ``meter_provider``, ``logger_provider``: where telemetry goes; the global ones by default.

    It composes with ``HTTPXClientInstrumentor`` and ``HTTPX2ClientInstrumentor`` in any order: they trace the requests
    to other hosts, and stay silent under ours.
    """

    _instance = None
    _default_mode = Mode.ENFORCE

    def instrumentation_dependencies(self) -> Collection[str]:
        """The range of httpx that is supported."""
        return ("httpx >= 0.27, < 1",)

    def instrument(self, **kwargs: Any) -> None:
        """Turn it on; see the class for the keywords. Turned on already, it stays as it is and logs a warning."""
        with _Installed.lock:
            super().instrument(**kwargs)

    def uninstrument(self, **kwargs: Any) -> None:
        """Turn it off: the clients are as they were."""
        with _Installed.lock:
            super().uninstrument(**kwargs)

    def _instrument(self, **kwargs: Any) -> None:
        for name in sorted(kwargs.keys() - _KEYWORDS):
            if name in {field.name for field in fields(Settings)}:
                raise TypeError(f"{name} is a setting: instrument(settings=Settings({name}=…))")
            raise TypeError(f"instrument() has no keyword {name}; there are: {', '.join(sorted(_KEYWORDS))}")
        settings = kwargs.get("settings")
        engine = Engine(
            self._settings() if settings is None else settings,
            tracer_provider=kwargs.get("tracer_provider"),
            meter_provider=kwargs.get("meter_provider"),
            logger_provider=kwargs.get("logger_provider"),
        )
        if not _Installed.engines:
            for client_class, transport_class in list(_clients()):
                wrap_function_wrapper(client_class, _WRAPPED, _wrapper(transport_class))
        _Installed.engines[type(self)] = engine
        _Installed.choose()

    def _settings(self) -> Settings:
        return Settings.from_env(mode=self._default_mode)

    def _uninstrument(self, **kwargs: Any) -> None:
        del _Installed.engines[type(self)]
        _Installed.choose()
        if not _Installed.engines:
            for client_class, _ in _clients():
                unwrap(client_class, _WRAPPED)


class ZeroCodeInstrumentor(InsiderInstrumentor):
    """What ``opentelemetry-instrument`` turns on: it observes.

    An instrumentation must not change what an app does unasked. ``INSIDER_OTEL_MODE=enforce``, or calling
    ``InsiderInstrumentor().instrument()`` in code, turns the policies on.
    """

    _instance = None
    _default_mode = Mode.OBSERVE

    def instrument(self, **kwargs: Any) -> None:
        """Turn it on; with settings that cannot be used it stays off and logs an error.

        An exception would end the start of the command, and the app would lose all its other instrumentations too.
        """
        try:
            super().instrument(**kwargs)
        except (ImportError, RuntimeError, ValueError) as error:
            _log.error("calls to Insider are not traced: %s", error)

    def _instrument(self, **kwargs: Any) -> None:
        # A distribution of OpenTelemetry may give to all instrumentations what only some of them know.
        super()._instrument(**{name: value for name, value in kwargs.items() if name in _KEYWORDS})

    def _settings(self) -> Settings:
        settings = super()._settings()
        if settings.mode is Mode.ENFORCE:
            return settings
        # Who observes uses neither; what is amiss with them, or is there only later, in code, does not matter.
        return replace(settings, state="memory://", outbox=None)
