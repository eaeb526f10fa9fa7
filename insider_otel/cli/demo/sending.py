"""The demo's telemetry, sent by OTLP over HTTP to where the environment says."""

from __future__ import annotations

import logging
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from insider_otel.cli.output import UsageError

if TYPE_CHECKING:
    from opentelemetry.sdk.metrics.export import MetricsData
    from opentelemetry.sdk.trace import ReadableSpan

_ANY_SIGNAL = "OTEL_EXPORTER_OTLP_ENDPOINT"
_PATIENCE = 1.0

# The exporters log what goes wrong, several times over. We say it ourselves, once.
logging.getLogger("opentelemetry.exporter").addHandler(logging.NullHandler())


class NotSentError(Exception):
    """Telemetry did not arrive; the text says where and why, and shows no credential."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where one signal goes.

    Attributes:
        signal: ``traces`` or ``metrics``.
        url: The whole URL, path of the signal included.
        variable: The variable that says so.
    """

    signal: str
    url: str
    variable: str

    @classmethod
    def of(cls, signal: str, environ: Mapping[str, str]) -> Endpoint | None:
        """Where the environment says that a signal goes; None if it does not say.

        Args:
            signal: ``traces`` or ``metrics``.
            environ: The environment.

        Raises:
            UsageError: It says something that is no address.
        """
        own = f"OTEL_EXPORTER_OTLP_{signal.upper()}_ENDPOINT"
        if url := environ.get(own, "").strip():
            return cls(signal, _checked(url, own), own)
        if base := environ.get(_ANY_SIGNAL, "").strip():
            url = f"{_checked(base, _ANY_SIGNAL).removesuffix('/')}/v1/{signal}"
            return cls(signal, url, _ANY_SIGNAL)
        return None

    @property
    def is_of_one_signal(self) -> bool:
        """Whether the variable names this signal, and not just any."""
        return self.variable != _ANY_SIGNAL

    @property
    def address(self) -> tuple[str, int]:
        """Host and port."""
        parts = urlsplit(self.url)
        return parts.hostname or "", parts.port or (443 if parts.scheme == "https" else 80)

    def __str__(self) -> str:
        """The URL without what may be secret in it: user, password and query."""
        parts = urlsplit(self.url)
        return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"


def _checked(url: str, variable: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        usable = False
    if not usable:
        raise UsageError(f"{variable} is not an address to send to; write scheme, host and port: http://localhost:4318")
    return url


def send_spans(spans: Sequence[ReadableSpan], endpoint: Endpoint) -> None:
    """Send spans, in one request.

    Args:
        spans: Finished spans.
        endpoint: Where to.

    Raises:
        NotSentError: They did not arrive.
    """
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415  (an extra)
    from opentelemetry.sdk.trace.export import SpanExportResult  # noqa: PLC0415  (an extra)

    _send(OTLPSpanExporter(endpoint.url), spans, SpanExportResult.SUCCESS, endpoint)


def send_metrics(metrics: MetricsData, endpoint: Endpoint) -> None:
    """Send metrics, in one request.

    Args:
        metrics: What a reader has collected.
        endpoint: Where to.

    Raises:
        NotSentError: They did not arrive.
    """
    from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter  # noqa: PLC0415  (an extra)
    from opentelemetry.sdk.metrics.export import MetricExportResult  # noqa: PLC0415  (an extra)

    _send(OTLPMetricExporter(endpoint.url), metrics, MetricExportResult.SUCCESS, endpoint)


def _send(exporter: Any, telemetry: object, success: Enum, endpoint: Endpoint) -> None:
    try:
        result = exporter.export(telemetry)
    except OSError:
        # Some versions of the exporters raise what others only log.
        result = None
    finally:
        exporter.shutdown()
    if result is not success:
        raise NotSentError(f"the {endpoint.signal} did not reach {endpoint}: {_reason(endpoint)} ({endpoint.variable})")


def _reason(endpoint: Endpoint) -> str:
    try:
        socket.create_connection(endpoint.address, _PATIENCE).close()
    except OSError as error:
        return f"nothing answers there: {error.strerror or error}"
    return "what answers there did not take them. It has to speak OTLP over HTTP, usually on port 4318, not 4317"
