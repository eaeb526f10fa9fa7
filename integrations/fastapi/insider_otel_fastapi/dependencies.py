"""What endpoints ask for: clients, and another deadline."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

import httpx
from fastapi import Depends
from starlette.requests import HTTPConnection

from insider_otel.http.scope import RequestScope, check_deadline
from insider_otel_fastapi.site import connection_of


async def insider_client(connection: HTTPConnection) -> httpx.AsyncClient:
    """The client of the running event loop: what ``Insider`` depends on.

    In Starlette: ``await insider_client(request)``. In tests: ``app.dependency_overrides[insider_client]``.

    Args:
        connection: The request or WebSocket.

    Raises:
        RuntimeError: The app has no ``InsiderMiddleware``.
    """
    made: httpx.AsyncClient = await connection_of(connection).site.clients(httpx).async_client()
    return made


# Not plain functions: for those FastAPI would go to a thread and back.
async def sync_insider_client(connection: HTTPConnection) -> httpx.Client:
    """The client of this process, shared by its threads: what ``SyncInsider`` depends on.

    Args:
        connection: The request or WebSocket.

    Raises:
        RuntimeError: The app has no ``InsiderMiddleware``.
    """
    made: httpx.Client = connection_of(connection).site.clients(httpx).client()
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


Insider = Annotated[httpx.AsyncClient, Depends(insider_client)]
"""The client for ``async def`` endpoints."""

SyncInsider = Annotated[httpx.Client, Depends(sync_insider_client)]
"""The client for ``def`` endpoints, which FastAPI runs in threads."""
