"""One HTTP request as a CLIENT span and a duration, by the stable HTTP semantic conventions."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from opentelemetry.context import Context
from opentelemetry.propagate import get_global_textmap
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, set_span_in_context

from insider_otel.api.operations import Operation
from insider_otel.api.verdict import Verdict
from insider_otel.telemetry import attributes as names
from insider_otel.telemetry.redaction import redacted_path, redacted_query
from insider_otel.telemetry.telemetry import Telemetry

if TYPE_CHECKING:
    import httpx

_log = logging.getLogger("insider_otel")

_ERROR = Status(StatusCode.ERROR)
_DEFAULT_PORTS = {"http": 80, "https": 443}
_METHODS = frozenset({"CONNECT", "DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "QUERY", "TRACE"})
_OTHER = "_OTHER"
_FIRST_ERROR = 400

AttributeValue = str | int | list[str]


class AttemptTrace:
    """The CLIENT span of one attempt.

    Args:
        telemetry: Where it goes.
        operation: The operation called.
        request: The request of this attempt; its trace headers are replaced by this span's.
        parent: The context of the call.
        resend_count: How many attempts went before.
        now: The present moment, on the clock of the caller.
    """

    __slots__ = ("_attributes", "_labels", "_started", "_telemetry", "context", "span")

    def __init__(
        self,
        telemetry: Telemetry,
        operation: Operation,
        request: httpx.Request,
        *,
        parent: Context,
        resend_count: int,
        now: float,
    ) -> None:
        self._telemetry = telemetry
        self._started = now
        url = request.url
        method = request.method if request.method in _METHODS else _OTHER
        port = url.port or _DEFAULT_PORTS.get(url.scheme)
        # What the metric shares with the span. Samplers see it, and the URL, of which there are too many for a metric.
        self._labels: dict[str, str | int] = {names.HTTP_REQUEST_METHOD: method, names.SERVER_ADDRESS: url.host}
        if port is not None:
            self._labels[names.SERVER_PORT] = port
        if operation.path:
            self._labels[names.URL_TEMPLATE] = operation.path
        shown = "HTTP" if method == _OTHER else method
        self.span = telemetry.tracer.start_span(
            f"{shown} {operation.path}" if operation.path else shown,
            context=parent,
            kind=SpanKind.CLIENT,
            attributes={**self._labels, names.URL_FULL: _redacted_url(url, operation)},
        )
        self.context = set_span_in_context(self.span, parent)
        # Collected, and set at once when the span ends: each setting costs the SDK a lock.
        self._attributes: dict[str, AttributeValue] | None = None
        if self.span.is_recording():
            self._attributes = self._described(operation, request, resend_count)
        if telemetry.propagates:
            self._propagate(request)

    def _propagate(self, request: httpx.Request) -> None:
        try:
            propagator = get_global_textmap()
            injected: dict[str, str] = {}
            propagator.inject(injected, self.context)  # pyright: ignore[reportArgumentType]
            # The app may send a request again that carries an earlier span's headers. Without an SDK there is no span
            # that could take its place, and they are another tracer's, or the app's own. The raw names are looked at,
            # for asking httpx for one by its name makes it decode them all: 1.3 µs in place of 5.8.
            if self.span.get_span_context().is_valid:
                fields = _fields_of(propagator)
                for stale in [name for name, _ in request.headers.raw if name.lower() in fields]:
                    request.headers.pop(stale.decode("ascii"), None)
            for name, value in injected.items():
                request.headers[name] = value
        except Exception as exc:  # noqa: BLE001
            # A propagator of somebody's own; the call goes out without its headers rather than not at all.
            _log.warning("trace headers could not be set: the propagator raised %s", type(exc).__name__)

    def _described(self, operation: Operation, request: httpx.Request, resend_count: int) -> dict[str, AttributeValue]:
        url = request.url
        described: dict[str, AttributeValue] = {
            # As the stock instrumentation has it until a connection tells the real peer.
            names.NETWORK_PEER_ADDRESS: url.host,
            names.OPERATION: operation.name,
            names.PRODUCT: operation.product,
        }
        if url.port:
            described[names.NETWORK_PEER_PORT] = url.port
        if resend_count:
            described[names.HTTP_REQUEST_RESEND_COUNT] = resend_count
        if request.method not in _METHODS:
            described[names.HTTP_REQUEST_METHOD_ORIGINAL] = request.method
        if self._telemetry.headers.request is not None:
            described.update(self._telemetry.headers.of_request(request.headers.multi_items()))
        return described

    def connected(self, response: httpx.Response) -> None:
        """The head of a response is here: its connection tells the peer, as long as it is open.

        Args:
            response: The response, its body not yet read.
        """
        stream = response.extensions.get("network_stream")
        if stream is None or self._attributes is None:
            return
        try:
            peer = stream.get_extra_info("server_addr")
        except Exception as exc:  # noqa: BLE001
            # Reset since, or a stream of somebody's own. The span keeps the host's name; the call must not suffer.
            _log.debug("the peer of a connection is not to be had: %s", type(exc).__name__)
            return
        match peer:
            case (str() as address, int() as port, *_):
                self._attributes[names.NETWORK_PEER_ADDRESS] = address
                self._attributes[names.NETWORK_PEER_PORT] = port
            case _:
                # A Unix domain socket has a path, if anything, and a path may tell too much.
                pass

    def answered(self, response: httpx.Response, verdict: Verdict, broken: BaseException | None, now: float) -> None:
        """Insider answered; the span ends.

        Args:
            response: The response; its status and headers are read.
            verdict: What it means.
            broken: The error in which its body ended, if it did.
            now: The present moment, on the caller's clock.
        """
        status = response.status_code
        answered: dict[str, str | int] = {names.HTTP_RESPONSE_STATUS_CODE: status}
        version = response.extensions.get("http_version")
        if version:
            answered[names.NETWORK_PROTOCOL_VERSION] = version.decode("ascii", "replace").removeprefix("HTTP/")
        if broken is not None:
            answered[names.ERROR_TYPE] = _name_of(broken)
        elif status >= _FIRST_ERROR and not verdict.ok:
            # A duplicate that comes as an error status is good news: the conventions let those who know better say so.
            answered[names.ERROR_TYPE] = str(status)
        if self._attributes is not None:
            self._attributes.update(verdict_attributes(verdict))
            if self._telemetry.headers.response is not None:
                self._attributes.update(self._telemetry.headers.of_response(response.headers.multi_items()))
            ray = response.headers.get("cf-ray")
            if ray:
                # Captured already if the app asked for it; perhaps sanitized, and so it stays.
                self._attributes.setdefault(names.HTTP_RESPONSE_CF_RAY, [ray])
        self._end(answered, now)

    def unanswered(self, exception: BaseException, verdict: Verdict, now: float) -> None:
        """No usable answer came; the span ends. The exception's text is not exported: httpx puts the URL in it.

        Args:
            exception: What came instead.
            verdict: What it means.
            now: The present moment, on the caller's clock.
        """
        if self._attributes is not None:
            self._attributes.update(verdict_attributes(verdict))
        self._end({names.ERROR_TYPE: _name_of(exception)}, now)

    def cancelled(self, now: float, ended: int | None = None) -> None:
        """The app gave the call up: not an error, so neither a status nor an ``error.type``.

        Args:
            now: The moment of it, on the caller's clock.
            ended: The same in nanoseconds since 1970, if it is past.
        """
        self._end({}, now, ended)

    def _end(self, learned: dict[str, str | int], now: float, ended: int | None = None) -> None:
        """End the span, which has the labels it began with, and record the duration with them.

        Args:
            learned: What the end of the attempt adds to them.
            now: The moment of it, on the caller's clock.
            ended: The same in nanoseconds since 1970, if it is past.
        """
        self._labels.update(learned)
        if self._attributes is not None:
            self._attributes.update(learned)
            self.span.set_attributes(self._attributes)
            if names.ERROR_TYPE in learned:
                self.span.set_status(_ERROR)
        end_span(self.span, ended)
        self._telemetry.instruments.request_duration.record(max(now - self._started, 0.0), self._labels, self.context)


# What the app itself put there is as good as before.
_OF_NO_SPAN = frozenset({b"baggage"})

_asked: tuple[TextMapPropagator, frozenset[bytes]] | None = None


def _fields_of(propagator: TextMapPropagator) -> frozenset[bytes]:
    """The headers of a span that a propagator sets, in lower case; asked for once: it makes the set anew each time."""
    global _asked  # noqa: PLW0603
    asked = _asked
    # The one that was asked last, and no cache by its hash: it is somebody else's object, which need not have one.
    if asked is None or asked[0] is not propagator:
        asked = _asked = (propagator, frozenset(field.lower().encode() for field in propagator.fields) - _OF_NO_SPAN)
    return asked[1]


def end_span(span: Span, ended: int | None = None) -> None:
    """End a span, whatever a span processor of the app's raises: what Insider has done is not undone by it.

    Args:
        span: The span.
        ended: The moment of its end in nanoseconds since 1970, if it is past.
    """
    try:
        span.end(ended)
    except Exception as exc:  # noqa: BLE001
        _log.warning("a span could not be ended: a span processor raised %s", type(exc).__name__)


def _redacted_url(url: httpx.URL, operation: Operation) -> str:
    userinfo = "REDACTED:REDACTED@" if url.userinfo else ""
    path, _, query = url.raw_path.decode("ascii", "replace").partition("?")
    shown = f"{url.scheme}://{userinfo}{url.netloc.decode('ascii', 'replace')}{redacted_path(path, operation.path)}"
    query = redacted_query(query)
    return f"{shown}?{query}" if query else shown


def _name_of(exception: BaseException) -> str:
    kind = type(exception)
    return f"{kind.__module__}.{kind.__qualname__}".removeprefix("builtins.")


def verdict_attributes(verdict: Verdict) -> dict[str, str]:
    """The ``insider.status.*`` attributes of a verdict."""
    return {
        names.STATUS_CATEGORY: verdict.category.value,
        names.STATUS_RULE: verdict.rule,
        names.STATUS_FAULT: verdict.fault.value,
        names.STATUS_RETRY: verdict.retry.value,
    }
