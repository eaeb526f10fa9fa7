"""The fake as an ASGI 3 app."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any
from urllib.parse import quote

import anyio

from insider_otel.testing._wire import Decide, End, Request

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]

RESET = "insider_otel.reset"
"""The ASGI extension by which a server lets the app reset its connection; ``server.py`` has it."""


async def run_asgi(decide: Decide, scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one request, or the lifespan messages of a server.

    Args:
        decide: Says what happens to a request.
        scope: The ASGI scope.
        receive: The ASGI receive function.
        send: The ASGI send function.
    """
    if scope["type"] == "lifespan":
        await _lifespan(receive, send)
        return
    if scope["type"] != "http":
        raise RuntimeError(f"FakeInsider answers HTTP, not {scope['type']}")
    body = await _read(receive)
    if body is None:
        return
    plan = decide(_request(scope, body))
    if plan.end is End.SILENCE:
        await _disconnected(receive)
        return
    if plan.delay:
        with anyio.move_on_after(plan.delay):
            await _disconnected(receive)
            return
    if plan.end is End.RESET:
        await _reset(scope, receive, send)
        return
    content = plan.reply.body
    cut = plan.end is End.TRUNCATED
    length = max(len(content), plan.after_bytes + 1) if cut else len(content)
    headers = {**plan.reply.all_headers(), "content-length": str(length)}
    await send(_start(plan.reply.status, headers))
    await send({"type": "http.response.body", "body": content[: plan.after_bytes if cut else length], "more_body": cut})
    if cut:
        await _break_off(scope, receive)


async def _lifespan(receive: Receive, send: Send) -> None:
    while True:
        message = await receive()
        await send({"type": f"{message['type']}.complete"})
        if message["type"] == "lifespan.shutdown":
            return


async def _read(receive: Receive) -> bytes | None:
    """The whole body; None if the client left before it was there."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


def _request(scope: Scope, body: bytes) -> Request:
    headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
    raw_path = scope.get("raw_path") or scope["path"].encode()
    return Request(
        method=scope["method"],
        host=headers.get("host", "").partition(":")[0].lower(),
        path=_below(scope.get("root_path", ""), raw_path.decode("latin-1").partition("?")[0]),
        query=scope.get("query_string", b"").decode("latin-1"),
        headers=headers,
        body=body,
    )


def _below(root_path: str, raw_path: str) -> str:
    """A path without the prefix under which the fake is mounted."""
    root = quote(root_path.rstrip("/"))
    return raw_path.removeprefix(root) if raw_path.startswith(f"{root}/") else raw_path


def _start(status: int, headers: Mapping[str, str]) -> Message:
    pairs = [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers.items()]
    return {"type": "http.response.start", "status": status, "headers": pairs}


async def _reset(scope: Scope, receive: Receive, send: Send) -> None:
    extension = scope.get("extensions", {}).get(RESET)
    if extension is None:
        # A server without the extension can only be made to close the connection: by an answer that is never finished.
        await send(_start(200, {"content-length": "1"}))
        return
    extension["reset"]()
    await _disconnected(receive)


async def _break_off(scope: Scope, receive: Receive) -> None:
    extension = scope.get("extensions", {}).get(RESET)
    if extension is not None:
        extension["close"]()
        await _disconnected(receive)
    # A server without the extension closes the connection when an app returns in the middle of a body.


async def _disconnected(receive: Receive) -> None:
    """Wait until the client, or the server, has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
