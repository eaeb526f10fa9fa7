"""For gunicorn."""

from django.core.wsgi import get_wsgi_application

from django_project.telemetry import WSGIMiddleware, serve

application = serve(get_wsgi_application, WSGIMiddleware)
