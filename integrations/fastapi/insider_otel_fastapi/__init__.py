"""insider-otel for FastAPI and Starlette.

    app = FastAPI()
    app.add_middleware(InsiderMiddleware, request_deadline=3.0)

    @app.post("/signup")
    async def signup(insider: Insider):
        await insider.post("https://unification.useinsider.com/api/user/v1/upsert", json=..., headers=...)

Options are keywords of ``InsiderMiddleware``; ``INSIDER_OTEL_*`` variables win.
"""

from insider_otel_fastapi.clients import async_client, client, override
from insider_otel_fastapi.endpoints import (
    Insider,
    SyncInsider,
    deadline,
    insider_client,
    insider_health,
    insider_scope,
    sync_insider_client,
)
from insider_otel_fastapi.middleware import InsiderMiddleware

__all__ = [
    "Insider",
    "InsiderMiddleware",
    "SyncInsider",
    "async_client",
    "client",
    "deadline",
    "insider_client",
    "insider_health",
    "insider_scope",
    "override",
    "sync_insider_client",
]
