"""``defer``: a call that is to be sent later in any case."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, overload

from insider_otel.http.effects import OPTIONS
from insider_otel.http.instrumentor import leads_past
from insider_otel.outbox.content import CannotDefer

if TYPE_CHECKING:
    from collections.abc import Awaitable

    import httpx


@overload
def defer(
    client: httpx.Client, request: httpx.Request, *, ordering_key: str | None = None, account: str | None = None
) -> httpx.Response: ...


@overload
def defer(
    client: httpx.AsyncClient, request: httpx.Request, *, ordering_key: str | None = None, account: str | None = None
) -> Awaitable[httpx.Response]: ...


def defer(client: Any, request: Any, *, ordering_key: str | None = None, account: str | None = None) -> Any:
    """Keep a call in the outbox, to be sent later in the same trace.

        response = defer(client, client.build_request("POST", url, json=users))

    It is the same as ``client.post(url, json=users, extensions={"insider": {"defer": True}})``.

    Args:
        client: A client of httpx or httpx2, sync or async, whose calls go through insider-otel.
        request: The request.
        ordering_key: Calls with the same key are sent one after another, in the order in which they were deferred; for
            instance a user's identifier, of which a keyed hash is kept.
        account: The app's own name for the account whose credentials the call carries, where it has several.

    Returns:
        The answer 202, whose header ``x-insider-otel`` names the job; from an async client, what is to be awaited.

    Raises:
        CannotDefer: The call cannot be sent later, and why.
        OutboxError: The outbox is in trouble; the call is not kept.
    """
    if leads_past(client, request.url):
        raise CannotDefer(
            f"a call to {request.url.host} would be sent at once, and not be kept: it does not come to insider-otel. "
            "Turn InsiderInstrumentor on, or give the client an InsiderTransport; the host has to be one of Insider's, "
            "or of Settings.hosts"
        )
    from insider_otel.http.deferral import options_of  # noqa: PLC0415  (who defers nothing loads none)

    options_of(request)
    options: dict[str, Any] = {**(request.extensions.get(OPTIONS) or {}), "defer": True}
    if ordering_key is not None:
        options["ordering_key"] = ordering_key
    if account is not None:
        options["account"] = account
    request.extensions = {**request.extensions, OPTIONS: options}
    return client.send(request)
