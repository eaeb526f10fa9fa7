"""The extension: what makes a Flask app one that uses Insider."""

from __future__ import annotations

import weakref
from types import ModuleType
from typing import TYPE_CHECKING

import httpx
from flask import Flask

from insider_otel.web import WebApp
from insider_otel_flask.config import options_of
from insider_otel_flask.failures import answer_failures
from insider_otel_flask.scopes import ScopedApp, note_response
from insider_otel_flask.state import KEY

if TYPE_CHECKING:
    from opentelemetry._logs import LoggerProvider
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import TracerProvider


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
        tracer_provider: Where spans go; the global provider by default.
        meter_provider: Where metrics go; the global provider by default.
        logger_provider: Where log-based events go; the global provider by default.

    Raises:
        SettingsError: The app's config, or the environment, has an option that cannot be used.
    """

    def __init__(
        self,
        app: Flask | None = None,
        *,
        module: ModuleType = httpx,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        logger_provider: LoggerProvider | None = None,
    ) -> None:
        self._module = module
        self._tracer_provider = tracer_provider
        self._meter_provider = meter_provider
        self._logger_provider = logger_provider
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
        options = options_of(app.config)
        # Flask refuses this after the first request: nothing has been changed by then.
        app.after_request(note_response)
        web_app = WebApp(
            options,
            module=self._module,
            tracer_provider=self._tracer_provider,
            meter_provider=self._meter_provider,
            logger_provider=self._logger_provider,
        )
        app.extensions[KEY] = web_app
        app.wsgi_app = ScopedApp(app.wsgi_app, web_app)  # type: ignore[method-assign]
        if options.error_responses:
            answer_failures(app, web_app)
        # WSGI knows no shutdown: the client is closed when the app is forgotten, or with the process.
        weakref.finalize(app, web_app.clients.close)
