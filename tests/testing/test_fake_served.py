"""The fake on a real socket: what goes over the wire, and what breaks on it."""

from __future__ import annotations

import asyncio
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

import anyio
import httpx
import pytest

from insider_otel import Settings
from insider_otel.api.operations import find, operations
from insider_otel.testing import (
    FakeInsider,
    SampleRequest,
    delay,
    documented,
    reply,
    reset,
    sample_request,
    timeout,
    truncate,
)
from insider_otel.testing.server import ServedFake

Send = Callable[..., Any]


@pytest.fixture(scope="module")
def served_fake() -> Iterator[tuple[FakeInsider, ServedFake]]:
    fake = FakeInsider(limits={"whatsapp.send": None})
    with fake.serve() as served:
        yield fake, served


@pytest.fixture
def fake(served_fake: tuple[FakeInsider, ServedFake]) -> FakeInsider:
    served_fake[0].reset()
    return served_fake[0]


@pytest.fixture
def served(served_fake: tuple[FakeInsider, ServedFake]) -> ServedFake:
    return served_fake[1]


@pytest.fixture
def mail(served: ServedFake) -> Any:
    return sample_request("mail.send", base_url=served.url)


def test_every_operation_is_found_by_its_path_alone(fake: FakeInsider, served: ServedFake) -> None:
    with httpx.Client() as client:
        for operation in operations():
            sample = sample_request(operation.name, base_url=served.url)
            client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)
    assert [request.operation for request in fake.requests] == [operation.name for operation in operations()]


def test_an_insider_host_in_the_host_header_wins(fake: FakeInsider, served: ServedFake) -> None:
    headers = sample_request("whatsapp.send").headers | {"Host": "whatsapp.useinsider.com"}
    httpx.post(f"{served.url}/v1/send", json={"to": "+905550000001"}, headers=headers)
    assert fake.requests[-1].operation == "whatsapp.send"
    assert fake.requests[-1].host == "whatsapp.useinsider.com"


def test_the_settings_take_its_address_for_insider(served: ServedFake) -> None:
    settings = Settings(hosts=served.hosts)
    host = settings.hosts[served.url.removeprefix("http://")]
    found = find("POST", host, "/mail/v1/send")
    assert found is not None
    assert found.name == "mail.send"


def test_an_answer_over_the_wire_is_the_answer_in_process(fake: FakeInsider, mail: Any, send: Send) -> None:
    over_the_wire = send(mail)
    fake.reset()
    in_process = send(sample_request("mail.send"), transport=fake.transport())
    assert over_the_wire.content == in_process.content
    ignored = {"date", "cf-ray"}
    assert {k: v for k, v in over_the_wire.headers.items() if k not in ignored} == {
        k: v for k, v in in_process.headers.items() if k not in ignored
    }


def test_a_connection_is_really_reset(fake: FakeInsider, mail: Any, family: ModuleType, send: Send) -> None:
    fake.script("mail.send", reset(processed=True))
    with pytest.raises(family.ReadError):
        send(mail)
    assert len(fake.accepted("mail.send")) == 1
    assert "already been received" in send(mail).text


def test_a_reset_is_a_reset_and_not_a_close(fake: FakeInsider, served: ServedFake, mail: Any) -> None:
    fake.script("mail.send", reset())
    head = f"POST /mail/v1/send HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: {len(mail.content)}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        connection.sendall(head.encode() + mail.content)
        with pytest.raises(ConnectionResetError):
            connection.recv(1)


@pytest.mark.parametrize("after_bytes", [0, 10, 10_000])
def test_a_body_is_really_cut(after_bytes: int, fake: FakeInsider, mail: Any, family: ModuleType, send: Send) -> None:
    fake.script("mail.send", truncate(after_bytes))
    with pytest.raises(family.RemoteProtocolError, match="without sending complete message body"):
        send(mail)


def test_no_answer_ever_comes(fake: FakeInsider, mail: Any, family: ModuleType, send: Send) -> None:
    fake.script("mail.send", timeout(processed=True))
    with pytest.raises(family.ReadTimeout):
        send(mail, timeout=family.Timeout(30, read=0.1))
    assert "already been received" in send(mail).text


def test_an_answer_is_really_late(fake: FakeInsider, mail: Any, family: ModuleType, send: Send) -> None:
    fake.script("mail.send", delay(0.05, "service_unavailable"), delay(30))
    started = time.perf_counter()
    assert send(mail).status_code == 503
    assert time.perf_counter() - started >= 0.05
    with pytest.raises(family.ReadTimeout):
        send(mail, timeout=family.Timeout(30, read=0.1))


def test_a_documented_reply_and_one_of_your_own(fake: FakeInsider, mail: Any, send: Send) -> None:
    fake.script("mail.send", documented("cloudflare_network_error"), reply(204))
    assert send(mail).status_code == 520
    assert send(mail).status_code == 204


def test_a_late_answer_does_not_hold_up_others() -> None:
    fake = FakeInsider()
    fake.script("mail.send", timeout())
    with fake.serve() as served:
        waiting = threading.Thread(target=lambda: _outcome(f"{served.url}/mail/v1/send", seconds=60))
        waiting.start()
        _wait_until(lambda: len(fake.requests) == 1)
        sample = sample_request("sms.send", base_url=served.url)
        with httpx.Client(timeout=30) as client:
            for _ in range(3):
                client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)
        assert waiting.is_alive()
    waiting.join(10)
    assert len(fake.accepted("sms.send")) == 3


def test_it_stops_at_once_and_in_silence(caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]) -> None:
    fake = FakeInsider()
    fake.script("mail.send", timeout(), delay(60))
    outcomes: list[str] = []
    with fake.serve() as served:
        url = f"{served.url}/mail/v1/send"
        clients = [threading.Thread(target=lambda: outcomes.append(_outcome(url, seconds=30))) for _ in range(2)]
        for client in clients:
            client.start()
        _wait_until(lambda: len(fake.requests) == 2)
        stopping = time.monotonic()
    for client in clients:
        client.join(10)
    assert time.monotonic() - stopping < 5
    assert len(outcomes) == 2
    assert set(outcomes) <= {"ReadError", "RemoteProtocolError"}
    assert [record for record in caplog.records if record.levelno >= logging.WARNING] == []
    assert "Traceback" not in capfd.readouterr().err


def test_a_port_that_is_taken_is_an_error_at_once(served: ServedFake) -> None:
    with pytest.raises(OSError, match="in use"), FakeInsider().serve(served.port):
        pass


def test_a_port_can_be_chosen_again_after_it_stopped() -> None:
    with FakeInsider().serve() as served:
        port = served.port
        httpx.post(f"{served.url}/mail/v1/send")
    with FakeInsider().serve(port) as again:
        assert again.port == port


def test_a_client_that_leaves_in_the_middle_of_its_request_is_no_request(fake: FakeInsider, served: ServedFake) -> None:
    with socket.create_connection(("127.0.0.1", served.port), timeout=5) as connection:
        connection.sendall(b"POST /mail/v1/send HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{")
    httpx.post(f"{served.url}/v1/channel/create")
    assert [request.operation for request in fake.requests] == ["verify.channel_create"]


def _wait_until(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _outcome(url: str, *, seconds: float) -> str:
    """What becomes of a request: its status, or the name of the exception."""
    try:
        return str(httpx.post(url, timeout=seconds).status_code)
    except httpx.HTTPError as error:
        return type(error).__name__


# ------------------------------------------------------------------------------------------- under another server


def test_it_is_an_asgi_app_for_any_server() -> None:
    fake = FakeInsider()
    sample = sample_request("user.upsert")

    async def run() -> Any:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app=fake)) as client:
            return await client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)

    assert anyio.run(run).json()["data"]["successful"] == {"count": 1}


@pytest.mark.parametrize("prefix", ["/insider", "/test/in sider"])
def test_it_may_be_mounted_in_another_app(prefix: str) -> None:
    fastapi = pytest.importorskip("fastapi", reason="the other app is one of FastAPI; the dependency group web has it")
    fake, app = FakeInsider(), fastapi.FastAPI()
    app.mount(prefix, fake)

    async def ask(sample: SampleRequest) -> httpx.Response:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app)) as client:
            return await client.request(sample.method, sample.url, headers=sample.headers, content=sample.content)

    for name in ("user.upsert", "web_push.delete", "mail.send"):
        sample = sample_request(name, base_url=f"http://shop.example.com{prefix}")
        assert anyio.run(ask, sample).status_code < 300
        assert fake.requests[-1].path == sample_request(name).url.partition("useinsider.com")[2]
        assert fake.requests[-1].operation == name


def test_a_server_without_the_reset_extension_is_made_to_close() -> None:
    import uvicorn

    fake = FakeInsider()
    fake.script("mail.send", reset(), truncate(10))
    config = uvicorn.Config(fake, port=0, log_config=None, log_level="critical", lifespan="on", ws="none")
    server = uvicorn.Server(config)
    sample = sample_request("mail.send", base_url="http://127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/mail/v1/send"

        async def run() -> list[str]:
            # The listener queues what comes before the server is up.
            serving = asyncio.create_task(server.serve([listener]))
            said: list[str] = []
            async with httpx.AsyncClient() as client:
                for _ in range(2):
                    try:
                        await client.post(url, headers=sample.headers, content=sample.content)
                    except httpx.HTTPError as error:
                        said.append(type(error).__name__)
            server.should_exit = True
            await asyncio.wait_for(serving, 10)
            return said

        assert asyncio.run(run()) == ["RemoteProtocolError", "RemoteProtocolError"]


def test_a_websocket_is_none_of_its_business() -> None:
    async def never(*_: Any) -> Any:
        raise AssertionError

    with pytest.raises(RuntimeError, match="not websocket"):
        anyio.run(FakeInsider().__call__, {"type": "websocket"}, never, never)
