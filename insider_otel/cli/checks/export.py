"""Whether telemetry is recorded and can leave the process."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from insider_otel.cli.checks.environment import Environment, Finding, Level

_HTTP, _GRPC = "otlp_proto_http", "otlp_proto_grpc"
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"


def sdk(environment: Environment) -> Iterator[Finding]:
    """Whether anything records the telemetry at all."""
    version = environment.versions.get("opentelemetry-sdk")
    if version is None:
        yield Finding(
            Level.ERROR,
            "opentelemetry-sdk is not installed",
            "Without an SDK every span and metric is thrown away.",
            "pip install 'insider-otel[sdk]', and set up a TracerProvider or start with opentelemetry-instrument.",
        )
    else:
        yield Finding(Level.OK, f"opentelemetry-sdk {version}")
    if environment.is_true("OTEL_SDK_DISABLED"):
        yield Finding(
            Level.WARNING,
            "OTEL_SDK_DISABLED is true",
            "The SDK records nothing.",
            "Unset it where you want to see traces.",
        )
    if environment.variable("OTEL_TRACES_SAMPLER") == "always_off":
        yield Finding(
            Level.WARNING,
            "OTEL_TRACES_SAMPLER is always_off",
            "No span is recorded.",
            "Unset it, or use parentbased_traceidratio with OTEL_TRACES_SAMPLER_ARG.",
        )


def exporter(environment: Environment) -> Iterator[Finding]:
    """Whether traces can leave the process."""
    installed = environment.entry_points.get("opentelemetry_traces_exporter", frozenset())
    wanted = environment.words("OTEL_TRACES_EXPORTER")
    if wanted == ["none"]:
        yield Finding(
            Level.WARNING,
            "OTEL_TRACES_EXPORTER is none",
            "Traces are recorded and go nowhere.",
            "Set it to otlp, or unset it.",
        )
        return
    for name in wanted:
        if _resolved(name, environment) not in installed:
            yield _missing(name, environment)
    if remote := sorted(installed - {"console"}):
        yield Finding(Level.OK, f"trace exporters: {', '.join(remote)}")
    else:
        yield Finding(
            Level.WARNING,
            "no trace exporter is installed",
            "Traces cannot reach Jaeger, Tempo or a collector.",
            "pip install 'insider-otel[sdk]'",
        )


def _resolved(exporter_name: str, environment: Environment) -> str:
    """The entry point that the SDK takes for a name: ``otlp`` is gRPC unless the protocol says otherwise."""
    if exporter_name != "otlp":
        return exporter_name
    protocol = environment.variable("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or environment.variable(_PROTOCOL)
    return _HTTP if protocol == "http/protobuf" else _GRPC


def _missing(exporter_name: str, environment: Environment) -> Finding:
    installed = environment.entry_points.get("opentelemetry_traces_exporter", frozenset())
    if exporter_name == "otlp" and _HTTP in installed:
        return Finding(
            Level.ERROR,
            "OTEL_TRACES_EXPORTER is otlp, which means gRPC, and only the HTTP exporter is installed",
            "opentelemetry-instrument cannot set up the exporter: no trace leaves the process.",
            f"Set {_PROTOCOL}=http/protobuf.",
        )
    return Finding(
        Level.ERROR,
        f"OTEL_TRACES_EXPORTER names {exporter_name}, which is not installed",
        "opentelemetry-instrument cannot set up the exporter: no trace leaves the process.",
        f"Install it, or name one that is: {', '.join(sorted(installed)) or 'there is none yet'}.",
    )


def endpoint(environment: Environment) -> Iterator[Finding]:
    """Where OTLP goes; nothing of an address is shown but host and port, and nothing at all of its headers."""
    for signal in ("TRACES_", "METRICS_", ""):
        name = f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT"
        if value := environment.variable(name):
            yield _endpoint(name, value, _protocol(environment, signal))
    if not any(environment.variable(f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT") for signal in ("", "TRACES_")):
        yield Finding(
            Level.NOTE,
            "OTEL_EXPORTER_OTLP_ENDPOINT is not set",
            "The OTLP exporter sends to localhost, port 4318 (HTTP) or 4317 (gRPC), unless the code says otherwise.",
            "Set it to your collector, Jaeger or Tempo: http://collector:4318",
        )


def _protocol(environment: Environment, signal: str) -> str | None:
    """The protocol an exporter will speak; None if that cannot be told."""
    if named := environment.variable(f"OTEL_EXPORTER_OTLP_{signal}PROTOCOL") or environment.variable(_PROTOCOL):
        return named
    installed = environment.entry_points.get("opentelemetry_traces_exporter", frozenset()) & {_HTTP, _GRPC}
    if len(installed) != 1:
        return None
    return "grpc" if _GRPC in installed else "http/protobuf"


def _endpoint(name: str, value: str, protocol: str | None) -> Finding:
    # The gRPC exporter also takes an address without a scheme.
    schemeless = protocol == "grpc" and "://" not in value
    try:
        address = urlsplit(f"//{value}" if schemeless else value)
        host, port = address.hostname, address.port
    except ValueError:
        address, host, port = None, None, None
    if address is None or not (schemeless or address.scheme in ("http", "https")):
        host = None
    if not host:
        return Finding(
            Level.ERROR,
            f"{name} is not an address that the exporter can use",
            "The exporter fails on every export, and says so only in its log.",
            "Write scheme, host and port: http://collector:4318",
        )
    if (port, protocol) in ((4317, "http/protobuf"), (4318, "grpc")):
        return Finding(
            Level.WARNING,
            f"{name} goes to port {port}, and the protocol is {protocol}",
            "By convention port 4317 speaks gRPC and 4318 HTTP: nothing will arrive.",
            f"Use port {4318 if port == 4317 else 4317}, or set {_PROTOCOL}.",
        )
    return Finding(Level.OK, f"{name} goes to {host}{f':{port}' if port else ''}")
