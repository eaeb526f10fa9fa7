"""How insider-otel, its settings and the stock instrumentations come together."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import fields

from insider_otel.api.operations import operations
from insider_otel.cli.checks.environment import Environment, Finding, Level
from insider_otel.policy.settings import PREFIX, Settings, SettingsError
from insider_otel.telemetry.captured_headers import excluded_urls
from insider_otel.web.options import OptionsError, WebOptions


def stock_instrumentors(environment: Environment) -> Iterator[Finding]:
    """The stock httpx instrumentation beside ours."""
    installed = environment.entry_points.get("opentelemetry_instrumentor", frozenset())
    stock = sorted(installed & {"httpx", "httpx2"})
    if not stock:
        yield Finding(
            Level.NOTE,
            "opentelemetry-instrumentation-httpx is not installed",
            "Calls to Insider are traced; calls to other hosts are not.",
            "Install it if you want those too: the two work side by side.",
        )
        return
    yield Finding(
        Level.OK,
        f"stock instrumentation for {' and '.join(stock)} is installed",
        "Calls to Insider get the spans of insider-otel, calls to other hosts the stock ones; none gets both.",
    )
    yield Finding(
        Level.NOTE,
        "instrument_client() and SyncOpenTelemetryTransport cannot be seen from here",
        "A SyncOpenTelemetryTransport round an InsiderTransport puts a second CLIENT span above each call; "
        "together with instrument_client() it counts each request to other hosts twice.",
        "Use HTTPXClientInstrumentor().instrument() for your other hosts.",
    )
    if "httpx2" in environment.versions and "httpx2" not in stock:
        yield Finding(
            Level.NOTE,
            "httpx2 is installed, and no stock instrumentation for it",
            "Calls through httpx2 to other hosts than Insider are not traced.",
            "Upgrade opentelemetry-instrumentation-httpx to 0.65b0 or later.",
        )
    if not {"http", "http/dup"} & set(environment.words("OTEL_SEMCONV_STABILITY_OPT_IN")):
        yield Finding(
            Level.WARNING,
            "OTEL_SEMCONV_STABILITY_OPT_IN does not name http",
            "Stock httpx spans carry the old names (http.method, http.url), ours the stable ones: "
            "one query does not find both.",
            "Set OTEL_SEMCONV_STABILITY_OPT_IN=http before the process starts; it is read once.",
        )


def zero_code(environment: Environment) -> Iterator[Finding]:
    """What ``opentelemetry-instrument`` would do."""
    installed = environment.entry_points.get("opentelemetry_instrumentor", frozenset())
    if "insider" in environment.words("OTEL_PYTHON_DISABLED_INSTRUMENTATIONS"):
        yield Finding(
            Level.WARNING,
            "OTEL_PYTHON_DISABLED_INSTRUMENTATIONS names insider",
            "opentelemetry-instrument leaves insider-otel out.",
            "Take insider out of the list.",
        )
    elif "insider" in installed and not environment.variable("INSIDER_OTEL_MODE"):
        yield Finding(
            Level.NOTE,
            "INSIDER_OTEL_MODE is not set",
            "Under opentelemetry-instrument insider-otel then observes: it records, and does not retry or wait.",
            "Set INSIDER_OTEL_MODE=enforce to turn that on, or instrument from code.",
        )


def settings(environment: Environment) -> Iterator[Finding]:
    """The ``INSIDER_OTEL_*`` variables: names nobody reads, and values nobody can use."""
    names = [setting.name.upper() for setting in fields(Settings)]
    all_names = sorted(name.upper() for name in WebOptions.names())
    known = {PREFIX + name for name in all_names}
    for variable in sorted(set(Settings.unknown_variables(environment.variables)) - known):
        # Without the prefix: it alone would make any two names look alike.
        close = difflib.get_close_matches(variable.removeprefix(PREFIX), all_names, n=1)
        yield Finding(
            Level.WARNING,
            f"{variable} is no setting",
            "It is read by nobody.",
            f"Did you mean {PREFIX}{close[0]}?"
            if close
            else f"Unset it. The settings are: {', '.join(PREFIX + name for name in names)}.",
        )
    # One by one, so that each bad value is found and not only the first; then whether the good ones go together.
    good: dict[str, str] = {}
    for name in names:
        one = {PREFIX + name: environment.variable(PREFIX + name)}
        error = _error_about(one)
        if error:
            yield _refused(error, "Correct the variable, or unset it.")
        else:
            good |= one
    error = _error_about(good)
    if error:
        yield _refused(error, "Correct one of the variables, or unset it.")
    for name in sorted(set(all_names) - set(names)):
        variable = PREFIX + name
        try:
            WebOptions.from_config({}, {variable: environment.variable(variable)})
        except OptionsError as error:
            yield Finding(
                Level.ERROR,
                str(error),
                "The adapters for Django, FastAPI and Flask refuse to start with it; nothing else reads it.",
                "Correct the variable, or unset it.",
            )


def _error_about(variables: Mapping[str, str]) -> str:
    """What is wrong with the settings that variables make; empty if nothing is."""
    try:
        Settings.from_env(variables)
    except SettingsError as error:
        return str(error)
    return ""


def _refused(error: str, remedy: str) -> Finding:
    return Finding(Level.ERROR, error, "insider-otel refuses to start with it.", remedy)


def excluded(environment: Environment) -> Iterator[Finding]:
    """Insider calls that the list of excluded URLs leaves out."""
    name = "OTEL_PYTHON_HTTPX_EXCLUDED_URLS"
    if name not in environment.variables:
        name = "OTEL_PYTHON_EXCLUDED_URLS"
    try:
        pattern = excluded_urls(environment.variables)
    except ValueError as error:
        yield Finding(
            Level.ERROR,
            str(error),
            "Instrumentations that read it fail to start.",
            "Correct it; a dot stands for any character, a backslash before it for itself.",
        )
        return
    if pattern is None:
        return
    left_out = [one.name for one in operations() if pattern.search(f"https://{one.host}{one.path}")]
    if left_out:
        more = f" and {len(left_out) - 3} more" if len(left_out) > 3 else ""
        yield Finding(
            Level.WARNING,
            f"{name} excludes {', '.join(left_out[:3])}{more}",
            "Those calls to Insider get no span and send no trace context.",
            f"Make the expressions in {name} narrower.",
        )
