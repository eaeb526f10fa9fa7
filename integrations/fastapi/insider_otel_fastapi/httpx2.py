"""``Insider`` and ``SyncInsider`` of httpx2, the maintained fork of httpx: ``pip install httpx2``."""

from __future__ import annotations

from typing import Annotated

import httpx2
from fastapi import Depends
from starlette.requests import HTTPConnection

from insider_otel_fastapi.endpoints import connection_of


async def insider_client(connection: HTTPConnection) -> httpx2.AsyncClient:
    """The client of the running event loop; see ``insider_otel_fastapi.insider_client``."""
    made: httpx2.AsyncClient = await connection_of(connection).web_app.clients(httpx2).async_client()
    return made


async def sync_insider_client(connection: HTTPConnection) -> httpx2.Client:
    """The client of this process; see ``insider_otel_fastapi.sync_insider_client``."""
    made: httpx2.Client = connection_of(connection).web_app.clients(httpx2).client()
    return made


Insider = Annotated[httpx2.AsyncClient, Depends(insider_client)]
"""The client for ``async def`` endpoints."""

SyncInsider = Annotated[httpx2.Client, Depends(sync_insider_client)]
"""The client for ``def`` endpoints, which FastAPI runs in threads."""
