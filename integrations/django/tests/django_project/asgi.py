"""For uvicorn."""

from django.core.asgi import get_asgi_application

from django_project.telemetry import ASGIMiddleware, serve

application = serve(get_asgi_application, ASGIMiddleware)
