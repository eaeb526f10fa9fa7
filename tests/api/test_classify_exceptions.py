"""classify: what an exception in place of a reply means."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import Iterator

import httpx
import pytest
import trustme

from insider_otel import Category, Fault, Retry, classify
from insider_otel.api.responses import may_have_arrived

EXCEPTIONS = [
    ("ConnectTimeout", "timeout", "backoff", "network", False),
    ("ReadTimeout", "timeout", "backoff", "insider", True),
    ("WriteTimeout", "timeout", "backoff", "network", True),
    ("PoolTimeout", "timeout", "backoff", "caller", False),
    ("ConnectError", "network", "backoff", "network", False),
    ("ReadError", "network", "backoff", "network", True),
    ("WriteError", "network", "backoff", "network", True),
    ("CloseError", "network", "backoff", "network", True),
    ("RemoteProtocolError", "network", "backoff", "network", True),
    ("ProxyError", "network", "backoff", "network", False),
    ("LocalProtocolError", "validation", "never", "caller", False),
    ("UnsupportedProtocol", "configuration", "never", "caller", False),
    ("DecodingError", "unexpected", "never", "network", True),
    ("TooManyRedirects", "unexpected", "never", "caller", True),
]


@pytest.mark.parametrize("module", ["httpx", "httpx2"])
@pytest.mark.parametrize(("name", "category", "retry", "fault", "arrived"), EXCEPTIONS)
def test_an_exception_means_the_same_in_httpx_and_httpx2(
    module: str, name: str, category: str, retry: str, fault: str, arrived: bool
) -> None:
    """Their classes differ but have the same names."""
    exception = getattr(pytest.importorskip(module), name)("https://mail.useinsider.com/?email=jane@example.com")
    verdict = classify(None, exception=exception)
    assert (verdict.category, verdict.retry, verdict.fault) == (category, retry, fault)
    assert verdict.rule == f"exception.{name}"
    assert verdict.message == ""
    assert may_have_arrived(exception) is arrived


def test_an_exception_of_a_class_nobody_knows_is_read_by_its_bases() -> None:
    """A transport may raise its own kinds of errors."""

    class OddResetError(ConnectionResetError):
        pass

    class OddError(Exception):
        pass

    assert classify(None, exception=OddResetError()).rule == "exception.ConnectionResetError"
    assert classify(None, exception=OddError()).rule == "exception.BaseException"
    assert may_have_arrived(OddError())


@pytest.fixture
def untrusted() -> Iterator[str]:
    """The URL of a server on this machine whose certificate no client trusts."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    trustme.CA().issue_cert("127.0.0.1").configure_cert(context)
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)

    def refuse() -> None:
        # The client breaks the handshake off, which is an error on this side as well.
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            connection.settimeout(5)
            with connection, contextlib.suppress(OSError):
                context.wrap_socket(connection, server_side=True).close()

    server = threading.Thread(target=refuse)
    server.start()
    yield f"https://127.0.0.1:{listener.getsockname()[1]}/"
    server.join(5)
    listener.close()


@pytest.mark.parametrize("module", ["httpx", "httpx2"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_certificate_that_is_not_trusted_is_found_behind_the_clients_error(
    module: str, asynchronous: bool, untrusted: str
) -> None:
    """The client says only that it could not connect, and another try cannot help."""
    client = pytest.importorskip(module)

    async def get_asynchronously() -> None:
        async with client.AsyncClient(trust_env=False, timeout=5) as session:
            await session.get(untrusted)

    def get() -> None:
        with client.Client(trust_env=False, timeout=5) as session:
            session.get(untrusted)

    with pytest.raises(client.ConnectError) as refused:
        asyncio.run(get_asynchronously()) if asynchronous else get()
    verdict = classify(None, exception=refused.value)
    assert (verdict.rule, verdict.retry) == ("exception.SSLCertVerificationError", Retry.NEVER)
    assert not may_have_arrived(refused.value)


HTTP2_SETTINGS = b"\0\0\0\x04\0\0\0\0\0"
HTTP2_HEADERS_THAT_ARE_NONE = b"\0\0\x02\x01\x05\0\0\0\x01\xff\xff"


@pytest.fixture
def babbling() -> Iterator[tuple[str, list[bytes]]]:
    """The URL of a server that reads a request by HTTP/2 and answers with headers that are none; and what it read."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(5)
    got: list[bytes] = []

    def babble() -> None:
        with contextlib.suppress(OSError):
            connection, _ = listener.accept()
            connection.settimeout(5)
            with connection:
                connection.sendall(HTTP2_SETTINGS)
                while b"jane@example.com" not in b"".join(got) and (piece := connection.recv(65536)):
                    got.append(piece)
                connection.sendall(HTTP2_HEADERS_THAT_ARE_NONE)
                while connection.recv(65536):
                    pass

    server = threading.Thread(target=babble)
    server.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/", got
    server.join(5)
    listener.close()


@pytest.mark.parametrize("module", ["httpx", "httpx2"])
@pytest.mark.parametrize("asynchronous", [False, True])
def test_what_a_server_breaks_in_http2_is_not_the_clients_fault(
    module: str, asynchronous: bool, babbling: tuple[str, list[bytes]]
) -> None:
    """The client takes it for its own; and the server has read it all."""
    pytest.importorskip("h2")
    client = pytest.importorskip(module)
    url, got = babbling
    how = {"http1": False, "http2": True, "trust_env": False, "timeout": 5}

    async def post_asynchronously() -> None:
        async with client.AsyncClient(**how) as session:
            await session.post(url, json={"to": "jane@example.com"})

    def post() -> None:
        with client.Client(**how) as session:
            session.post(url, json={"to": "jane@example.com"})

    with pytest.raises(client.LocalProtocolError) as broken:
        asyncio.run(post_asynchronously()) if asynchronous else post()
    verdict = classify(None, exception=broken.value)
    assert (verdict.rule, verdict.retry, verdict.fault) == ("exception.RemoteProtocolError", "backoff", "network")
    assert may_have_arrived(broken.value)
    assert b"jane@example.com" in b"".join(got)


@pytest.mark.parametrize("module", ["httpx", "httpx2"])
def test_headers_that_http2_forbids_are_the_clients_fault(module: str, babbling: tuple[str, list[bytes]]) -> None:
    """Nothing of the request leaves."""
    pytest.importorskip("h2")
    client = pytest.importorskip(module)
    url, got = babbling
    with (
        client.Client(http1=False, http2=True, trust_env=False, timeout=5) as session,
        pytest.raises(client.LocalProtocolError) as refused,
    ):
        session.post(url, json={"to": "jane@example.com"}, headers={"TE": "gzip"})
    verdict = classify(None, exception=refused.value)
    assert (verdict.rule, verdict.retry) == ("exception.LocalProtocolError", "never")
    assert not may_have_arrived(refused.value)
    assert b"jane" not in b"".join(got)


def test_what_the_app_was_handling_when_it_made_the_call_says_nothing_of_the_call() -> None:
    """A second call after a certificate that was refused may well have arrived."""

    def first() -> None:
        raise httpx.ConnectError("refused") from ssl.SSLCertVerificationError("self-signed certificate")

    def second() -> None:
        try:
            first()
        except httpx.ConnectError:
            raise httpx.ReadTimeout("too slow") from TimeoutError()

    def third() -> None:
        try:
            first()
        except httpx.ConnectError:
            raise httpx.ReadTimeout("too slow")  # noqa: B904 - the context is what is tested

    for call in (second, third):
        with pytest.raises(httpx.ReadTimeout) as late:
            call()
        assert late.value.__context__ is not None
        assert classify(None, exception=late.value).rule == "exception.ReadTimeout"
        assert may_have_arrived(late.value)


def test_a_chain_of_exceptions_that_goes_round_in_circles_ends() -> None:
    """Nothing forbids an exception to be its own cause's cause."""
    one, two = OSError(), ValueError()
    one.__cause__, two.__cause__ = two, one
    assert classify(None, exception=one).category is Category.NETWORK


def test_cancelling_is_nobodys_fault() -> None:
    """The app gave up the call; nobody is to be paged."""
    assert classify(None, exception=asyncio.CancelledError()).fault is Fault.NONE


def test_an_error_status_stays_true_when_its_body_breaks_off() -> None:
    """A 503 is one without its body, too; a 200 leaves open what it would have said."""
    broken = ConnectionResetError()
    assert classify(503, b'{"err', exception=broken, truncated=True).category is Category.UNAVAILABLE
    assert classify(200, b'{"da', exception=broken, truncated=True).rule == "exception.ConnectionResetError"
