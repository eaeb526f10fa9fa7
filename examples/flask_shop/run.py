"""The shop, a fake Insider and the traces, all on this machine: ``python examples/flask_shop/run.py``.

``--visit`` sends a customer through the shop and ends. With ``OTEL_EXPORTER_OTLP_ENDPOINT`` the traces go there,
otherwise they are drawn here.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

from opentelemetry.instrumentation.flask import FlaskInstrumentor
from shop import create_app
from werkzeug.serving import BaseWSGIServer, make_server

from insider_otel.testing.server import ServedFake

# What the shops' run.py have in common stands beside their folders.
sys.path.append(str(Path(__file__).parents[1]))
from running import run


@contextmanager
def start(insider: ServedFake, port: int) -> Generator[BaseWSGIServer]:
    """Make the shop's server.

    Args:
        insider: The fake Insider that it sends to.
        port: Where it listens; 0 for any that is free.
    """
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    app = create_app({"INSIDER_URL": insider.url, "INSIDER_OTEL_HOSTS": insider.hosts})
    FlaskInstrumentor().instrument_app(app)  # type: ignore[no-untyped-call]
    yield make_server("127.0.0.1", port, app, threaded=True)


if __name__ == "__main__":
    run("flask-shop", start)
