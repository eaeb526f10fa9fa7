"""What the web adapters share: options, clients, deadlines, HTTP answers for failed calls. It knows no framework."""

from insider_otel.web.app import Providers, WebApp
from insider_otel.web.clients import Clients
from insider_otel.web.deadlines import deadline
from insider_otel.web.failures import Failure, failure_of
from insider_otel.web.handled import HandledRequest
from insider_otel.web.options import OptionsError, WebOptions

__all__ = [
    "Clients",
    "Failure",
    "HandledRequest",
    "OptionsError",
    "Providers",
    "WebApp",
    "WebOptions",
    "deadline",
    "failure_of",
]
