"""Whether telemetry is recorded and can leave the process."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from insider_otel.cli.checks.environment import Environment, Finding, Level

_HTTP, _GRPC = "otlp_proto_http", "otlp_proto_grpc"
_PROTOCOL = "OTEL_EXPORTER_OTLP_PROTOCOL"
_SIGNALS = ("TRACES", "METRICS", "LOGS")
_NEVER = ("always_off", "parentbased_always_off")
_BY_SHARE = ("traceidratio", "parentbased_traceidratio")


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
    sampler = environment.variable("OTEL_TRACES_SAMPLER")
    if sampler in _NEVER or (sampler in _BY_SHARE and _is_nothing(environment.variable("OTEL_TRACES_SAMPLER_ARG"))):
        share = "" if sampler in _NEVER else ", and OTEL_TRACES_SAMPLER_ARG is 0"
        unless = " of a trace that begins here" if sampler.startswith("parentbased") else ""
        yield Finding(
            Level.WARNING,
            f"OTEL_TRACES_SAMPLER is {sampler}{share}",
            f"No span{unless} is recorded.",
            "Unset it, or use parentbased_traceidratio with an OTEL_TRACES_SAMPLER_ARG above 0.",
        )


def _is_nothing(share: str) -> bool:
    try:
        return float(share) == 0
    except ValueError:
        return False


def exporter(environment: Environment) -> Iterator[Finding]:
    """Whether traces can leave the process, and whether ``opentelemetry-instrument`` finds the exporters it wants."""
    yield from _missing(environment)
    if environment.words("OTEL_TRACES_EXPORTER") == ["none"]:
        yield Finding(
            Level.WARNING,
            "OTEL_TRACES_EXPORTER is none",
            "Traces are recorded and go nowhere.",
            "Set it to otlp, or unset it.",
        )
        return
    if remote := sorted(_installed("TRACES", environment) - {"console"}):
        yield Finding(Level.OK, f"trace exporters: {', '.join(remote)}")
    else:
        yield Finding(
            Level.WARNING,
            "no trace exporter is installed",
            "Traces cannot reach Jaeger, Tempo or a collector.",
            "pip install 'insider-otel[sdk]'",
        )


def _missing(environment: Environment) -> Iterator[Finding]:
    """The exporters that are wanted and not installed; one of them is enough to break all signals."""
    over_grpc: list[str] = []
    for signal in _SIGNALS:
        installed = _installed(signal, environment)
        for name in _wanted(signal, environment):
            entry_point = _resolved(name, signal, environment)
            if entry_point in installed:
                continue
            if entry_point == _GRPC and _HTTP in installed:
                over_grpc.append(_exporter_variable(signal))
                continue
            yield Finding(
                Level.ERROR,
                f"{_exporter_variable(signal)} names {name}, which is not installed",
                "opentelemetry-instrument cannot set up the exporter: no trace leaves the process.",
                f"Install it, or name one that is: {', '.join(sorted(installed)) or 'there is none yet'}.",
            )
    if over_grpc:
        unset = [variable for variable in over_grpc if variable not in environment.variables]
        default = f"opentelemetry-distro sets {', '.join(unset)} to otlp. " if unset else ""
        yield Finding(
            Level.ERROR,
            f"OTLP over gRPC is wanted ({', '.join(over_grpc)}), and only the HTTP exporter is installed",
            f"{default}opentelemetry-instrument fails with \"Requested component '{_GRPC}' not found\": "
            "no trace leaves the process.",
            f"Set {_PROTOCOL}=http/protobuf, or pip install opentelemetry-exporter-otlp-proto-grpc.",
        )


def _installed(signal: str, environment: Environment) -> frozenset[str]:
    return environment.entry_points.get(f"opentelemetry_{signal.lower()}_exporter", frozenset())


def _exporter_variable(signal: str) -> str:
    return f"OTEL_{signal}_EXPORTER"


def _wanted(signal: str, environment: Environment) -> list[str]:
    """The exporters ``opentelemetry-instrument`` sets up for a signal."""
    variable = _exporter_variable(signal)
    if variable not in environment.variables and "opentelemetry-distro" in environment.versions:
        # opentelemetry/distro/__init__.py sets it for whoever does not.
        return ["otlp"]
    wanted = environment.words(variable)
    return [] if wanted == ["none"] else wanted


def _resolved(exporter_name: str, signal: str, environment: Environment) -> str:
    """The entry point that the SDK takes for a name: ``otlp`` is gRPC unless the protocol says otherwise."""
    if exporter_name != "otlp":
        return exporter_name
    protocol = environment.variable(f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL") or environment.variable(_PROTOCOL)
    return _HTTP if protocol == "http/protobuf" else _GRPC


def endpoint(environment: Environment) -> Iterator[Finding]:
    """Where OTLP goes; nothing of an address is shown but host and port, and nothing at all of its headers."""
    for signal in ("TRACES_", "METRICS_", ""):
        name = f"OTEL_EXPORTER_OTLP_{signal}ENDPOINT"
        if value := environment.variable(name):
            yield _endpoint(name, value, signal.removesuffix("_").lower(), _protocol(environment, signal))
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


def _endpoint(name: str, value: str, signal: str, protocol: str | None) -> Finding:
    # The gRPC exporter also takes an address without a scheme.
    schemeless = protocol == "grpc" and "://" not in value
    try:
        address = urlsplit(f"//{value}" if schemeless else value)
        host, port = address.hostname, address.port
    except ValueError:
        address, host, port = None, None, None
    if address is None or not (schemeless or address.scheme in ("http", "https")):
        host = None
    if address is None or not host:
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
    if protocol == "http/protobuf" and (wrong := _misplaced(address.path.rstrip("/"), signal)):
        return Finding(Level.WARNING, f"{name} {wrong[0]}", *wrong[1:])
    return Finding(Level.OK, f"{name} goes to {host}{f':{port}' if port else ''}")


def _misplaced(path: str, signal: str) -> tuple[str, str, str] | None:
    """What is wrong with the path of an address, why and what to do; None if nothing is.

    The OTLP exporter specification: an address for all signals is a base, to which the exporter adds the path of each;
    one for a signal is taken as it stands.
    """
    if not signal and path.endswith(("/v1/traces", "/v1/metrics", "/v1/logs")):
        ending = path[path.rindex("/v1/") :]
        return (
            f"ends in {ending}",
            f"Exporters add a path of their own: traces go to {ending}/v1/traces, and nothing arrives.",
            "Leave the path out; an address with one is for OTEL_EXPORTER_OTLP_<SIGNAL>_ENDPOINT.",
        )
    if signal and not path:
        return (
            "has no path",
            f"The exporter takes it as it stands, and adds no /v1/{signal}: nothing arrives.",
            f"Add /v1/{signal}, or set OTEL_EXPORTER_OTLP_ENDPOINT in its place.",
        )
    return None
