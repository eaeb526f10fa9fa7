"""What all calls through one transport or instrumentor share."""

from __future__ import annotations

import random as random_module
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx

from insider_otel.api.classify import classify
from insider_otel.api.operations import Operation, find, hosts
from insider_otel.http.effects import OPTIONS, REDELIVERY
from insider_otel.http.scope import RequestScope
from insider_otel.policy import testing_mode
from insider_otel.policy.call import CallMachine, plan_call
from insider_otel.policy.settings import Events, Mode, Settings, address_error, one_spelling, split_address
from insider_otel.state.opening import shared_state
from insider_otel.telemetry.metrics import observe_outbox, observe_utilization
from insider_otel.telemetry.suppression import is_suppressed
from insider_otel.telemetry.telemetry import NO_TELEMETRY, Telemetry

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider

    from insider_otel.http.deferral import Deferral, Desk
    from insider_otel.http.redelivery import Redelivery
    from insider_otel.outbox.watch import Watch


_DEFAULT_PORTS = {"http": 80, "https": 443}


def _checked(settings: object) -> Settings:
    if not isinstance(settings, Settings):
        raise TypeError(f"settings is a {type(settings).__name__}; it takes Settings(…) of insider_otel")
    return settings


def _host_of(url: httpx.URL) -> bytes:
    """The host of a URL as it is compared: in ASCII, without the dot of the root."""
    host = url.raw_host.removesuffix(b".")
    return one_spelling(host.decode()).encode() if b":" in host else host


class Engine:
    """Settings, telemetry, shared state, clock and chance of all calls through one transport or instrumentor.

    Args:
        settings: The app's settings; read from the environment by default.
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: Where metrics go; the global provider by default.
        logger_provider: Where log-based events go; the global provider by default.
        clock: Returns seconds; only differences matter, but where a limit ends with the UTC day.
        random: Returns a float from 0 up to, but not including, 1.
    """

    __slots__ = ("_addresses", "clock", "desk", "random", "settings", "state", "telemetry", "wall_clock", "watch")

    def __init__(
        self,
        settings: Settings | None = None,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
        clock: Callable[[], float] | None = None,
        random: Callable[[], float] | None = None,
    ) -> None:
        self.settings = Settings.from_env() if settings is None else _checked(settings)
        self.telemetry = Telemetry.to(
            tracer_provider,
            meter_provider,
            logger_provider,
            span_events=self.settings.events is not Events.LOG,
            log_events=self.settings.events is not Events.SPAN,
        )
        self.clock = clock or time.monotonic
        self.random = random or random_module.random
        self.state = shared_state(self.settings.state, clock)
        observe_utilization(meter_provider, self.state)
        self.wall_clock = clock or time.time
        self.desk: Desk | None = None
        self.watch: Watch | None = None
        if self.settings.outbox is not None:
            from insider_otel.http.deferral import Desk  # noqa: PLC0415  (who has no outbox loads none)
            from insider_otel.outbox.watch import watch  # noqa: PLC0415

            self.desk = Desk(self.settings, self.wall_clock)
            self.watch = watch(self.desk.outbox)
            if self.watch.can_tell:
                observe_outbox(meter_provider, self.watch)
        # Read the tables now, and not while the first request waits.
        classify(200)
        self._addresses: dict[bytes, dict[int | None, str]] = {host.encode(): {None: host} for host in hosts()}
        for address, target in self.settings.hosts.items():
            host, port = split_address(address)
            try:
                # Spelt as a request's host is.
                url = httpx.URL(scheme="http", host=host)
            except httpx.InvalidURL:
                raise address_error(address) from None
            self._addresses.setdefault(_host_of(url), {})[port] = target

    def insider_host(self, url: httpx.URL) -> str | None:
        """The Insider host that ``url`` leads to, ``*`` for any of them, or None if it leads elsewhere."""
        ports = self._addresses.get(_host_of(url))
        if ports is None:
            return None
        return ports.get(url.port or _DEFAULT_PORTS.get(url.scheme)) or ports.get(None)

    def operation_of(self, request: httpx.Request) -> Operation | None:
        """The operation that ``request`` calls, or None if it does not go to Insider."""
        target = self.insider_host(request.url)
        return None if target is None else find(request.method, target, request.url.path)

    def telemetry_for(self, request: httpx.Request) -> Telemetry:
        """Where the call's telemetry goes: nowhere if the app suppresses instrumentation or excludes the URL."""
        if is_suppressed():
            return NO_TELEMETRY
        if self.telemetry.excluded is not None and self.telemetry.excluded.search(str(request.url)):
            return NO_TELEMETRY
        return self.telemetry

    @property
    def holds(self) -> bool:
        """Whether limits and duplicates are held: not by an observer, and in tests only where they ask for it."""
        testing = testing_mode.current()
        return self.settings.mode is Mode.ENFORCE and (testing is None or testing.hold)

    def later(self, operation: Operation, request: httpx.Request, body: bytes | None) -> Deferral | Redelivery | None:
        """Where a call goes that is to be sent later; None for nowhere.

        Args:
            operation: The operation called.
            request: The app's request.
            body: Its body; None if it cannot be read twice.

        Raises:
            CannotDefer: What the app asks for the call cannot be understood.
        """
        redelivery: Redelivery | None = request.extensions.get(REDELIVERY)
        if redelivery is not None:
            return redelivery
        if (self.desk is None and OPTIONS not in request.extensions) or not self.holds:
            return None
        from insider_otel.http.deferral import Deferral  # noqa: PLC0415

        return Deferral(self.desk, operation, request, body)

    def machine(
        self,
        operation: Operation,
        *,
        replayable: bool,
        deadline: float | None,
        rate_window: Callable[[], float],
        redelivery: Redelivery | None = None,
    ) -> CallMachine:
        """The machine that decides one call.

        Args:
            operation: The operation called.
            replayable: Whether the body can be sent a second time.
            deadline: Moment on ``clock`` at which the call must be over; None for no bound.
            rate_window: Says how many seconds to wait after "too many requests" that names no moment.
            redelivery: The delivery that it is, of a call that was deferred.
        """
        testing = testing_mode.current()
        plan = plan_call(
            self.settings,
            operation,
            replayable=replayable,
            deadline=deadline,
            limited=self.holds,
            rate_window=rate_window,
            max_attempts=None if testing is None else testing.attempts,
        )
        budget = self.state.budget(operation.host)
        if redelivery is None:
            return CallMachine(plan, budget, self.random)
        from insider_otel.policy.deferral import plan_delivery  # noqa: PLC0415

        job, age = redelivery.job, redelivery.ambiguous_for
        plan = plan_delivery(plan, attempts=job.attempts, deliveries=job.deliveries)
        since = None if age is None else self.clock() - age
        return CallMachine(plan, budget, self.random, attempts=job.attempts, ambiguous_since=since)

    def deadline(self, scope: RequestScope | None, now: float) -> float | None:
        """Moment on ``clock`` at which a call that starts now must be over.

        The request's scope rules where there is one; elsewhere the setting does.

        Args:
            scope: The scope the call is made in.
            now: The present moment on ``clock``.
        """
        if self.settings.mode is Mode.OBSERVE:
            return None
        seconds = scope.remaining if scope is not None else None
        if seconds is None:
            seconds = self.settings.deadline
        return None if seconds is None else now + seconds
