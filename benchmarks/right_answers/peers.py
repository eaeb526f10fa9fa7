"""What is asked: each peer's default rule, run where it is installed and else as its project publishes it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import httpx
import stamina
import stamina.instrumentation
import tenacity
from httpx_retries import RetryTransport
from urllib3.util.retry import Retry as Urllib3Retry

from benchmarks.right_answers.replies import Reply
from insider_otel import InsiderTransport, Outcome, Settings, call_of
from insider_otel.testing import FakeClock

# Limits that the replies name are learned, and that is said in the log: not here.
logging.getLogger("insider_otel").addHandler(logging.NullHandler())

ADDRESSES: Mapping[str, str] = {
    "POST": "https://unification.useinsider.com/api/user/v1/upsert",
    "GET": "https://recommendation.api.useinsider.com/v2/most-popular",
}
"""An operation for each method, both of them safe to repeat."""


@dataclass(frozen=True, slots=True)
class Heard:
    """What a peer made of a reply.

    Attributes:
        retried: Whether it sent the request again.
        failed: Whether it says that the call failed: by an exception, or in its record of the call.
    """

    retried: bool
    failed: bool


class _Wire(httpx.BaseTransport):
    """Gives the same reply to every request, and counts them."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self.requests = 0

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        request.read()
        self.requests += 1
        reply = self._reply
        return httpx.Response(reply.status, content=reply.body.encode(), headers=list(reply.headers), request=request)


Peer = Callable[[str, Reply], Heard]
"""Puts a reply to a request with this method."""


def _send(client: httpx.Client, method: str) -> httpx.Response:
    return client.request(method, ADDRESSES[method], json={"users": []} if method == "POST" else None)


def _raises(response: httpx.Response) -> bool:
    """Whether ``raise_for_status``, which an app calls after those that return the response, raises."""
    try:
        response.raise_for_status()
    except httpx.HTTPStatusError:
        return True
    return False


def by_status(post: frozenset[int], get: frozenset[int], *, any_with_retry_after: bool = False) -> Peer:
    """A published rule: the statuses that are tried again.

    Args:
        post: Those after a POST.
        get: Those after a GET.
        any_with_retry_after: Whether every error with ``Retry-After`` is tried again.
    """

    def ask(method: str, reply: Reply) -> Heard:
        is_error = reply.status >= 400
        told = any_with_retry_after and is_error and bool(dict(reply.headers).get("Retry-After"))
        return Heard(told or reply.status in (post if method == "POST" else get), is_error)

    return ask


def _httpx_retries(method: str, reply: Reply) -> Heard:
    wire = _Wire(reply)
    with httpx.Client(transport=RetryTransport(wire)) as client:
        response = _send(client, method)
    return Heard(wire.requests > 1, _raises(response))


def _urllib3(method: str, reply: Reply) -> Heard:
    retry = Urllib3Retry.DEFAULT.is_retry(method, reply.status, "Retry-After" in dict(reply.headers))
    return Heard(retry, reply.status >= 400)


def _stamina(on: type[Exception] | Callable[[Exception], bool]) -> Peer:
    def ask(method: str, reply: Reply) -> Heard:
        wire = _Wire(reply)
        with httpx.Client(transport=wire) as client, _quiet_stamina():
            try:
                for attempt in stamina.retry_context(on=on, attempts=2, wait_initial=0, wait_jitter=0):
                    with attempt:
                        _send(client, method).raise_for_status()
            except httpx.HTTPStatusError:
                return Heard(wire.requests > 1, True)
        return Heard(wire.requests > 1, False)

    return ask


@contextmanager
def _quiet_stamina() -> Iterator[None]:
    hooks = stamina.instrumentation.get_on_retry_hooks()
    stamina.instrumentation.set_on_retry_hooks([])
    try:
        yield
    finally:
        stamina.instrumentation.set_on_retry_hooks(hooks)


def _is_server_error(error: Exception) -> bool:
    """The hook that stamina's documentation describes: "errors in the 500s", not "those in the 400s"."""
    return error.response.status_code >= 500 if isinstance(error, httpx.HTTPStatusError) else True


def _tenacity(method: str, reply: Reply) -> Heard:
    wire = _Wire(reply)
    with httpx.Client(transport=wire) as client:
        try:
            for attempt in tenacity.Retrying(stop=tenacity.stop_after_attempt(2), reraise=True):
                with attempt:
                    _send(client, method).raise_for_status()
        except httpx.HTTPStatusError:
            return Heard(wire.requests > 1, True)
    return Heard(wire.requests > 1, False)


def _insider_otel(method: str, reply: Reply) -> Heard:
    wire, clock = _Wire(reply), FakeClock()
    transport = InsiderTransport(wire, settings=Settings(), clock=clock, sleep=clock.sleep)
    with httpx.Client(transport=transport) as client:
        call = call_of(_send(client, method))
    return Heard(call.attempts > 1, call.outcome is not Outcome.SUCCEEDED)


_ANY_5XX = frozenset(range(500, 600))
_PLAIN = _ANY_5XX | {429}
_AZURE = frozenset({408, 429, 500, 502, 503, 504}) | frozenset(range(506, 600))
_BOTOCORE = frozenset({429, 500, 502, 503, 504})

OURS = "insider-otel"
PEERS: Mapping[str, Peer] = {
    "raise_for_status, 5xx and 429 again": by_status(_PLAIN, _PLAIN),
    "httpx-retries": _httpx_retries,
    "stamina, `on=httpx.HTTPError`": _stamina(httpx.HTTPError),
    "stamina, hook for 5xx": _stamina(_is_server_error),
    "tenacity, raise_for_status": _tenacity,
    "urllib3 Retry": _urllib3,
    # RetryPolicy of azure-core 1.41.0: _RETRY_CODES for methods that can be repeated, and is_retry's list for POST.
    "azure-core RetryPolicy": by_status(frozenset({500, 503, 504}), _AZURE, any_with_retry_after=True),
    # StandardRetryConditions of botocore 1.44.5, without the error codes, which are AWS's own.
    "botocore, standard mode": by_status(_BOTOCORE, _BOTOCORE),
    OURS: _insider_otel,
}
"""By name. stamina's own examples are its README's and its API page's; the others are what one gets without options."""
