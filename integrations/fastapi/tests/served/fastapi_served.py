"""The app that the tests serve with uvicorn. Variables say how it is instrumented, and where Insider is."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from typing import Any, Literal

import anyio
import fastapi
import httpx
from fastapi import BackgroundTasks, Depends
from fastapi.responses import StreamingResponse
from insider_otel_fastapi import Insider, InsiderMiddleware, SyncInsider, deadline, insider_health
from insider_otel_fastapi.httpx2 import Insider as Insider2
from insider_testkit.tracing import export_spans
from opentelemetry.instrumentation.fastapi import FastAPIInstrumentor
from opentelemetry.instrumentation.httpx import HTTPXClientInstrumentor
from starlette.concurrency import run_in_threadpool
from starlette.types import ASGIApp

from insider_otel.testing import sample_request

INSIDER = os.environ["SHOP_INSIDER"]
# A crowd on a small machine waits for connections longer than httpx would let it.
PATIENCE = 300.0
UPSERT = sample_request("user.upsert", base_url=INSIDER)
SPANS_OF_MESSAGES: list[Literal["send", "receive"]] = ["send", "receive"]

export_spans()
instrumented = os.environ["SHOP_INSTRUMENTED"]
if "SHOP_HTTPX_INSTRUMENTOR" in os.environ:
    HTTPXClientInstrumentor().instrument()
if instrumented == "before":
    FastAPIInstrumentor().instrument(exclude_spans=SPANS_OF_MESSAGES)

# Releases before FastAPI had a telemetry of its own take the argument and do nothing with it.
telemetry: Any = {"tracing": instrumented != "not", "operation_spans": instrumented == "natively, in detail"}
shop = fastapi.FastAPI(telemetry=telemetry)
keeps_on = "SHOP_KEEPS_ON" in os.environ
is_outermost = instrumented.endswith("inside")
if not is_outermost:
    shop.add_middleware(InsiderMiddleware, error_responses=True, cancel_on_disconnect=not keeps_on)
if instrumented in {"after", "inside"}:
    FastAPIInstrumentor.instrument_app(shop, exclude_spans=SPANS_OF_MESSAGES)

app: ASGIApp = InsiderMiddleware(shop) if is_outermost else shop


async def upsert(insider: httpx.AsyncClient, email: str = "jane@example.com") -> httpx.Response:
    user = {"identifiers": {"email": email}, "attributes": {"age": 30}}
    return await insider.post(UPSERT.url, headers=UPSERT.headers, json={"users": [user]}, timeout=PATIENCE)


def upsert_sync(insider: httpx.Client, email: str = "jane@example.com") -> httpx.Response:
    user = {"identifiers": {"email": email}, "attributes": {"age": 30}}
    return insider.post(UPSERT.url, headers=UPSERT.headers, json={"users": [user]}, timeout=PATIENCE)


@shop.post("/signup")
async def signup(insider: Insider) -> int:
    return (await upsert(insider)).status_code


@shop.post("/signup/sync")
def signup_sync(insider: SyncInsider) -> int:
    return upsert_sync(insider).status_code


@shop.post("/signup/threads")
async def signup_threads(insider: SyncInsider) -> int:
    return (await run_in_threadpool(upsert_sync, insider)).status_code


@shop.post("/signup/httpx2")
async def signup_httpx2(insider: Insider2) -> int:
    response = await insider.post(UPSERT.url, headers=UPSERT.headers, content=UPSERT.content)
    return response.status_code


@shop.post("/signup/untouched")
def signup_untouched() -> int:
    """Code that knows nothing of the adapter."""
    return httpx.post(UPSERT.url, headers=UPSERT.headers, content=UPSERT.content).status_code


@shop.post("/orders/{number}")
async def order_async(number: int, insider: Insider) -> list[int]:
    async def call(part: int) -> None:
        statuses.append((await upsert(insider, f"jane{number}.{part}@example.com")).status_code)

    statuses: list[int] = []
    async with anyio.create_task_group() as tasks:
        for part in range(number % 3 + 1):
            tasks.start_soon(call, part)
    return statuses


@shop.post("/orders/{number}/sync")
def order_sync(number: int, insider: SyncInsider) -> list[int]:
    return [upsert_sync(insider, f"jane{number}.{part}@example.com").status_code for part in range(number % 3 + 1)]


@shop.get("/stream")
async def stream(insider: Insider) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        for _ in range(2):
            yield f"{(await upsert(insider)).status_code}\n"

    return StreamingResponse(lines())


@shop.get("/stream/broken")
async def stream_broken(insider: Insider) -> StreamingResponse:
    async def lines() -> AsyncIterator[str]:
        yield f"{(await upsert(insider)).status_code}\n"
        (await upsert(insider)).raise_for_status()

    return StreamingResponse(lines())


@shop.post("/later")
async def later(insider: Insider, tasks: BackgroundTasks) -> str:
    await upsert(insider)
    tasks.add_task(upsert, insider)
    return "soon"


@shop.post("/careless", dependencies=[Depends(deadline(20.0))])
async def careless(insider: Insider) -> str:
    (await upsert(insider)).raise_for_status()
    return "never handles a failure"


@shop.post("/broken")
async def broken(insider: Insider) -> str:
    await upsert(insider)
    raise LookupError("a mistake of the shop's own")


shop.get("/health/insider")(insider_health)
