"""Handing a call over to the outbox: what an app asks of it, and what is kept."""

from __future__ import annotations

import hashlib
import logging
import os
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from insider_otel.api.operations import Operation, operations
from insider_otel.http.effects import OPTIONS, Effects, Keep
from insider_otel.outbox.content import CannotDefer, Codec, credentials_in, pack
from insider_otel.outbox.credentials import from_environment, provide, variable_of
from insider_otel.outbox.job import Job, verdict_to_keep
from insider_otel.outbox.opening import open_outbox
from insider_otel.outbox.protocol import Outbox, OutboxError
from insider_otel.policy.outbox_url import OutboxURL
from insider_otel.policy.setting_checks import CREDENTIALS_PREFIX, SettingsError
from insider_otel.policy.settings import Settings
from insider_otel.policy.steps import Progress
from insider_otel.state.credential import Credentials

if TYPE_CHECKING:
    import httpx

_TRACE_CONTEXT = TraceContextTextMapPropagator()
_log = logging.getLogger("insider_otel.outbox")


@dataclass(frozen=True, slots=True)
class CallOptions:
    """What an app asks for one call, in ``extensions={"insider": {…}}``.

    Attributes:
        defer: Whether it is to be sent later in any case.
        ordering_key: What it is to be kept in order by, for instance a user's identifier: calls with the same key go
            through the outbox, one after another.
        account: The app's own name for the account whose credentials it carries, where it has several.
    """

    defer: bool = False
    ordering_key: str | None = None
    account: str | None = None

    @property
    def wants_outbox(self) -> bool:
        """Whether the call is not to be sent at once."""
        return self.defer or self.ordering_key is not None


_NO_OPTIONS = CallOptions()


def options_of(request: httpx.Request) -> CallOptions:
    """What the app asks for a call.

    Args:
        request: Its request.

    Raises:
        CannotDefer: It cannot be understood.
    """
    given: Any = request.extensions.get(OPTIONS)
    if given is None:
        return _NO_OPTIONS
    names = [each.name for each in fields(CallOptions)]
    if not isinstance(given, Mapping) or not set(cast("Mapping[object, object]", given)) <= set(names):
        raise CannotDefer(f'extensions["insider"] is a mapping with some of {", ".join(names)}')
    options = CallOptions(**cast("Mapping[str, Any]", given))
    if not isinstance(options.defer, bool):
        raise CannotDefer('extensions["insider"]["defer"] is True or False')
    for name in ("ordering_key", "account"):
        value = getattr(options, name)
        if value is not None and (not isinstance(value, str) or not value):
            raise CannotDefer(f'extensions["insider"]["{name}"] is text, or None')
    return options


class Desk:
    """Takes calls for the outbox; one for each engine whose settings name one.

    Args:
        settings: The app's settings.
        wall_clock: Returns seconds since 1970.

    Raises:
        SettingsError: The outbox can never be used, or there are no credentials to send with later.
        ImportError: It needs a package that is not installed.
    """

    __slots__ = ("_complained", "_settings", "codec", "outbox", "url", "wall_clock")

    def __init__(self, settings: Settings, wall_clock: Callable[[], float]) -> None:
        assert settings.outbox is not None, "who has no outbox needs no desk"
        self._settings = settings
        self._complained: set[str] = set()
        self.wall_clock = wall_clock
        self.url = OutboxURL.parse(settings.outbox)
        _check_credentials(settings)
        self.codec = Codec(tuple((settings.outbox_key or "").split(",")) if settings.outbox_key else ())
        self.outbox: Outbox = open_outbox(self.url)

    def job(
        self,
        operation: Operation,
        request: httpx.Request,
        body: bytes | None,
        options: CallOptions,
        progress: Progress,
        context: Context,
    ) -> Job:
        """What is to be kept of a call.

        Args:
            operation: The operation called.
            request: The app's request.
            body: Its body; None if it cannot be read twice.
            options: What the app asked for it.
            progress: How far it has come.
            context: Holds the call's span.

        Raises:
            CannotDefer: It cannot be sent later, and why.
        """
        if not operation.deferrable:
            raise CannotDefer(
                f"{operation.name} cannot be deferred: somebody waits for its answer, or nobody knows what it does "
                "(`insider-otel operations` lists those that can)"
            )
        if body is None:
            raise CannotDefer(
                f"{operation.name} cannot be deferred: its body is a stream, which is sent once; send bytes"
            )
        try:
            sent = credentials_in(operation, request.headers, body)
            later = provide(self._settings.credentials, operation, options.account, sent)
            if sent != later:
                raise CannotDefer(_OTHER_CREDENTIALS)  # noqa: TRY301
            parcel = pack(
                method=request.method,
                url=str(request.url),
                headers=request.headers.multi_items(),
                body=body,
                credentials=sent,
            )
        except (CannotDefer, LookupError, SettingsError) as error:
            raise CannotDefer(f"{operation.name} cannot be deferred: {error.args[0]}") from None
        now = self.wall_clock()
        carrier: dict[str, str] = {}
        # Not the baggage, which may hold whatever the app put there.
        _TRACE_CONTEXT.inject(carrier, context)
        return Job(
            id=uuid.uuid4().hex,
            operation=operation.name,
            product=operation.product,
            pool=operation.pool,
            content=self.codec.encode(parcel),
            account=options.account,
            line=_line(options.ordering_key, Credentials(operation, request.headers, body)),
            context=carrier,
            created=now,
            due=now + progress.wait,
            expires=now + self._settings.outbox_horizon,
            attempts=progress.attempts,
            ambiguous_since=None if progress.ambiguous_for is None else now - progress.ambiguous_for,
            verdict=verdict_to_keep(progress.verdict),
        )

    def complain(self, subject: str, error: Exception) -> None:
        """Say in the log, once for each operation, why calls are not deferred that could be."""
        text = f"a call of {subject} was not deferred: {error}"
        if text not in self._complained:
            self._complained.add(text)
            _log.warning("%s", text)


class Deferral:
    """One call's way into the outbox.

    Args:
        desk: What takes it; None if the app has no outbox.
        operation: The operation called.
        request: The app's request.
        body: Its body; None if it cannot be read twice.
    """

    __slots__ = ("_body", "_desk", "_operation", "_options", "_request", "is_wanted")

    def __init__(self, desk: Desk | None, operation: Operation, request: httpx.Request, body: bytes | None) -> None:
        self._desk = desk
        self._operation = operation
        self._request = request
        self._body = body
        self._options = options_of(request)
        self.is_wanted = self._options.wants_outbox
        """Whether the app asked for it: the call is not to be sent at once."""

    def keep(self, context: Context, progress: Progress) -> Effects[str | None]:
        """Keep the call for later.

        Args:
            context: Holds the call's span.
            progress: How far it has come.

        Returns:
            The name of the job; None if it is not kept, and the call ends as it would without an outbox.

        Raises:
            CannotDefer: The app asked for it, and it cannot be.
            OutboxError: The app asked for it, and the outbox is in trouble.
        """
        desk, wanted = self._desk, self.is_wanted
        if desk is None:
            if wanted:
                raise CannotDefer("there is no outbox: set Settings(outbox=…), or INSIDER_OTEL_OUTBOX")
            return None
        if not wanted and not self._operation.deferrable:
            return None
        try:
            job = desk.job(self._operation, self._request, self._body, self._options, progress, context)
            yield Keep(desk.outbox, job)
        except (CannotDefer, OutboxError) as error:
            if wanted:
                raise
            desk.complain(self._operation.name, error)
            return None
        return job.id


_OTHER_CREDENTIALS = (
    "the credentials that would be put back are not those it carries. Where the app has several accounts, name this "
    'one, for Settings.credentials to be asked for it: extensions={"insider": {"account": …}}'
)


def _line(key: str | None, credentials: Credentials) -> str | None:
    """A hash of an ordering key that nobody who reads the outbox can find by trying."""
    if key is None:
        return None
    secret = credentials.content_secret() or b""
    return hashlib.blake2b(key.encode("utf-8", "surrogatepass"), key=secret, digest_size=16).hexdigest()


def _check_credentials(settings: Settings) -> None:
    """Refuse, at the start, an outbox whose calls could never be sent."""
    if settings.credentials is not None:
        return
    variables = {name for name in os.environ if name.startswith(CREDENTIALS_PREFIX)}
    if not variables:
        raise SettingsError(
            "outbox needs the credentials to send deferred calls with, for they are never stored: set "
            f"Settings(credentials=…), or {CREDENTIALS_PREFIX}<PRODUCT>, such as "
            f'{variable_of("mail", None)}=\'{{"X-INS-AUTH-KEY": "…"}}\''
        )
    by_product = {operation.product.upper(): operation for operation in operations()}
    for variable in sorted(variables):
        product, _, account = variable.removeprefix(CREDENTIALS_PREFIX).partition("__")
        operation = by_product.get(product)
        if operation is None:
            raise SettingsError(f"{variable} names no product of Insider's; there are: {', '.join(sorted(by_product))}")
        from_environment(operation, account or None)
