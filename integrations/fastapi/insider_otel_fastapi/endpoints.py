"""What endpoints ask for: clients, and another deadline; and an endpoint that tells how it goes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Annotated

import httpx
from fastapi import Depends
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse

import insider_otel
from insider_otel.http.scope import RequestScope, check_deadline
from insider_otel.web import WebApp

KEY = "insider_otel"
"""Where the ASGI scope has the ``Connection``."""


@dataclass(frozen=True, slots=True)
class Connection:
    """A request, or a WebSocket, that an app handles.

    Attributes:
        web_app: What its middleware has made.
        request_scope: The scope of the request; None for a WebSocket.
    """

    web_app: WebApp
    request_scope: RequestScope | None


def connection_of(connection: HTTPConnection) -> Connection:
    """What the middleware has left for an endpoint.

    Args:
        connection: Starlette's request or WebSocket.

    Raises:
        RuntimeError: There is no such middleware.
    """
    found = connection.scope.get(KEY)
    if not isinstance(found, Connection):
        raise RuntimeError(
            "this app does not use insider-otel yet: call app.add_middleware(insider_otel_fastapi.InsiderMiddleware)"
        )
    return found


async def insider_client(connection: HTTPConnection) -> httpx.AsyncClient:
    """The client of the running event loop: what ``Insider`` depends on.

    In Starlette: ``await insider_client(request)``. In tests: ``app.dependency_overrides[insider_client]``.

    Args:
        connection: The request or WebSocket.

    Raises:
        RuntimeError: The app has no ``InsiderMiddleware``.
    """
    made: httpx.AsyncClient = await connection_of(connection).web_app.clients().async_client()
    return made


# Not plain functions: for those FastAPI would go to a thread and back.
async def sync_insider_client(connection: HTTPConnection) -> httpx.Client:
    """The client of this process, shared by its threads: what ``SyncInsider`` depends on.

    Args:
        connection: The request or WebSocket.

    Raises:
        RuntimeError: The app has no ``InsiderMiddleware``.
    """
    made: httpx.Client = connection_of(connection).web_app.clients().client()
    return made


async def insider_scope(connection: HTTPConnection) -> RequestScope:
    """The scope of the request: its remaining time, its summary so far, and ``set_deadline``.

    Args:
        connection: The request.

    Raises:
        RuntimeError: The app has no ``InsiderMiddleware``, or this is a WebSocket.
    """
    request_scope = connection_of(connection).request_scope
    if request_scope is None:
        raise RuntimeError(
            "a WebSocket has no request scope: give each piece of its work one, `with "
            "insider_otel.request_scope(deadline=2.0):`"
        )
    return request_scope


def deadline(seconds: float | None) -> Callable[[HTTPConnection], Awaitable[None]]:
    """Give a route, or a router, another deadline than ``request_deadline``.

        @app.post("/checkout", dependencies=[Depends(deadline(2.0))])

    Args:
        seconds: Seconds from the beginning of the request by which every call to Insider must be over; None for no
            bound.

    Returns:
        A dependency.

    Raises:
        ValueError: ``seconds`` is not a number of seconds.
    """
    check_deadline(seconds)

    async def set_deadline(connection: HTTPConnection) -> None:
        (await insider_scope(connection)).set_deadline(seconds)

    return set_deadline


async def insider_health(request: Request) -> JSONResponse:
    """How the calls to Insider go: ``app.get("/health/insider")(insider_health)``. It asks nobody.

    The HTTP status is 200 even if Insider is in trouble: that is no reason to take the shop off the load balancer.
    """
    return JSONResponse(insider_otel.health(), headers={"Cache-Control": "no-store"})


Insider = Annotated[httpx.AsyncClient, Depends(insider_client)]
"""The client for ``async def`` endpoints."""

SyncInsider = Annotated[httpx.Client, Depends(sync_insider_client)]
"""The client for ``def`` endpoints, which FastAPI runs in threads."""
