"""What the web adapters share: options, clients, HTTP answers for failed calls. It knows no framework."""

from insider_otel.web.app import WebApp
from insider_otel.web.clients import Clients
from insider_otel.web.failures import Failure, failure_of
from insider_otel.web.options import OptionsError, WebOptions

__all__ = ["Clients", "Failure", "OptionsError", "WebApp", "WebOptions", "failure_of"]
