"""The extension: what makes a Flask app one that uses Insider."""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType
from typing import Any, Unpack, cast

import httpx
from flask import Flask

from insider_otel.policy.frames import raises_bare
from insider_otel.policy.settings import PREFIX
from insider_otel.web import Providers, WebApp, WebOptions
from insider_otel_flask.answers import answer_failures
from insider_otel_flask.clients import KEY
from insider_otel_flask.scopes import ScopedApp, note_response


class InsiderOTel:
    """Gives Flask apps a client for Insider, a deadline for each request, and a summary on its server span.

        app = Flask(__name__)
        app.config["INSIDER_OTEL_REQUEST_DEADLINE"] = 3.0
        InsiderOTel(app)

    Or ``insider_otel = InsiderOTel()`` and, in the factory, ``insider_otel.init_app(app)``, for as many apps as there
    are. It keeps nothing of an app itself; that is in ``app.extensions["insider_otel"]``.

    Args:
        app: The app to begin with, if there is one already.
        module: The httpx that ``insider`` is a client of: ``httpx`` or ``httpx2``.
        **providers: Where telemetry goes, if not to the global providers: ``tracer_provider``, ``meter_provider``,
            ``logger_provider``.

    Raises:
        SettingsError: The app's config, or the environment, has an option that cannot be used.
        TypeError: An option is given here; options are config keys.
    """

    def __init__(self, app: Flask | None = None, *, module: ModuleType = httpx, **providers: Unpack[Providers]) -> None:
        _refuse_options(providers)
        self._module = module
        self._providers = providers
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Set an app up. Its ``INSIDER_OTEL_*`` config keys are read now, and not again.

        Args:
            app: The app.

        Raises:
            RuntimeError: The app is set up already, or has handled a request.
            SettingsError: The app's config, or the environment, has an option that cannot be used.
        """
        if KEY in app.extensions:
            raise RuntimeError(f"the Flask app {app.name!r} uses insider-otel already: call init_app(app) once")
        options = _read_options(app)
        # Flask refuses this after the first request: nothing has been changed by then.
        app.after_request(note_response)
        web_app = WebApp(options, module=self._module, **self._providers)
        app.extensions[KEY] = web_app
        app.wsgi_app = ScopedApp(app.wsgi_app, web_app)  # type: ignore[method-assign]
        if options.error_responses:
            answer_failures(app, web_app)


@raises_bare
def _read_options(app: Flask) -> WebOptions:
    config = cast("Mapping[str, Any]", app.config)
    ours = {key: value for key, value in config.items() if key.startswith(PREFIX)}
    return WebOptions.from_upper_case(ours, prefix=PREFIX, where="app.config")


def _refuse_options(given: Mapping[str, Any]) -> None:
    for name in sorted(given.keys() - Providers.__annotations__.keys()):
        if name in WebOptions.names():
            key = PREFIX + name.upper()
            raise TypeError(f'InsiderOTel() takes no {name}: set app.config["{key}"], or the variable {key}')
        raise TypeError(f"InsiderOTel() takes no {name}; it takes module, {', '.join(Providers.__annotations__)}")
