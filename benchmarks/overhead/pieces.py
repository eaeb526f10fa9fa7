"""What the parts of the library cost, one turned on or off at a time: sync, httpx, in process."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any

import httpx

from benchmarks.common.calls import MAIL, OTHER_URL, UPSERT, headers_of, instant_transport
from benchmarks.common.sdk import SDK
from benchmarks.common.timing import Samples, interleaved, repeated
from benchmarks.overhead.variants import NOTHING_HELD
from insider_otel import InsiderInstrumentor, InsiderTransport, Settings, request_scope
from tests.state.redis_server import find_program, redis_server

CALLS = {
    "upsert, defaults": "upsert, bare",
    "upsert, no limits": "upsert, bare",
    "upsert, every repeat held back": "upsert, bare",
    "upsert, observed": "upsert, bare",
    "upsert, in a request scope": "upsert, bare",
    "upsert, limits in sqlite": "upsert, bare",
    "upsert, limits in redis": "upsert, bare",
    "mail, defaults": "mail, bare",
    "mail, repeats not held back": "mail, bare",
    "mail, nothing held": "mail, bare",
}
"""What is measured, and what it is measured against."""

OWN_ACCOUNT = {"transport": "transport, without ours", "instrumentor": "instrumentor, before it"}
"""The same for a request to another host, without a client around it."""

_ROUNDS, _COUNT = 40, 30
_SHORT_ROUNDS, _SHORT_COUNT = 40, 2_000


def _upsert(account: str, transport: Any) -> Callable[[], object]:
    client = httpx.Client(transport=transport)
    headers = headers_of(account)
    number = itertools.count()
    # Each call has a content of its own, as long as the others', else the second would be a duplicate.
    return lambda: client.post(UPSERT.url, content=b"%s%9d" % (UPSERT.content, next(number)), headers=headers)


def _mail(account: str, transport: Any) -> Callable[[], object]:
    client = httpx.Client(transport=transport)
    headers = {**MAIL.headers, "X-INS-AUTH-KEY": account}
    number = itertools.count(100_000_000)
    before, after = MAIL.content.split(b"Your order")
    return lambda: client.post(MAIL.url, content=b"%sYour order %d%s" % (before, next(number), after), headers=headers)


def _calls(sdk: SDK, stack: ExitStack) -> Samples:
    def insider(**settings: Any) -> InsiderTransport:
        return InsiderTransport(instant_transport(httpx), settings=Settings(**settings), **sdk.recording())

    def in_scope(send: Callable[[], object]) -> Callable[[], object]:
        def scoped() -> None:
            with request_scope(deadline=30):
                send()

        return scoped

    directory = Path(stack.enter_context(TemporaryDirectory(prefix="insider-otel-")))
    sends = {
        "upsert, bare": _upsert("bare", instant_transport(httpx)),
        "upsert, defaults": _upsert("defaults", insider()),
        "upsert, no limits": _upsert("no limits", insider(**NOTHING_HELD)),
        "upsert, every repeat held back": _upsert("all", insider(dedupe="all")),
        "upsert, observed": _upsert("observed", insider(mode="observe")),
        "upsert, in a request scope": in_scope(_upsert("scope", insider())),
        "upsert, limits in sqlite": _upsert("sqlite", insider(state=f"sqlite:///{directory / 'state.db'}")),
        "mail, bare": _mail("bare", instant_transport(httpx)),
        "mail, defaults": _mail("defaults", insider()),
        "mail, repeats not held back": _mail("repeats", insider(dedupe="off")),
        "mail, nothing held": _mail("nothing", insider(dedupe="off", limits={"mail.send": "off"})),
    }
    if find_program() is not None:
        server = stack.enter_context(redis_server(tcp=True))
        sends["upsert, limits in redis"] = _upsert("redis", insider(state=server.url))
    return interleaved({name: repeated(send, _COUNT, perf_counter) for name, send in sends.items()}, _ROUNDS)


def _own_account(sdk: SDK) -> Samples:
    request = httpx.Request("POST", OTHER_URL, content=UPSERT.content)
    inner = instant_transport(httpx)
    outer = InsiderTransport(inner, **sdk.recording())
    client: Any = httpx.Client(transport=inner)
    before = client._transport_for_url  # what the instrumentor puts itself in front of
    InsiderInstrumentor().instrument(**sdk.recording())
    try:
        steps = {
            "transport, without ours": lambda: inner.handle_request(request),
            "transport": lambda: outer.handle_request(request),
            "instrumentor, before it": lambda: before(request.url),
            "instrumentor": lambda: client._transport_for_url(request.url),
        }
        return interleaved({name: repeated(step, _SHORT_COUNT) for name, step in steps.items()}, _SHORT_ROUNDS)
    finally:
        InsiderInstrumentor().uninstrument()


def measure() -> tuple[Samples, Samples]:
    """Seconds per call of each of ``CALLS``, and per request of each of ``OWN_ACCOUNT``."""
    sdk = SDK.start()
    try:
        with ExitStack() as stack:
            calls = _calls(sdk, stack)
        return calls, _own_account(sdk)
    finally:
        sdk.shutdown()
