"""What is odd around a call, and must neither break it nor be taken for something else."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
from opentelemetry import baggage, context
from opentelemetry.propagate import get_global_textmap, set_global_textmap
from opentelemetry.propagators.textmap import TextMapPropagator
from opentelemetry.trace import NoOpTracerProvider

from insider_otel import Category, Settings, Stop, call_of, request_scope
from insider_otel.api.operations import operations
from insider_otel.http.family import family_of
from insider_otel.testing import sample_request

from .conftest import Rig
from .test_calls import OK, UPSERT

# -- whose limit it is -------------------------------------------------------------------------------------------------

CREDENTIALS = {operation.credentials: operation.name for operation in reversed(operations()) if operation.credentials}


@pytest.mark.parametrize("name", CREDENTIALS.values())
def test_one_tenants_rate_limit_does_not_hold_another(rig: Rig, name: str) -> None:
    """Whatever carries the credential: a header, or a field of the body."""
    sample = sample_request(name)
    transport = rig.answers((429, {"error": "rejected: too many requests"}), OK)

    def call(key: str) -> int:
        headers = {field: value.replace("fake-key", key) for field, value in sample.headers.items()}
        body = sample.content.replace(b"fake-key", key.encode())
        status: int = rig.flavour.post(sample.url, transport=transport, content=body, headers=headers).status_code
        return status

    with request_scope(deadline=0.5, clock=rig.clock):
        assert [call("tenant-one"), call("tenant-two"), call("tenant-one")] == [429, 200, 429]


def test_a_key_that_cannot_be_read_holds_nobody_back(rig: Rig) -> None:
    transport = rig.answers((429, {"error": "rejected: too many requests"}), OK)
    url = "https://mobile.useinsider.com/api/v1/push/bulk"
    with request_scope(deadline=0.5, clock=rig.clock):
        statuses = [rig.flavour.post(url, transport=transport, content=b"[[").status_code for _ in range(2)]
    assert statuses == [429, 200]


def test_the_limit_of_a_utc_day_ends_once_it_is_midnight_at_insider_too(rig: Rig) -> None:
    """The fake clock starts at midnight; a minute before the next one, the wait is that minute, the two seconds by
    which Insider's clock may be behind, and a twentieth of both as jitter.
    """
    rig.clock.advance(86_400 - 60)
    transport = rig.answers((429, {"error": "rejected: too many requests"}), OK)
    url = "https://unification.useinsider.com/api/raw/v1/export"
    response = rig.flavour.post(url, transport=transport, json={})
    assert (response.status_code, rig.clock.sleeps) == (200, [65.1])


def test_the_rest_of_a_day_is_counted_from_when_insider_refuses_and_not_from_when_the_call_began(rig: Rig) -> None:
    rig.clock.advance(86_400 - 200)
    transport = rig.answers(
        503, (429, {"error": "rejected: too many requests"}), OK, settings=Settings(quick_retries=0)
    )
    url = "https://unification.useinsider.com/api/raw/v1/export"
    response = rig.flavour.post(url, transport=transport, json={})
    assert (response.status_code, rig.clock.sleeps) == (200, [150.0, pytest.approx(54.6)])


# -- the deadline ------------------------------------------------------------------------------------------------------


@pytest.fixture
def dripping(rig: Rig) -> Iterator[str]:
    """A server that begins an answer and then sends a byte each second, until the client is gone."""
    listener = socket.create_server(("127.0.0.1", 0))
    stop = threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 1000\r\n\r\n")
            try:
                while not stop.wait(0.01):
                    connection.sendall(b" ")
                    rig.clock.advance(1.0)
            except OSError:
                return

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"127.0.0.1:{listener.getsockname()[1]}"
    stop.set()
    listener.close()
    thread.join(5)


def test_a_server_that_drips_does_not_outlast_the_deadline(rig: Rig, dripping: str) -> None:
    """A read timeout starts anew with each byte."""
    settings = Settings(hosts={dripping: "unification.useinsider.com"}, deadline=20.0)
    inner = rig.flavour.transport_class(verify=False)
    transport = rig.wrap(inner, settings=settings)
    with pytest.raises(rig.flavour.module.ReadTimeout) as raised:
        rig.flavour.post(f"http://{dripping}/api/user/v1/upsert", transport=transport, json={})
    assert (call_of(raised.value).attempts, call_of(raised.value).stopped) == (1, Stop.DEADLINE)


@pytest.mark.parametrize(
    ("status", "chunks", "category"),
    [
        pytest.param(202, [b"{}"], "accepted", id="taken"),
        pytest.param(204, [], "success", id="no body"),
        pytest.param(400, [b'{"message": "bad number"}'], "validation", id="refused"),
    ],
)
def test_an_answer_that_comes_with_the_deadline_is_heard(
    rig: Rig, status: int, chunks: list[bytes], category: str
) -> None:
    """Who takes it for silence sends the message a second time."""
    module = rig.flavour.module

    def late(request: Any) -> Any:
        rig.clock.advance(2.5)
        return module.Response(status, stream=rig.flavour.body(*chunks))

    response = rig.flavour.post(
        "https://sms.useinsider.com/v1/send",
        transport=rig.wrap(rig.flavour.answering(late), settings=Settings(deadline=2.0)),
        json={},
    )
    assert (response.status_code, response.content) == (status, b"".join(chunks))
    assert call_of(response).verdict.category == category


def test_a_server_that_drips_is_left_with_the_first_byte_after_the_deadline(rig: Rig) -> None:
    """An answer that comes late has its body with it; one that does not would take a read timeout for each byte."""
    module = rig.flavour.module

    class Dripping(module.SyncByteStream, module.AsyncByteStream):  # type: ignore[misc, name-defined]
        def __iter__(self) -> Iterator[bytes]:
            while True:
                rig.clock.advance(0.9)
                yield b" "

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for chunk in self:
                yield chunk

    transport = rig.wrap(
        rig.flavour.answering(lambda request: module.Response(200, stream=Dripping())), settings=Settings(deadline=2.0)
    )
    began = rig.clock()
    with pytest.raises(module.ReadTimeout):
        rig.flavour.post("https://sms.useinsider.com/v1/send", transport=transport, json={})
    assert rig.clock() - began == pytest.approx(2.7)


def test_a_retry_with_milliseconds_left_is_not_sent(rig: Rig) -> None:
    """Cut off by the deadline, it would make an honest 503 a timeout, after which an SMS can never be sent again."""
    settings = Settings(quick_retries=1, quick_delay=0.5, deadline=0.28)
    transport = rig.answers(503, "ReadTimeout", settings=settings)
    response = rig.flavour.post("https://sms.useinsider.com/v1/send", transport=transport, json={})
    assert (response.status_code, call_of(response).attempts, call_of(response).stopped) == (503, 1, Stop.DEADLINE)


@pytest.mark.parametrize("deadline", [-1, float("nan"), float("inf"), "5"])
def test_a_scope_refuses_what_is_no_length_of_time(deadline: Any) -> None:
    with pytest.raises(ValueError, match="deadline is"), request_scope(deadline=deadline):
        pass


# -- what lies below and beside ----------------------------------------------------------------------------------------


def test_a_transport_below_can_ask_for_the_content(rig: Rig) -> None:
    """To sign it, or to log it."""
    base = rig.flavour.module.AsyncBaseTransport if rig.flavour.is_async else rig.flavour.module.BaseTransport
    signed: list[bytes] = []

    class Signing(base):  # type: ignore[misc, valid-type]
        def handle_request(self, request: Any) -> Any:
            signed.append(request.content)
            return rig.flavour.module.Response(200, json=OK[1])

        async def handle_async_request(self, request: Any) -> Any:
            return self.handle_request(request)

    rig.flavour.post(UPSERT, transport=rig.wrap(Signing()), json={"users": []})
    assert [json.loads(content) for content in signed] == [{"users": []}]


@pytest.mark.parametrize("peer", [RuntimeError("closed"), ("10.0.0.1",), "/run/insider.sock", None, ("10.0.0.1", 443)])
def test_a_connection_that_does_not_tell_its_peer_breaks_no_call(rig: Rig, peer: Any) -> None:
    class Stream:
        def get_extra_info(self, info: str) -> Any:
            if isinstance(peer, Exception):
                raise peer
            return peer

    def handler(request: Any) -> Any:
        return rig.flavour.module.Response(200, json=OK[1], extensions={"network_stream": Stream()})

    response = rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler)), json={})
    assert call_of(response).attempts == 1
    (attempt,) = rig.spans.attempts()
    told = peer == ("10.0.0.1", 443)
    assert attempt.attributes["network.peer.address"] == ("10.0.0.1" if told else "unification.useinsider.com")


def test_a_propagator_that_raises_breaks_no_call_and_leaves_no_span_open(
    rig: Rig, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(TextMapPropagator):
        @property
        def fields(self) -> set[str]:
            return {"x-trace"}

        def extract(self, *arguments: Any, **more: Any) -> Any:
            raise AssertionError("nothing is extracted here")

        def inject(self, *arguments: Any, **more: Any) -> None:
            raise RuntimeError("token-of-the-shop")

    before = get_global_textmap()
    set_global_textmap(Broken())
    try:
        response = rig.flavour.post(UPSERT, transport=rig.answers(OK), json={})
    finally:
        set_global_textmap(before)
    assert response.status_code == 200
    assert rig.spans.tree() == ["call user.upsert succeeded", "  POST /api/user/v1/upsert 200"]
    assert "RuntimeError" in caplog.text
    assert "token-of-the-shop" not in caplog.text


def test_the_headers_of_a_propagator_without_a_hash_are_sent_and_replace_those_of_earlier_spans(rig: Rig) -> None:
    @dataclass
    class Signature(TextMapPropagator):
        """A dataclass: it has no hash, and is equal to another one."""

        def __init__(self, header: str) -> None:
            self.header = header

        @property
        def fields(self) -> set[str]:
            return {self.header}

        def extract(self, *arguments: Any, **more: Any) -> Any:
            raise AssertionError("nothing is extracted here")

        def inject(self, carrier: Any, *arguments: Any, **more: Any) -> None:
            carrier[self.header] = "ours"

    sent: list[dict[str, str]] = []

    def handler(request: Any) -> Any:
        sent.append({name: value for name, value in request.headers.items() if name.startswith("x-trace")})
        return rig.flavour.module.Response(200, json=OK[1])

    before = get_global_textmap()
    try:
        for header in ("X-Trace-One", "X-Trace-Two"):
            set_global_textmap(Signature(header))
            stale = {"X-Trace-One": "stale", "X-Trace-Two": "stale"}
            rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler)), json={}, headers=stale)
    finally:
        set_global_textmap(before)
    assert sent == [
        {"x-trace-one": "ours", "x-trace-two": "stale"},
        {"x-trace-one": "stale", "x-trace-two": "ours"},
    ]


def test_without_an_sdk_the_headers_of_other_tracers_stay(rig: Rig) -> None:
    """Datadog's, Sentry's, or the app's own, to a gateway that knows them."""
    foreign = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "tracestate": "dd=s:1", "baggage": "sentry-release=1"}
    sent = headers_sent(rig, foreign, tracer_provider=NoOpTracerProvider())
    assert {name: sent.get(name) for name in foreign} == foreign
    token = context.attach(baggage.set_baggage("shop", "blue"))
    try:
        sent = headers_sent(rig, foreign, tracer_provider=NoOpTracerProvider())
    finally:
        context.detach(token)
    assert {name: sent.get(name) for name in foreign} == {**foreign, "baggage": "shop=blue"}


def test_baggage_that_is_in_the_headers_alone_stays(rig: Rig) -> None:
    """It belongs to no span; that of the context takes its place, and here is none."""
    sent = headers_sent(rig, {"tracestate": "dd=s:1", "baggage": "sentry-release=1"})
    assert "tracestate" not in sent
    assert sent["baggage"] == "sentry-release=1"


def headers_sent(rig: Rig, headers: dict[str, str], **options: Any) -> dict[str, str]:
    sent: list[dict[str, str]] = []

    def handler(request: Any) -> Any:
        sent.append(dict(request.headers))
        return rig.flavour.module.Response(200, json=OK[1])

    rig.flavour.post(UPSERT, transport=rig.wrap(rig.flavour.answering(handler), **options), json={}, headers=headers)
    (only,) = sent
    return only


# -- where Insider is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("hosts", "url", "product"),
    [
        ({}, "https://UNIFICATION.useinsider.com./api/user/v1/upsert", "unification"),
        ({"proxy.test:443": "mail.useinsider.com"}, "https://proxy.test/mail/v1/send", "mail"),
        ({"proxy.test:80": "mail.useinsider.com"}, "http://proxy.test:80/mail/v1/send", "mail"),
        ({"proxy.test": "mail.useinsider.com"}, "http://proxy.test:8080/mail/v1/send", "mail"),
        ({"[::1]": "mail.useinsider.com"}, "http://[::1]:8080/mail/v1/send", "mail"),
        ({"[::1]:8080": "mail.useinsider.com"}, "http://[::1]:8080/mail/v1/send", "mail"),
        ({"proxy.test": "*", "proxy.test:81": "sms.useinsider.com"}, "http://proxy.test:81/mail/v1/send", "sms"),
        ({"proxy.test:81": "*"}, "http://proxy.test:81/mail/v1/send", "mail"),
        ({"proxy.test:81": "*"}, "http://proxy.test:82/mail/v1/send", None),
        ({"proxy.test": "*"}, "http://other.test/mail/v1/send", None),
    ],
)
def test_an_address_is_insiders_by_name_and_port(
    rig: Rig, hosts: dict[str, str], url: str, product: str | None
) -> None:
    response = rig.flavour.post(url, transport=rig.answers(OK, settings=Settings(hosts=hosts)), json={})
    if product is None:
        assert "insider_otel" not in response.extensions
    else:
        assert call_of(response).operation.product == product


# -- odd answers -------------------------------------------------------------------------------------------------------


def test_a_body_that_is_not_coded_as_it_says_is_judged_by_its_status_and_left_as_it_is(rig: Rig) -> None:
    body = rig.flavour.body(b"not gzip at all")

    def handler(request: Any) -> Any:
        return rig.flavour.module.Response(401, headers={"content-encoding": "gzip"}, stream=body)

    seen: list[Any] = []
    raw = rig.flavour.stream(UPSERT, on_open=seen.append, transport=rig.wrap(rig.flavour.answering(handler)))
    assert raw == b"not gzip at all"
    assert call_of(seen[0]).verdict.category is Category.AUTHENTICATION


def test_a_switch_of_protocols_is_left_alone(rig: Rig) -> None:
    body = rig.flavour.body(b"frames")

    def handler(request: Any) -> Any:
        return rig.flavour.module.Response(101, stream=body)

    seen: list[Any] = []
    raw = rig.flavour.stream(UPSERT, on_open=seen.append, transport=rig.wrap(rig.flavour.answering(handler)))
    assert raw == b"frames"
    assert call_of(seen[0]).attempts == 1


def test_an_answer_that_somebody_closed_unread_is_judged_by_its_status(rig: Rig) -> None:
    module = rig.flavour.module

    def handler(request: Any) -> Any:
        response = module.Response(429, stream=rig.flavour.body(b"{}"))
        response.is_closed = True
        return response

    seen: list[Any] = []
    with request_scope(deadline=1.0, clock=rig.clock):
        transport = rig.wrap(rig.flavour.answering(handler))
        rig.flavour.stream(UPSERT, on_open=seen.append, read=False, transport=transport)
    assert call_of(seen[0]).verdict.category is Category.RATE_LIMIT


def test_what_is_no_request_of_either_family_is_refused_by_name() -> None:
    class Request:
        """Some other library's."""

    with pytest.raises(TypeError, match="Request is no request of httpx or httpx2"):
        family_of(Request())  # type: ignore[arg-type]
