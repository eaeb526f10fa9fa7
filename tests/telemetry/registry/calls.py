"""Calls of every kind, so that everything there is to export is exported."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
from opentelemetry.trace import SpanKind

from insider_otel import InsiderTransport, Settings, request_scope
from insider_otel.api.responses import responses
from insider_otel.cli.demo.scenarios import CREDENTIALS, SCENARIOS
from insider_otel.testing import FakeClock, FakeInsider, SampleRequest, deliver_outbox, sample_request

from .recorder import Recorder

Handler = Callable[[httpx.Request], httpx.Response]

UNLISTED = "https://unification.useinsider.com/api/user/v9/new"
NO_ANSWER = ("ReadTimeout", "ConnectError", "RemoteProtocolError")


class Shop:
    """Makes calls with fake time, and has them recorded.

    Args:
        recorder: Where their telemetry goes.
    """

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder
        self._transports: list[InsiderTransport] = []
        self.clock = FakeClock()
        self.fake = FakeInsider(credentials=CREDENTIALS, clock=self.clock)

    def client(self, inner: Any = None, *, chance: float = 0.5, **settings: Any) -> httpx.Client:
        """A client whose transport sends by ``inner``; by the fake Insider if that is not given."""
        transport = InsiderTransport(
            self.fake.transport() if inner is None else inner,
            settings=Settings(events="both", **settings),
            tracer_provider=self._recorder.tracer_provider,
            meter_provider=self._recorder.meter_provider,
            logger_provider=self._recorder.logger_provider,
            clock=self.clock,
            sleep=self.clock.sleep,
            random=lambda: chance,
        )
        # A gauge tells of the pools of transports that are still there.
        self._transports.append(transport)
        return httpx.Client(transport=transport, trust_env=False)

    def page(self, *requests: SampleRequest, deadline: float | None = None, **client: Any) -> None:
        """Handle a request of a visitor, for which the shop makes calls."""
        tracer = self._recorder.tracer_provider.get_tracer("shop")
        with (
            tracer.start_as_current_span("POST /signup", kind=SpanKind.SERVER) as span,
            request_scope(deadline, clock=self.clock) as scope,
            self.client(**client) as opened,
        ):
            scope.found_server_span(span)
            for request in requests:
                send(opened, request)


def send(client: httpx.Client, sample: SampleRequest, content: Any = None) -> None:
    """Send a request, whatever becomes of it."""
    with suppress(httpx.TransportError):
        client.request(
            sample.method,
            sample.url,
            headers=sample.headers,
            content=sample.content if content is None else content,
            timeout=5.0,
        )


def mock(answer: Handler) -> httpx.MockTransport:
    """A transport that answers in process."""
    return httpx.MockTransport(answer)


def raising(error: BaseException) -> httpx.MockTransport:
    """A transport that never gets an answer."""

    def handle(request: httpx.Request) -> httpx.Response:
        raise error

    return mock(handle)


# -- calls -------------------------------------------------------------------------------------------------------------


def every_documented_response(shop: Shop) -> None:
    for row in responses():
        if row.body is not None:
            shop.fake.reset()
            shop.fake.script("user.upsert", row.id, repeat=True)
            with shop.client() as client:
                send(client, sample_request("user.upsert"))


def the_scenarios_of_the_demo(shop: Shop) -> None:
    for scenario in SCENARIOS:
        shop.fake.reset()
        shop.fake.script(scenario.operation, *scenario.script)
        earlier = [sample_request(name) for name in (*scenario.before, *scenario.just_now)]
        shop.page(*earlier, sample_request(scenario.operation, scenario.body), deadline=scenario.deadline)


def over_a_real_connection(shop: Shop) -> None:
    with shop.fake.serve() as served, shop.client(httpx.HTTPTransport(), hosts=served.hosts) as client:
        send(client, sample_request("user.upsert", base_url=served.url))


def without_an_answer(shop: Shop) -> None:
    for name in NO_ANSWER:
        with shop.client(raising(getattr(httpx, name)("no answer"))) as client:
            send(client, sample_request("user.upsert"))
    with shop.client(raising(RuntimeError("a bug below us"))) as client, suppress(RuntimeError):
        send(client, sample_request("user.upsert"))


def given_up(shop: Shop) -> None:
    with shop.client(raising(KeyboardInterrupt())) as client, suppress(KeyboardInterrupt):
        send(client, sample_request("user.upsert"))


def stopped_in_every_way(shop: Shop) -> None:
    upsert, mail, sms = (sample_request(name) for name in ("user.upsert", "mail.send", "sms.send"))

    def unavailable(**settings: Any) -> httpx.Client:
        return shop.client(mock(lambda request: httpx.Response(503)), **settings)

    with unavailable() as client:
        send(client, upsert)
        send(client, upsert, iter([b"{}"]))
    with unavailable(deadline=1.0) as client:
        send(client, upsert)
    with unavailable(spread_retries=0) as client:
        for _ in range(10):
            send(client, upsert)
    with shop.client(raising(httpx.ReadTimeout("silence"))) as client:
        send(client, sms)
    with shop.client(raising(httpx.ReadTimeout("silence")), quick_retries=0, retry_window=2000, chance=0.99) as client:
        send(client, mail)


def told_when_to_come_back(shop: Shop) -> None:
    replies = iter([httpx.Response(503, headers={"Retry-After": "7"}), httpx.Response(200)])
    with shop.client(mock(lambda request: next(replies))) as client:
        send(client, sample_request("user.upsert"))


def no_room_in_the_pool(shop: Shop) -> None:
    campaign, limits = sample_request("mail.campaign_create"), {"mail.campaign_create": "1/60s"}
    shop.page(campaign, campaign, deadline=120.0, limits=limits)
    shop.page(campaign, campaign, deadline=1.0, limits=limits)


def the_same_content_again(shop: Shop) -> None:
    mail = sample_request("mail.send")
    shop.fake.reset()
    with shop.client() as client:
        send(client, mail)
        shop.clock.advance(60)
        send(client, mail)
    shop.fake.reset()
    shop.fake.script("mail.send", "timeout", "ok")
    with shop.client(quick_retries=0, spread_retries=0) as client:
        send(client, mail)
        shop.clock.advance(30)
        send(client, mail)


def a_store_that_cannot_be_used(shop: Shop, directory: Path) -> None:
    broken = directory / "state.db"
    broken.write_bytes(b"no database" * 1000)
    with socket.socket() as nobody_listens:
        nobody_listens.bind(("127.0.0.1", 0))
        port = nobody_listens.getsockname()[1]
        for state in (f"redis://127.0.0.1:{port}", f"sqlite:///{broken}"):
            shop.fake.reset()
            with shop.client(state=state) as client:
                send(client, sample_request("mail.send"))


def sent_later(shop: Shop, directory: Path) -> None:
    """Calls that are deferred, and every way in which a delivery can end."""
    shop.fake.reset()
    settings: Any = {
        "outbox": f"sqlite:///{directory}/outbox.db",
        "credentials": lambda operation, account: sample_request(operation.name).headers,
        "quick_retries": 0,
        "outbox_horizon": 3600.0,
    }
    upsert = sample_request("user.upsert")
    mail = sample_request("mail.send")
    with shop.client(**settings) as client:

        def deliver(operation: str, *script: Any, ahead: float = 0.0) -> None:
            shop.fake.reset()
            shop.fake.script(operation, *script)
            assert deliver_outbox(client, ahead=ahead) == 1

        defer(client, upsert)
        deliver("user.upsert", "ok")
        lost_records = next(each for each in SCENARIOS if each.name == "lost-records")
        defer(client, sample_request("user.upsert", lost_records.body))
        deliver("user.upsert", "503")
        deliver("user.upsert", ahead=600.0)
        defer(client, mail)
        deliver("mail.send", "timeout")
        shop.clock.advance(1000.0)
        deliver("mail.send", "ok", ahead=600.0)
        defer(client, upsert)
        shop.clock.advance(4000.0)
        deliver("user.upsert", "ok")
    # Handed over because the retry does not fit the deadline; nobody has delivered it when the gauges are read.
    shop.fake.script("user.upsert", "503")
    shop.page(upsert, deadline=1.0, **settings)


def defer(client: httpx.Client, sample: SampleRequest) -> None:
    """Have a request sent later."""
    wanted = {"insider": {"defer": True}}
    answer = client.request(
        sample.method, sample.url, headers=sample.headers, content=sample.content, extensions=wanted
    )
    assert answer.status_code == 202


def unusual_requests(shop: Shop) -> None:
    headers = {"cf-ray": "8a1b2c3d4e5f-IST", "x-trace": "1"}
    with shop.client(mock(lambda request: httpx.Response(200, headers=headers, json={}))) as client:
        client.request("PURGE", UNLISTED, headers={"x-shop": "shop"})
        client.get(UNLISTED.replace(".com/", ".com:8443/"))


def all_calls(directory: Path) -> Iterator[Callable[[Shop], None]]:
    """All of the above."""
    yield every_documented_response
    yield the_scenarios_of_the_demo
    yield over_a_real_connection
    yield without_an_answer
    yield given_up
    yield stopped_in_every_way
    yield told_when_to_come_back
    yield no_room_in_the_pool
    yield the_same_content_again
    yield lambda shop: a_store_that_cannot_be_used(shop, directory)
    yield lambda shop: sent_later(shop, directory)
    yield unusual_requests
