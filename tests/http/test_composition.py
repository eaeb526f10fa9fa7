"""With the stock instrumentations in any order, and with all that an httpx client can do."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry.trace import SpanKind

from insider_otel import InsiderInstrumentor, Mode, Settings, call_of
from insider_otel.http.engine import Engine
from insider_otel.http.instrumentor import ZeroCodeInstrumentor, cover_client

from .conftest import Rig
from .stock import stock_of, stock_transport, uninstrument_all
from .test_calls import OK, UPSERT
from .wire import Reply, Wire
from .wire2 import wire2

PATH = "/api/user/v1/upsert"


@pytest.fixture(autouse=True)
def nothing_stays_instrumented() -> Iterator[None]:
    yield
    uninstrument_all()


class Installed:
    """Instrumentors on and off, and what the spans of a request then are."""

    def __init__(self, rig: Rig, server: Wire) -> None:
        self.rig, self.server = rig, server
        self.settings = Settings(hosts={server.address: "unification.useinsider.com"}, quick_delay=0.0)
        self.ours, self.stock = InsiderInstrumentor(), stock_of(rig.flavour)

    def turn_on(self, instrumentor: Any) -> None:
        more = {"settings": self.settings} if instrumentor is self.ours else {}
        instrumentor.instrument(tracer_provider=self.rig.spans.tracer_provider, **more)

    def request(self, url: str, **client: Any) -> list[str]:
        """Post once; the kinds and scopes of the spans it made, and a check of the trace header on the wire."""
        self.rig.spans.clear()
        before = len(self.server.seen)
        self.rig.flavour.post(url, json={}, client=client)
        spans = self.rig.spans.all()
        clients = [span for span in spans if span.kind is SpanKind.CLIENT]
        for span, seen in zip(clients, self.server.seen[before:], strict=False):
            assert seen.headers["traceparent"].split("-")[1:3] == [
                f"{span.context.trace_id:032x}",
                f"{span.context.span_id:016x}",
            ]
        if not clients:
            assert "traceparent" not in self.server.seen[-1].headers
        return [f"{span.kind.name} {span.instrumentation_scope.name.rpartition('.')[2]}" for span in spans]

    def to_insider(self, **client: Any) -> list[str]:
        return self.request(self.server.url + PATH, **client)

    def elsewhere(self, **client: Any) -> list[str]:
        return self.request(f"http://localhost:{self.server.port}/other", **client)


@pytest.fixture
def installed(rig: Rig, server: Wire) -> Installed:
    return Installed(rig, server)


OURS = ["INTERNAL insider_otel", "CLIENT insider_otel"]
STOCK = ["CLIENT httpx"]


@pytest.mark.parametrize(
    "order",
    [
        order
        for order in itertools.permutations(["ours on", "ours off", "stock on", "stock off"])
        if order.index("ours on") < order.index("ours off") and order.index("stock on") < order.index("stock off")
    ],
    ids=" ".join,
)
def test_in_any_order_there_is_one_client_span_and_the_right_header(
    installed: Installed, order: tuple[str, ...]
) -> None:
    on = {"ours": False, "stock": False}
    for _ in range(2):
        for step in order:
            which, switch = step.split()
            instrumentor = installed.ours if which == "ours" else installed.stock
            on[which] = switch == "on"
            if on[which]:
                installed.turn_on(instrumentor)
            else:
                instrumentor.uninstrument()
            expected = STOCK if on["stock"] else []
            assert installed.to_insider() == (OURS if on["ours"] else expected), step
            assert installed.elsewhere() == expected, step


def test_uninstrumented_clients_are_as_they_came(installed: Installed) -> None:
    classes = [getattr(installed.rig.flavour.module, name) for name in ("Client", "AsyncClient")]
    before = [vars(cls)["_transport_for_url"] for cls in classes]
    for _ in range(3):
        installed.turn_on(installed.ours)
        for cls, function in zip(classes, before, strict=True):
            assert vars(cls)["_transport_for_url"] is not function
        installed.ours.uninstrument()
        for cls, function in zip(classes, before, strict=True):
            assert vars(cls)["_transport_for_url"] is function


def test_a_client_that_was_made_before_is_instrumented_too(installed: Installed) -> None:
    flavour = installed.rig.flavour

    def use(client: Any) -> Any:
        installed.turn_on(installed.ours)
        return client.post(installed.server.url + PATH, json={})

    response = flavour.using(use)
    assert call_of(response).operation.name == "user.upsert"


@pytest.mark.parametrize("by_keyword", [False, True])
def test_a_mock_may_call_what_it_found_in_the_class(
    by_keyword: bool, installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the client as its first argument, as respx and pook do for requests that they do not answer."""
    installed.turn_on(installed.ours)
    client_class = installed.rig.flavour.client_class
    found = vars(client_class)["_transport_for_url"]

    def pass_on(client: Any, url: Any) -> Any:
        return found(client, url=url) if by_keyword else found(client, url)

    monkeypatch.setattr(client_class, "_transport_for_url", pass_on)
    assert installed.to_insider() == OURS
    assert installed.elsewhere() == []


def test_the_client_of_an_adapter_heeds_a_mock_that_comes_later(
    rig: Rig, server: Wire, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is opened once for many tests; the call of one with a mock must not go to Insider."""
    engine = Engine(Settings(hosts={server.address: "unification.useinsider.com"}))
    mock = rig.flavour.answering(lambda request: rig.flavour.module.Response(418))

    def use(client: Any) -> Any:
        cover_client(client, engine)
        monkeypatch.setattr(rig.flavour.client_class, "_transport_for_url", lambda client, url: mock)
        return client.post(server.url + PATH, json={})

    response = rig.flavour.using(use)
    assert response.status_code == 418
    assert call_of(response).attempts == 1
    assert server.seen == []


def test_a_client_instrumented_by_itself_makes_no_second_span(installed: Installed) -> None:
    flavour = installed.rig.flavour
    installed.turn_on(installed.ours)

    def use(client: Any) -> Any:
        stock_of(flavour).instrument_client(client, tracer_provider=installed.rig.spans.tracer_provider)
        return client.post(installed.server.url + PATH, json={})

    flavour.using(use)
    assert [span.instrumentation_scope.name for span in installed.rig.spans.all()] == ["insider_otel"] * 2


def test_a_stock_transport_below_ours_stays_silent(rig: Rig, server: Wire) -> None:
    below = stock_transport(rig.flavour)(rig.flavour.transport_class(), tracer_provider=rig.spans.tracer_provider)
    settings = Settings(hosts={server.address: "unification.useinsider.com"})
    rig.flavour.post(server.url + PATH, transport=rig.wrap(below, settings=settings), json={})
    assert len(rig.spans.attempts()) == 1
    assert {span.instrumentation_scope.name for span in rig.spans.all()} == {"insider_otel"}


def test_a_client_with_our_transport_that_is_instrumented_by_itself_makes_no_second_span(
    rig: Rig, server: Wire
) -> None:
    """The stock instrumentation wraps the client's transport, which is ours: it ends up below."""
    settings = Settings(hosts={server.address: "unification.useinsider.com"})
    elsewhere = f"http://localhost:{server.port}/other"

    def scopes(*urls: str) -> list[str]:
        def instrument(client: Any) -> None:
            stock_of(rig.flavour).instrument_client(client, tracer_provider=rig.spans.tracer_provider)

        async def use_async(client: Any) -> None:
            instrument(client)
            for url in urls:
                await client.post(url, json={})

        def use(client: Any) -> None:
            instrument(client)
            for url in urls:
                client.post(url, json={})

        rig.spans.clear()
        rig.flavour.using(use_async if rig.flavour.is_async else use, transport=rig.wrap(settings=settings))
        return [span.instrumentation_scope.name for span in rig.spans.all()]

    assert scopes(server.url + PATH) == ["insider_otel", "insider_otel"]
    assert scopes(elsewhere) == ["opentelemetry.instrumentation.httpx"]
    assert scopes(server.url + PATH, elsewhere) == [
        "insider_otel",
        "insider_otel",
        "opentelemetry.instrumentation.httpx",
    ]


def test_a_client_with_our_transport_is_uninstrumented_and_instrumented_again(rig: Rig, server: Wire) -> None:
    """As with a transport of httpx: one span while it is on, none while it is off."""
    stock, elsewhere = stock_of(rig.flavour), f"http://localhost:{server.port}/other"
    counts: list[int] = []

    def switch(client: Any, on: bool) -> None:
        rig.spans.clear()
        if on:
            stock.instrument_client(client, tracer_provider=rig.spans.tracer_provider)
        else:
            stock.uninstrument_client(client)

    async def use_async(client: Any) -> None:
        for on in (True, False, True, False):
            switch(client, on)
            await client.post(elsewhere, json={})
            counts.append(len(rig.spans.all()))

    def use(client: Any) -> None:
        for on in (True, False, True, False):
            switch(client, on)
            client.post(elsewhere, json={})
            counts.append(len(rig.spans.all()))

    rig.flavour.using(use_async if rig.flavour.is_async else use, transport=rig.wrap())
    assert counts == [1, 0, 1, 0]


def test_our_instrumentor_and_our_transport_are_one_call(installed: Installed) -> None:
    installed.turn_on(installed.ours)
    rig = installed.rig
    rig.flavour.post(installed.server.url + PATH, transport=rig.wrap(settings=installed.settings), json={})
    assert [span.kind.name for span in rig.spans.all()] == ["INTERNAL", "CLIENT"]


def test_an_attempt_has_all_that_the_stock_span_has(installed: Installed) -> None:
    requests: list[tuple[str, Reply | None, str]] = [
        (PATH, None, "200"),
        (PATH + "?limit=10", None, "a query"),
        (PATH, Reply(status=404, body=b'{"error": "no such user"}'), "404"),
        (PATH, Reply(status=500, body=b'{"errors": [{"message": "channel already exists"}]}'), "500"),
        (PATH, Reply(reset=True), "a reset"),
    ]
    installed.settings = Settings(
        hosts={installed.server.address: "unification.useinsider.com"}, quick_retries=0, spread_retries=0
    )
    collected: dict[str, list[Any]] = {}
    for name, instrumentor in (("stock", installed.stock), ("ours", installed.ours)):
        installed.turn_on(instrumentor)
        collected[name] = []
        for path, reply, _ in requests:
            installed.rig.spans.clear()
            installed.server.script = [] if reply is None else [reply]
            try:
                installed.rig.flavour.post(installed.server.url + path, json={})
            except installed.rig.flavour.module.TransportError:
                assert reply is not None
                assert reply.reset
            collected[name] += [span for span in installed.rig.spans.all() if span.kind is SpanKind.CLIENT]
        instrumentor.uninstrument()
    for stock, ours, (_, _, what) in zip(collected["stock"], collected["ours"], requests, strict=True):
        assert stock.attributes.keys() <= ours.attributes.keys(), what
        for key, value in stock.attributes.items():
            if key == "error.type" and not value.isdigit():
                # The conventions ask for the full name.
                assert ours.attributes[key] == f"{installed.rig.flavour.module.__name__}.{value}"
            else:
                assert ours.attributes[key] == value, (what, key)
        assert ours.status.status_code is stock.status.status_code, what


# -- who turns it on ---------------------------------------------------------------------------------------------------


def test_zero_code_observes(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIDER_OTEL_HOSTS", f'{{"{installed.server.address}": "unification.useinsider.com"}}')
    # The word of a distribution, which gives it to every instrumentation.
    ZeroCodeInstrumentor().instrument(tracer_provider=installed.rig.spans.tracer_provider, capture_headers=True)
    installed.server.script = [Reply(status=503)]
    response = installed.rig.flavour.post(installed.server.url + PATH, json={})
    assert (response.status_code, call_of(response).attempts) == (503, 1)


def test_the_mode_variable_turns_the_policies_on(installed: Installed, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSIDER_OTEL_HOSTS", f'{{"{installed.server.address}": "unification.useinsider.com"}}')
    monkeypatch.setenv("INSIDER_OTEL_MODE", Mode.ENFORCE)
    ZeroCodeInstrumentor().instrument(tracer_provider=installed.rig.spans.tracer_provider)
    installed.server.script = [Reply(status=503)]
    assert call_of(installed.rig.flavour.post(installed.server.url + PATH, json={})).attempts == 2


def test_zero_code_needs_no_store_and_no_outbox_to_observe(
    installed: Installed, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The app gives the credentials for its outbox in code, and its directory is made later."""
    monkeypatch.setenv("INSIDER_OTEL_HOSTS", f'{{"{installed.server.address}": "unification.useinsider.com"}}')
    monkeypatch.setenv("INSIDER_OTEL_STATE", f"sqlite:///{tmp_path}/missing/state.db")
    monkeypatch.setenv("INSIDER_OTEL_OUTBOX", f"sqlite:///{tmp_path}/missing/outbox.db")
    ZeroCodeInstrumentor().instrument(tracer_provider=installed.rig.spans.tracer_provider)
    assert installed.to_insider() == OURS
    assert not caplog.records


@pytest.mark.parametrize(
    "variables",
    [
        {"INSIDER_OTEL_EVENTS": "spans"},
        {"INSIDER_OTEL_MODE": "enforce", "INSIDER_OTEL_STATE": "sqlite:////nowhere/at/all/state.db"},
        {"INSIDER_OTEL_MODE": "enforce", "INSIDER_OTEL_OUTBOX": "sqlite:////nowhere/at/all/outbox.db"},
    ],
    ids=["a mistyped value", "a missing directory", "no credentials"],
)
def test_zero_code_with_a_mistake_in_its_settings_stays_off_and_says_so(
    installed: Installed, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, variables: dict[str, str]
) -> None:
    """What is raised here ends ``opentelemetry-instrument``: the app would lose its other instrumentations."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    ZeroCodeInstrumentor().instrument()
    assert not ZeroCodeInstrumentor().is_instrumented_by_opentelemetry
    (line,) = caplog.records
    assert line.levelname == "ERROR"
    assert [*variables][-1].removeprefix("INSIDER_OTEL_").lower() in line.getMessage()
    assert line.exc_info is None
    assert installed.to_insider() == []


def test_calling_it_from_code_turns_the_policies_on_and_off_again(
    installed: Installed, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSIDER_OTEL_HOSTS", f'{{"{installed.server.address}": "unification.useinsider.com"}}')

    def attempts() -> int:
        installed.server.script = [Reply(status=503)]
        return call_of(installed.rig.flavour.post(installed.server.url + PATH, json={})).attempts

    ZeroCodeInstrumentor().instrument()
    assert attempts() == 1
    InsiderInstrumentor().instrument(settings=installed.settings)
    assert attempts() == 2
    InsiderInstrumentor().uninstrument()
    assert attempts() == 1
    assert type(InsiderInstrumentor()) is InsiderInstrumentor


# -- what an httpx client can do ---------------------------------------------------------------------------------------


def test_redirects_are_followed_and_each_hop_is_traced(rig: Rig, server: Wire) -> None:
    settings = Settings(hosts={server.address: "unification.useinsider.com"})
    server.script = [Reply(status=307, headers={"location": PATH}, body=b"")]
    response = rig.flavour.post(
        server.url + "/old", transport=rig.wrap(settings=settings), json={"users": []}, follow_redirects=True
    )
    assert (response.status_code, len(response.history)) == (200, 1)
    assert [json.loads(seen.body) for seen in server.seen] == [{"users": []}] * 2
    assert [span.attributes["http.response.status_code"] for span in rig.spans.attempts()] == [307, 200]


def test_auth_flows_see_every_answer(rig: Rig, server: Wire) -> None:
    module = rig.flavour.module
    settings = Settings(hosts={server.address: "unification.useinsider.com"})
    server.script = [Reply(status=401, body=b'{"error": "unauthorized"}')]

    class Refreshing(module.Auth):  # type: ignore[misc, name-defined]
        requires_response_body = True

        def auth_flow(self, request: Any) -> Any:
            response = yield request
            if response.status_code == 401 and response.json()["error"] == "unauthorized":
                request.headers["Authorization"] = "Bearer new"
                yield request

    response = rig.flavour.post(server.url + PATH, transport=rig.wrap(settings=settings), json={}, auth=Refreshing())
    assert response.status_code == 200
    assert server.seen[1].headers["authorization"] == "Bearer new"
    assert [call.attributes["insider.outcome"] for call in rig.spans.calls()] == ["failed", "succeeded"]


def test_event_hooks_run_once_a_call_and_know_its_verdict(rig: Rig) -> None:
    heard: list[Any] = []
    hook: Any
    if rig.flavour.is_async:

        async def hook(thing: Any) -> None:
            heard.append(thing)
    else:
        hook = heard.append
    rig.flavour.post(
        UPSERT,
        transport=rig.answers(503, OK),
        json={},
        client={"event_hooks": {"request": [hook], "response": [hook]}},
    )
    request, response = heard
    assert request.method == "POST"
    assert call_of(response).attempts == 2


def test_mounts_are_honoured(rig: Rig) -> None:
    InsiderInstrumentor().instrument(settings=Settings(quick_delay=0.0), tracer_provider=rig.spans.tracer_provider)
    mounted = rig.flavour.answering(lambda request: rig.flavour.module.Response(200, json=OK[1]))
    unused = rig.flavour.answering(lambda request: rig.flavour.module.Response(500))
    response = rig.flavour.post(
        UPSERT, transport=unused, json={}, client={"mounts": {"https://unification.useinsider.com": mounted}}
    )
    assert response.status_code == 200
    assert call_of(response).operation.name == "user.upsert"


def test_proxies_are_honoured(rig: Rig, server: Wire) -> None:
    InsiderInstrumentor().instrument(settings=Settings(), tracer_provider=rig.spans.tracer_provider)
    response = rig.flavour.post(UPSERT.replace("https", "http"), json={}, client={"proxy": server.url})
    assert response.status_code == 200
    assert server.seen[0].target == UPSERT.replace("https", "http")
    (attempt,) = rig.spans.attempts()
    assert attempt.attributes["server.address"] == "unification.useinsider.com"
    assert attempt.attributes["network.peer.port"] == server.port


def test_http2_goes_through(rig: Rig) -> None:
    with wire2() as address:
        settings = Settings(hosts={address: "unification.useinsider.com"})
        inner = rig.flavour.transport_class(http1=False, http2=True)
        response = rig.flavour.post(f"http://{address}{PATH}", transport=rig.wrap(inner, settings=settings), json={})
    assert response.http_version == "HTTP/2"
    (attempt,) = rig.spans.attempts()
    assert attempt.attributes["network.protocol.version"] == "2"


def test_uploads_stream(rig: Rig, server: Wire) -> None:
    settings = Settings(hosts={server.address: "unification.useinsider.com"})
    if rig.flavour.is_async:

        async def body() -> Any:
            for _ in range(100):
                yield b"x" * 1000
    else:

        def body() -> Any:
            for _ in range(100):
                yield b"x" * 1000

    rig.flavour.post(server.url + PATH, transport=rig.wrap(settings=settings), content=body())
    assert len(server.seen[0].body) == 100_000


def test_closing_the_client_closes_the_wrapped_transport(rig: Rig) -> None:
    closed: list[str] = []
    base = rig.flavour.module.AsyncBaseTransport if rig.flavour.is_async else rig.flavour.module.BaseTransport

    class Inner(base):  # type: ignore[misc, valid-type]
        def close(self) -> None:
            closed.append("closed")

        async def aclose(self) -> None:
            closed.append("closed")

    if rig.flavour.is_async:

        async def use(client: Any) -> None:
            return None
    else:

        def use(client: Any) -> None:  # type: ignore[misc]
            return None

    rig.flavour.using(use, transport=rig.wrap(Inner()))
    assert closed == ["closed"]
