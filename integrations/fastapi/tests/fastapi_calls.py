"""An app with the middleware, and calls from its endpoints."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Annotated, Any

from fastapi import Depends, FastAPI
from insider_otel_fastapi import InsiderMiddleware, insider_scope
from insider_testkit.servers import Server

from insider_otel import RequestScope
from insider_otel.testing import sample_request

UPSERT = sample_request("user.upsert")
Serve = Callable[..., AbstractContextManager[Server]]
Scoped = Annotated[RequestScope, Depends(insider_scope)]


def app_with(**options: Any) -> FastAPI:
    app = FastAPI(telemetry={"tracing": False})
    app.add_middleware(InsiderMiddleware, **options)
    return app


async def upsert(insider: Any) -> Any:
    return await insider.post(UPSERT.url, headers=UPSERT.headers, content=UPSERT.content)


def upsert_sync(insider: Any) -> Any:
    return insider.post(UPSERT.url, headers=UPSERT.headers, content=UPSERT.content)
