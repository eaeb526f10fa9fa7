"""InsiderTransport and AsyncInsiderTransport: the two short loops that carry a call's effects out."""

from __future__ import annotations

import sys
import time
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import httpx

from insider_otel.http.attempt import ATTEMPT
from insider_otel.http.closing import Closing
from insider_otel.http.effects import Close, Effect, Effects, Iterate, Keep, NextChunk, Transmit
from insider_otel.http.engine import Engine
from insider_otel.http.exchange import Exchange
from insider_otel.http.family import family_of
from insider_otel.http.performing import keep_async, perform_async
from insider_otel.policy.settings import Settings
from insider_otel.state.dropped import finish_dropped
from insider_otel.state.protocol import Perform

if TYPE_CHECKING:
    import httpx2
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    # To a type checker our transports belong to both families; at run time httpx2 need not be there.
    class _BaseTransport(httpx.BaseTransport, httpx2.BaseTransport):
        def handle_request(self, request: Any) -> Any: ...

    class _AsyncBaseTransport(httpx.AsyncBaseTransport, httpx2.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any: ...

else:
    _BaseTransport = httpx.BaseTransport
    _AsyncBaseTransport = httpx.AsyncBaseTransport


def _exchange(engine: Engine, request: Any, closing: Closing) -> Effects[Any] | None:
    """The course of the call that ``request`` makes; None if it is not for us."""
    if ATTEMPT in request.extensions:
        return None
    operation = engine.operation_of(request)
    if operation is None:
        return None
    finish_dropped()
    return Exchange(engine, family_of(request), request, operation, closing.begin()).run()


def _check(transport: Any, sends: str, other: str) -> None:
    """Refuse what cannot send here, before the first request does."""
    if not hasattr(transport, sends):
        is_one = any(hasattr(transport, each) for each in _SENDING)
        remedy = f"for this one take {other}" if is_one else "give it what sends, such as httpx.HTTPTransport()"
        raise TypeError(f"transport is {transport!r:.100}, which has no {sends}; {remedy}")


class _WrappedBelow:
    """Lets whoever wraps a transport of ours from outside wrap the transport below it instead.

    ``HTTPXClientInstrumentor.instrument_client`` puts a wrapper on a client's transport, which would be a second CLIENT
    span above each of our calls. One floor down it traces the requests to other hosts and is silent under our attempts.
    """

    _engine: Engine
    _transport: Any

    @property
    def engine(self) -> Engine:
        """What its calls share."""
        return self._engine

    @property
    def inner(self) -> Any:
        """The transport below, which sends."""
        return self._transport

    def __setattr__(self, name: str, value: Any) -> None:
        if name in _SENDING:
            value = self._wrapped_below(name, value)
        super().__setattr__(name, value)

    def _wrapped_below(self, name: str, value: Any) -> Any:
        """Do to the transport below what is done to this one; returns what is found here afterwards."""
        below = getattr(self._transport, name)
        here: Any = vars(self).get(name)
        # Who wraps has it loaded. No hasattr: a mock has whatever it is asked for.
        wrapt = sys.modules.get("wrapt")
        if wrapt is not None and isinstance(value, wrapt.FunctionWrapper):
            setattr(self._transport, name, wrapt.FunctionWrapper(below, value._self_wrapper))
            # It does nothing, and is what ``uninstrument_client`` looks for.
            return wrapt.CallableObjectProxy(value.__wrapped__)
        if hasattr(here, "__wrapped__") and value is here.__wrapped__:
            setattr(self._transport, name, below.__wrapped__)
        return value


_SENDING = frozenset({"handle_request", "handle_async_request"})


class EngineTransport(_WrappedBelow, _BaseTransport):
    """A transport whose engine is given: what the instrumentor puts in front of a client's own transport.

    Args:
        engine: What its calls share with others.
        transport: What sends.
        sleep: Sleeps for a number of seconds.
        client: The client that it is made for and that will not close it; None for the client's own transport.
    """

    def __init__(
        self, engine: Engine, transport: Any, sleep: Callable[[float], object] = time.sleep, client: Any = None
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._sleep = sleep
        self._closing = Closing(client)

    def handle_request(self, request: Any) -> Any:
        """Send ``request``, as often as it takes and is allowed."""
        effects = _exchange(self._engine, request, self._closing)
        if effects is None:
            return self._transport.handle_request(request)
        return self._drive(effects)

    def _drive(self, effects: Effects[Any]) -> Any:
        result: Any = None
        try:
            effect = next(effects)
            while True:
                try:
                    brought = self._carry_out(effect)
                except BaseException as exc:
                    effect = effects.throw(exc)
                else:
                    effect = effects.send(brought)
        except StopIteration as done:
            result = done.value
        try:
            if isinstance(result, Exception):
                raise result
            return result
        finally:
            # The exception's traceback holds this frame; holding the exception, or a response whose body ends in it,
            # in turn would make a cycle.
            del result

    def _carry_out(self, effect: Effect) -> Any:
        # Asked for one by one: class patterns with something in them take four times as long.
        if isinstance(effect, NextChunk):
            return next(effect.iterator, None)
        if isinstance(effect, Perform):
            effect.reply = effect.store.perform(effect.request)
            return effect.reply
        if isinstance(effect, Transmit):
            return self._transport.handle_request(effect.request)
        if isinstance(effect, Iterate):
            return iter(effect.stream)
        if isinstance(effect, Close):
            return effect.stream.close()
        if isinstance(effect, Keep):
            job = effect.make()
            effect.outbox.put(job)
            return job
        return self._sleep(effect.seconds)

    def __enter__(self) -> Self:
        self._closing.enter()
        self._transport.__enter__()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._closing.leave()
        self._transport.__exit__(exc_type, exc_value, traceback)

    def close(self) -> None:
        """Close the wrapped transport. Calls that wait send nothing any more."""
        self._closing.close()
        finish_dropped()
        self._transport.close()


class InsiderTransport(EngineTransport):
    """Wraps a transport of httpx or httpx2, and makes each Insider call that passes one honest trace.

    Requests to other hosts pass untouched.

        client = httpx.Client(transport=InsiderTransport(httpx.HTTPTransport()))

    Args:
        transport: What sends.
        settings: The app's settings; read from the ``INSIDER_OTEL_*`` variables by default.
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: Where metrics go; the global provider by default.
        logger_provider: Where log-based events go; the global provider by default.
        clock: Returns seconds; only differences matter. A transport with a clock of its own shares nothing with others.
        sleep: Sleeps for a number of seconds.
        random: Returns a float from 0 up to, but not including, 1.

    Raises:
        TypeError: ``transport`` sends for the other kind of client.
        SettingsError: An ``INSIDER_OTEL_*`` variable cannot be used, or the store that ``state`` names never can.
        ImportError: That store needs a package that is not installed.
    """

    def __init__(
        self,
        transport: httpx.BaseTransport | httpx2.BaseTransport,
        *,
        settings: Settings | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], object] = time.sleep,
        random: Callable[[], float] | None = None,
    ) -> None:
        _check(transport, "handle_request", "AsyncInsiderTransport, in an AsyncClient")
        engine = Engine(
            settings,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            logger_provider=logger_provider,
            clock=clock,
            random=random,
        )
        super().__init__(engine, transport, sleep)


async def _sleep(seconds: float) -> None:
    """Sleep in whatever event loop runs: anyio, which httpx is built on, knows which."""
    from anyio import sleep  # noqa: PLC0415  (sync clients need no anyio)

    await sleep(seconds)


class AsyncEngineTransport(_WrappedBelow, _AsyncBaseTransport):
    """``EngineTransport`` for async clients.

    Args:
        engine: What its calls share with others.
        transport: What sends.
        sleep: Sleeps for a number of seconds, and is awaited.
        client: As for ``EngineTransport``.
    """

    def __init__(
        self,
        engine: Engine,
        transport: Any,
        sleep: Callable[[float], Awaitable[object]] = _sleep,
        client: Any = None,
    ) -> None:
        self._engine = engine
        self._transport = transport
        self._sleep = sleep
        self._closing = Closing(client)

    async def handle_async_request(self, request: Any) -> Any:
        """Send ``request``, as often as it takes and is allowed."""
        effects = _exchange(self._engine, request, self._closing)
        if effects is None:
            return await self._transport.handle_async_request(request)
        return await self._drive(effects)

    async def _drive(self, effects: Effects[Any]) -> Any:
        result: Any = None
        try:
            effect = next(effects)
            while True:
                try:
                    brought = await self._carry_out(effect)
                except BaseException as exc:
                    effect = effects.throw(exc)
                else:
                    effect = effects.send(brought)
        except StopIteration as done:
            result = done.value
        try:
            if isinstance(result, Exception):
                raise result
            return result
        finally:
            # The exception's traceback holds this frame; holding the exception, or a response whose body ends in it,
            # in turn would make a cycle.
            del result

    async def _carry_out(self, effect: Effect) -> Any:
        if isinstance(effect, NextChunk):
            return await anext(effect.iterator, None)
        if isinstance(effect, Perform):
            return await perform_async(effect)
        if isinstance(effect, Transmit):
            return await self._transport.handle_async_request(effect.request)
        if isinstance(effect, Iterate):
            return aiter(effect.stream)
        if isinstance(effect, Close):
            return await effect.stream.aclose()
        if isinstance(effect, Keep):
            return await keep_async(effect)
        return await self._sleep(effect.seconds)

    async def __aenter__(self) -> Self:
        self._closing.enter()
        await self._transport.__aenter__()
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None = None,
        exc_value: BaseException | None = None,
        traceback: TracebackType | None = None,
    ) -> None:
        self._closing.leave()
        await self._transport.__aexit__(exc_type, exc_value, traceback)

    async def aclose(self) -> None:
        """Close the wrapped transport. Calls that wait send nothing any more."""
        self._closing.close()
        finish_dropped()
        await self._transport.aclose()


class AsyncInsiderTransport(AsyncEngineTransport):
    """``InsiderTransport`` for async clients, in asyncio and trio.

        client = httpx.AsyncClient(transport=AsyncInsiderTransport(httpx.AsyncHTTPTransport()))

    Args:
        transport: What sends.
        settings: As for ``InsiderTransport``, and so are the providers, ``clock`` and ``random``.
        tracer_provider: Where spans go.
        meter_provider: Where metrics go.
        logger_provider: Where log-based events go.
        clock: Returns seconds.
        sleep: Sleeps for a number of seconds, and is awaited.
        random: Returns a float.

    Raises:
        TypeError: ``transport`` sends for the other kind of client.
        SettingsError: An ``INSIDER_OTEL_*`` variable cannot be used, or the store that ``state`` names never can.
        ImportError: That store needs a package that is not installed.
    """

    def __init__(
        self,
        transport: httpx.AsyncBaseTransport | httpx2.AsyncBaseTransport,
        *,
        settings: Settings | None = None,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        clock: Callable[[], float] | None = None,
        sleep: Callable[[float], Awaitable[object]] = _sleep,
        random: Callable[[], float] | None = None,
    ) -> None:
        _check(transport, "handle_async_request", "InsiderTransport, in a Client")
        engine = Engine(
            settings,
            tracer_provider=tracer_provider,
            meter_provider=meter_provider,
            logger_provider=logger_provider,
            clock=clock,
            random=random,
        )
        super().__init__(engine, transport, sleep)
