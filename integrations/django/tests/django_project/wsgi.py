"""For gunicorn."""

import os

from django.core.wsgi import get_wsgi_application

from django_project.telemetry import WSGIMiddleware, serve

application = serve(get_wsgi_application, WSGIMiddleware)

if os.environ.get("CALL_BEFORE_FORK"):
    # As an app may do that looks something up when it is loaded.
    from insider_otel_django import client

    from django_project.insider import sample
    from django_project.telemetry import flush

    client().request(**sample())
    # Whoever forks should export nothing at that moment: the exporter's locks would be held in the child for ever.
    flush()
