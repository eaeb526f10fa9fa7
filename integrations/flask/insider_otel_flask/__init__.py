"""insider-otel for Flask.

    app = Flask(__name__)
    InsiderOTel(app)

    @app.post("/signup")
    def signup():
        insider.post("https://unification.useinsider.com/api/user/v1/upsert", json=..., headers=...)

Options are keys of ``app.config``, such as ``INSIDER_OTEL_REQUEST_DEADLINE``; variables of the same names win.
"""

from insider_otel.web import deadline
from insider_otel_flask.answers import health
from insider_otel_flask.clients import async_client, insider, override
from insider_otel_flask.extension import InsiderOTel

__all__ = ["InsiderOTel", "async_client", "deadline", "health", "insider", "override"]
