"""What an app's middleware has made, and how endpoints find it: under one key of the ASGI scope."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from types import ModuleType
from typing import Any

from starlette.requests import HTTPConnection

from insider_otel.http.family import NAMES
from insider_otel.http.scope import RequestScope
from insider_otel.web import Clients, WebApp

_KEY = "insider_otel"


class Site:
    """An app's use of the library, with clients of httpx and httpx2: an endpoint says which by its annotation.

    Args:
        web_app: What the adapters share.
    """

    def __init__(self, web_app: WebApp) -> None:
        self.web_app = web_app
        self._clients: dict[str, Clients] = {}

    def clients(self, module: ModuleType) -> Clients:
        """The clients of one family.

        Args:
            module: ``httpx`` or ``httpx2``.
        """
        clients = self._clients.get(module.__name__)
        if clients is None:
            clients = self._clients.setdefault(module.__name__, Clients(self.web_app.engine, module))
        return clients

    async def close(self) -> None:
        """Close the clients of the process and of the running loop. They open again if they are used again."""
        for clients in list(self._clients.values()):
            await clients.aclose()
            clients.close()

    @contextmanager
    def override(self, transport: Any) -> Generator[None]:
        """Let every client send through another transport.

        Args:
            transport: What sends, for sync and async clients of both families.
        """
        with ExitStack() as stack:
            for name in NAMES:
                if find_spec(name) is not None:
                    stack.enter_context(self.clients(import_module(name)).override(transport))
            yield


@dataclass(frozen=True, slots=True)
class Connection:
    """A request, or a WebSocket, that an app handles.

    Attributes:
        site: What its middleware has made.
        request_scope: The scope of the request; None for a WebSocket.
    """

    site: Site
    request_scope: RequestScope | None

    def put_in(self, scope: Any) -> None:
        """Let endpoints find it. The ASGI scope is not copied: who is further out reads there what the router found."""
        scope[_KEY] = self


def connection_of(connection: HTTPConnection) -> Connection:
    """What the middleware has left for an endpoint.

    Args:
        connection: Starlette's request or WebSocket.

    Raises:
        RuntimeError: There is no such middleware.
    """
    found = connection.scope.get(_KEY)
    if not isinstance(found, Connection):
        raise RuntimeError(
            "this app does not use insider-otel yet: call app.add_middleware(insider_otel_fastapi.InsiderMiddleware)"
        )
    return found
