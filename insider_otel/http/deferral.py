"""Handing a call over to the outbox: what an app asks of it, and what is kept."""

from __future__ import annotations

import hashlib
import logging
import os
import re
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, cast

from opentelemetry.context import Context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from insider_otel.api.operations import Operation, operations
from insider_otel.http.effects import OPTIONS, Effects, Keep
from insider_otel.outbox.content import KEPT_HEADERS, CannotDefer, Codec, credentials_in, pack
from insider_otel.outbox.credentials import (
    CredentialsError,
    from_environment,
    is_credential_header,
    provide,
    variable_of,
)
from insider_otel.outbox.job import Job, pool_name, verdict_to_keep
from insider_otel.outbox.opening import open_outbox
from insider_otel.outbox.protocol import Outbox, OutboxError
from insider_otel.policy.frames import bare, raises_bare
from insider_otel.policy.outbox_url import OutboxURL
from insider_otel.policy.setting_checks import CREDENTIALS_PREFIX, SettingsError
from insider_otel.policy.settings import Settings
from insider_otel.policy.steps import Progress

if TYPE_CHECKING:
    import httpx

_TRACE_CONTEXT = TraceContextTextMapPropagator()
_SILENCE = 60.0
"""Seconds for which the same is not said again."""

# Those of httpx itself, and those in which tracers, ours or others, name the span of an attempt.
_MADE_ANEW = frozenset(
    {
        "accept-encoding",
        "b3",
        "baggage",
        "connection",
        "content-length",
        "cookie",
        "elastic-apm-traceparent",
        "host",
        "newrelic",
        "proxy-authorization",
        "sentry-trace",
        "traceparent",
        "tracestate",
        "transfer-encoding",
        "uber-trace-id",
        "x-amzn-trace-id",
        "x-b3-flags",
        "x-b3-parentspanid",
        "x-b3-sampled",
        "x-b3-spanid",
        "x-b3-traceid",
        "x-cloud-trace-context",
        "x-datadog-origin",
        "x-datadog-parent-id",
        "x-datadog-sampling-priority",
        "x-datadog-tags",
        "x-datadog-trace-id",
    }
)

# Half a character, which no file can hold.
_SURROGATES = re.compile("[\ud800-\udfff]")

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
    if not isinstance(given, Mapping):
        raise CannotDefer(f'extensions["insider"] is a {type(given).__name__}; it accepts a mapping')
    values = cast("Mapping[str, Any]", given)
    unknown = [f"{name!r:.40}" for name in values if name not in names]
    if unknown:
        raise CannotDefer(f'extensions["insider"] has {", ".join(unknown)}; it accepts {", ".join(names)}')
    if not isinstance(values.get("defer", False), bool):
        raise CannotDefer('extensions["insider"]["defer"] is True or False')
    for name in ("ordering_key", "account"):
        value = values.get(name)
        if value is not None and (not isinstance(value, str) or not value or _SURROGATES.search(value)):
            raise CannotDefer(f'extensions["insider"]["{name}"] is text, or None')
    return CallOptions(**values)


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

    @raises_bare
    def __init__(self, settings: Settings, wall_clock: Callable[[], float]) -> None:
        assert settings.outbox is not None, "who has no outbox needs no desk"
        self._settings = settings
        self._complained: dict[str, float] = {}
        self.wall_clock = wall_clock
        self.url = OutboxURL.parse(settings.outbox)
        _check_credentials(settings)
        self.codec = Codec(settings.outbox_key)
        self.outbox: Outbox = open_outbox(self.url)

    def job(
        self,
        operation: Operation,
        request: httpx.Request,
        body: bytes | None,
        options: CallOptions,
        progress: Progress,
        context: Context,
        now: float,
    ) -> Job:
        """What is to be kept of a call.

        Args:
            operation: The operation called.
            request: The app's request.
            body: Its body; None if it cannot be read twice.
            options: What the app asked for it.
            progress: How far it has come.
            context: Holds the call's span.
            now: The moment of ``progress``, in seconds since 1970.

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
        except (CannotDefer, CredentialsError) as error:
            raise CannotDefer(f"{operation.name} cannot be deferred: {error.args[0]}") from None
        self._tell_of_lost_headers(operation, request)
        carrier: dict[str, str] = {}
        # Not the baggage, which may hold whatever the app put there.
        _TRACE_CONTEXT.inject(carrier, context)
        return Job(
            id=uuid.uuid4().hex,
            operation=operation.name,
            product=operation.product,
            pool=pool_name(operation.pool, options.account),
            content=self.codec.encode(parcel),
            account=options.account,
            line=self._line(options),
            context=carrier,
            created=now,
            due=now + min(progress.wait, self._settings.outbox_horizon),
            expires=now + self._settings.outbox_horizon,
            attempts=progress.attempts,
            ambiguous_since=None if progress.ambiguous_for is None else now - progress.ambiguous_for,
            verdict=verdict_to_keep(progress.verdict),
        )

    def complain(self, text: str) -> None:
        """Say in the log what keeps calls from being deferred or sent; the same not more than once a minute.

        Args:
            text: What it is.
        """
        now = time.monotonic()
        self._complained = {said: at for said, at in self._complained.items() if now - at < _SILENCE}
        if text not in self._complained:
            self._complained[text] = now
            _log.warning("%s", text)

    def _line(self, options: CallOptions) -> str | None:
        """A hash of an ordering key: with ``outbox_key`` nobody who reads the outbox can find the key by trying.

        Without, what is kept of the call stands beside it in clear.
        """
        if options.ordering_key is None:
            return None
        text = f"{options.account or ''}\0{options.ordering_key}".encode("utf-8", "surrogatepass")
        # The last of several keys is the oldest, so that a line goes on while keys change.
        secret = (self._settings.outbox_key or "").rpartition(",")[2].encode()
        return hashlib.blake2b(text, key=secret, person=b"insider-otel", digest_size=16).hexdigest()

    def _tell_of_lost_headers(self, operation: Operation, request: httpx.Request) -> None:
        lost = {name.lower() for name in request.headers if not is_credential_header(name)} - KEPT_HEADERS - _MADE_ANEW
        if lost:
            self.complain(f"a deferred {operation.name} is sent without its headers {', '.join(sorted(lost))}")


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
                raise CannotDefer("there is no outbox: name one in the setting outbox, or in INSIDER_OTEL_OUTBOX")
            return None
        if not wanted and not self._operation.deferrable:
            return None
        try:
            now = desk.wall_clock()
            job: Job = yield Keep(
                lambda: desk.job(self._operation, self._request, self._body, self._options, progress, context, now),
                desk.outbox,
            )
        except Exception as error:
            if wanted or not isinstance(error, (CannotDefer, OutboxError)):
                # It comes from where the credentials and the body are.
                raise bare(error) from error.__cause__
            # A refusal names the operation itself.
            said = "" if isinstance(error, CannotDefer) else f"a call of {self._operation.name} was not deferred: "
            desk.complain(f"{said}{error}")
            return None
        return job.id


_OTHER_CREDENTIALS = (
    "the credentials that would be put back are not those it carries. Where the app has several accounts, name this "
    'one, for Settings.credentials to be asked for it: extensions={"insider": {"account": …}}'
)


def _check_credentials(settings: Settings) -> None:
    """Refuse, at the start, an outbox whose calls could never be sent."""
    if settings.credentials is not None:
        return
    variables = {name for name, text in os.environ.items() if name.startswith(CREDENTIALS_PREFIX) and text.strip()}
    if not variables:
        raise SettingsError(
            "outbox needs the credentials to send deferred calls with, for they are never stored: let the "
            f"setting credentials be a function that returns them, or set {CREDENTIALS_PREFIX}<PRODUCT>, such as "
            f'{variable_of("mail", None)}=\'{{"X-INS-AUTH-KEY": "…"}}\''
        )
    by_product = {operation.product.upper(): operation for operation in operations()}
    for variable in sorted(variables):
        product, _, account = variable.removeprefix(CREDENTIALS_PREFIX).partition("__")
        operation = by_product.get(product)
        if operation is None:
            raise SettingsError(f"{variable} names no product of Insider's; there are: {', '.join(sorted(by_product))}")
        from_environment(operation, account or None)
