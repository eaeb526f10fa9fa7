"""The shop, a fake Insider and the traces, all on this machine: ``python examples/django_shop/run.py``.

``--visit`` sends a customer through the shop and ends. With ``OTEL_EXPORTER_OTLP_ENDPOINT`` the traces go there,
otherwise they are drawn here.
"""

from __future__ import annotations

import json
import logging
import os
import sys
import tempfile
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import django
from django.core.management import call_command
from django.core.servers.basehttp import ThreadedWSGIServer, WSGIRequestHandler
from django.core.wsgi import get_wsgi_application
from opentelemetry.instrumentation.django import DjangoInstrumentor

from insider_otel.testing.server import ServedFake

# What the shops' run.py have in common stands beside their folders.
sys.path.append(str(Path(__file__).parents[1]))
from running import run


@contextmanager
def start(insider: ServedFake, port: int) -> Generator[ThreadedWSGIServer]:
    """Make the shop's server, with a database of its own.

    Args:
        insider: The fake Insider that it sends to.
        port: Where it listens; 0 for any that is free.
    """
    with tempfile.TemporaryDirectory() as directory:
        os.environ |= {
            "DJANGO_SETTINGS_MODULE": "myshop.settings",
            "INSIDER_OTEL_HOSTS": json.dumps(insider.hosts),
            "SHOP_DATABASE": str(Path(directory, "shop.sqlite3")),
            "SHOP_INSIDER_URL": insider.url,
        }
        # It changes MIDDLEWARE, which Django reads when it makes the application.
        DjangoInstrumentor().instrument()
        django.setup()
        call_command("migrate", run_syncdb=True, verbosity=0)
        server = ThreadedWSGIServer(("127.0.0.1", port), WSGIRequestHandler)
        server.set_app(get_wsgi_application())
        logging.getLogger("django.server").setLevel(logging.ERROR)
        yield server


if __name__ == "__main__":
    run("django-shop", start)
