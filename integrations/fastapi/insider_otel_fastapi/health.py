"""The health page: ``app.get("/health/insider")(insider_health)``, or ``Route("/health/insider", insider_health)``."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import JSONResponse

import insider_otel


async def insider_health(request: Request) -> JSONResponse:
    """What this process knows of its calls to Insider; it asks nobody.

    The HTTP status is 200 even if Insider is in trouble: that is no reason to take the shop off the load balancer.
    """
    return JSONResponse(insider_otel.health(), headers={"Cache-Control": "no-store"})
