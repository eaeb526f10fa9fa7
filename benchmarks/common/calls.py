"""The call that is measured: the same request and the same reply for the library and for its peers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from insider_otel.testing import sample_request

UPSERT = sample_request("user.upsert")
MAIL = sample_request("mail.send")
OTHER_URL = "https://api.example.com/v1/orders"
REPLY = b'{"data": {"successful": {"count": 1}, "fail": {}}}'
REPLY_HEADERS = {
    "content-type": "application/json",
    "cf-ray": "8f00000000000000-IST",
    "content-length": str(len(REPLY)),
}


def headers_of(account: str) -> dict[str, str]:
    """The headers of an upsert: each account has a limit of its own, and no peer's calls fill up another's."""
    return {**UPSERT.headers, "X-REQUEST-TOKEN": account}


def instant_transport(module: Any) -> Any:
    """A transport for sync and async clients that answers at once.

    As from a socket, its replies are streams that are yet to be read.

    Args:
        module: ``httpx`` or ``httpx2``.
    """

    class OneChunk(module.SyncByteStream, module.AsyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield REPLY

        async def __aiter__(self) -> AsyncIterator[bytes]:
            yield REPLY

    response: Callable[..., Any] = module.Response

    class Instant(module.BaseTransport, module.AsyncBaseTransport):  # type: ignore[misc]
        def handle_request(self, request: Any) -> Any:
            return response(200, headers=REPLY_HEADERS, stream=OneChunk())

        async def handle_async_request(self, request: Any) -> Any:
            return response(200, headers=REPLY_HEADERS, stream=OneChunk())

    return Instant()
