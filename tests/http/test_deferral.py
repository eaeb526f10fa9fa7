"""What does not fit its deadline, or asks for it, is kept in the outbox and answered with 202."""

from __future__ import annotations

import gzip
import json
import logging
import zlib
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from insider_otel import CannotDefer, OutboxError, Outcome, Settings, SettingsError, Stop, call_of, defer, request_scope
from insider_otel.http.deferral import Desk
from insider_otel.outbox.content import Codec
from insider_otel.outbox.job import Job
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.testing import set_testing

from .conftest import Rig, event_names

UPSERT = "https://unification.useinsider.com/api/user/v1/upsert"
MAIL = "https://mail.useinsider.com/mail/v1/send"
VERIFY = "https://verify.useinsider.com/v1/check"
PROFILE = "https://unification.useinsider.com/api/user/v1/profile"
OTHER_HOST = "https://api.example.com/v1/users"
USERS = {"users": [{"identifiers": {"email": "jane@example.com"}}]}
KEYS = {"X-PARTNER-NAME": "shop-one", "X-REQUEST-TOKEN": "token-of-shop-one"}
MAIL_KEYS = {"X-INS-AUTH-KEY": "key-of-the-mail-shop"}
ALL_KEYS = {**KEYS, **MAIL_KEYS, "body:api_key": "api-key-of-web-push"}
GZIP = {**KEYS, "Content-Encoding": "gzip"}
DEFLATE = {**KEYS, "Content-Encoding": "deflate"}
LATER = {"insider": {"defer": True}}
STRAY_TOKEN = b'{"users": [], "note": "by token-of-shop-one"}'
STRAY_KEY = b'{"users": [], "api_key": "another-key"}'


@dataclass
class Shop:
    """An app with an outbox in a file."""

    rig: Rig
    path: Path

    def settings(self, **more: Any) -> Settings:
        options: dict[str, Any] = {
            "outbox": f"sqlite:///{self.path}",
            "credentials": lambda operation, account: ALL_KEYS,
        }
        return Settings(**{"quick_retries": 1, "quick_delay": 0.5, **options, **more})

    def answers(self, *replies: Any, **more: Any) -> Any:
        return self.rig.answers(*replies, settings=self.settings(**more))

    def post(self, transport: Any, url: str = UPSERT, *, deadline: float | None = 2.0, **options: Any) -> Any:
        options = {"headers": KEYS, "json": USERS, **options}
        with request_scope(deadline, clock=self.rig.clock):
            return self.rig.flavour.post(url, transport=transport, **options)

    @property
    def jobs(self) -> list[Job]:
        return list(SQLiteOutbox(self.path).jobs())


def _spellings(body: bytes) -> list[dict[str, Any]]:
    """A body as Insider could read it and who looks for a few letters cannot."""
    return [
        *({"content": body.decode().encode(encoding)} for encoding in ("utf-8-sig", "utf-16", "utf-16-le", "utf-32")),
        {"content": gzip.compress(body), "headers": GZIP},
        {"content": gzip.compress(body[:10]) + gzip.compress(body[10:]), "headers": GZIP},
        {"content": zlib.compress(body), "headers": DEFLATE},
    ]


@pytest.fixture
def shop(rig: Rig, tmp_path: Path) -> Shop:
    return Shop(rig, tmp_path / "outbox.db")


def content(job: Job) -> dict[str, Any]:
    kept: dict[str, Any] = json.loads(job.content[1:])
    return kept


# -------------------------------------------------------------------------------------------------------- hand-over


def test_a_retry_beyond_the_deadline_is_handed_over(shop: Shop) -> None:
    response = shop.post(shop.answers(503))
    call, job = call_of(response), shop.jobs[0]
    assert response.status_code == 202
    assert response.headers["x-insider-otel"] == f"deferred; job={job.id}"
    assert (call.outcome, call.attempts, call.stopped) == (Outcome.DEFERRED, 2, None)
    assert (job.operation, job.attempts, job.ambiguous_since) == ("user.upsert", 2, None)
    assert job.verdict["category"] == "unavailable"


def test_its_next_attempt_is_due_when_the_spread_retry_would_have_been(shop: Shop) -> None:
    shop.post(shop.answers(503))
    assert shop.jobs[0].due - shop.jobs[0].created == pytest.approx(150.0)


def test_the_span_of_a_deferred_call_says_so_and_is_no_error(shop: Shop) -> None:
    shop.post(shop.answers(503))
    span = shop.rig.spans.calls()[0]
    assert span.attributes["insider.outcome"] == "deferred"
    assert span.attributes["insider.outbox.job.id"] == shop.jobs[0].id
    assert span.status.is_unset
    assert event_names(span)[-1] == "insider.deferred"
    assert dict(span.events[-1].attributes) == {"insider.wait.ms": 150_000, "insider.status.category": "unavailable"}


def test_the_job_holds_the_trace_of_the_call(shop: Shop) -> None:
    shop.post(shop.answers(503))
    context = shop.rig.spans.calls()[0].context
    flags = f"{context.trace_flags:02x}"
    assert shop.jobs[0].context == {"traceparent": f"00-{context.trace_id:032x}-{context.span_id:016x}-{flags}"}


def test_the_scope_counts_it_as_deferred_and_not_as_failed(shop: Shop) -> None:
    transport = shop.answers(503)
    with request_scope(2.0, clock=shop.rig.clock) as scope:
        shop.rig.flavour.post(UPSERT, transport=transport, headers=KEYS, json=USERS)
    summary = scope.summary()
    assert (summary["insider.request.deferred"], summary["insider.request.failed_calls"]) == (1, 0)


def test_a_slot_beyond_the_deadline_is_handed_over(shop: Shop) -> None:
    transport = shop.answers(200, limits={"user.upsert": "1/10s"})
    shop.post(transport)
    response = shop.post(transport)
    assert call_of(response).outcome is Outcome.DEFERRED
    assert shop.jobs[0].due - shop.jobs[0].created == pytest.approx(10.0)
    assert shop.jobs[0].attempts == 0


def test_a_call_whose_deadline_has_passed_is_handed_over_unsent(shop: Shop) -> None:
    response = shop.post(shop.answers(200), deadline=0.0)
    assert (call_of(response).outcome, call_of(response).attempts) == (Outcome.DEFERRED, 0)


def test_what_insider_tells_to_stay_away_for_longer_than_any_retry_waits_is_handed_over(shop: Shop) -> None:
    response = shop.post(shop.answers((429, {"message": "Too many requests, retry after 3600 seconds"})))
    assert call_of(response).outcome is Outcome.DEFERRED
    assert shop.jobs[0].due - shop.jobs[0].created >= 60.0


def test_a_quick_retry_that_helps_needs_no_outbox(shop: Shop) -> None:
    assert call_of(shop.post(shop.answers(503, 200))).outcome is Outcome.SUCCEEDED
    assert not shop.path.exists() or not shop.jobs


def test_a_final_refusal_is_not_handed_over(shop: Shop) -> None:
    assert call_of(shop.post(shop.answers(400))).outcome is Outcome.FAILED
    assert not shop.path.exists() or not shop.jobs


@pytest.mark.parametrize(("url", "keys"), [(VERIFY, MAIL_KEYS), (PROFILE, KEYS)])
def test_what_somebody_waits_for_is_not_handed_over(shop: Shop, url: str, keys: dict[str, str]) -> None:
    response = shop.post(shop.answers(503), url, headers=keys, json={})
    assert response.status_code == 503
    assert not shop.path.exists() or not shop.jobs


def test_a_mail_of_which_nobody_knows_whether_it_arrived_keeps_the_moment_of_its_first_attempt(shop: Shop) -> None:
    began = shop.rig.clock()
    response = shop.post(shop.answers("ReadTimeout"), MAIL, headers=MAIL_KEYS, json={"subject": "Order"})
    assert call_of(response).outcome is Outcome.DEFERRED
    assert shop.jobs[0].ambiguous_since == pytest.approx(began)


def test_an_observer_defers_nothing(shop: Shop) -> None:
    response = shop.post(shop.answers(200, mode="observe"), extensions=LATER)
    assert response.status_code == 200


def test_in_tests_nothing_is_deferred_unless_they_hold(shop: Shop) -> None:
    set_testing(True)
    try:
        assert shop.post(shop.answers(200), extensions=LATER).status_code == 200
    finally:
        set_testing(False)


# ------------------------------------------------------------------------------------------------------- on request


def test_a_call_can_ask_to_be_deferred(shop: Shop) -> None:
    sent: list[Any] = []
    transport = shop.rig.wrap(shop.rig.flavour.answering(sent.append), settings=shop.settings())
    response = shop.post(transport, extensions=LATER)
    assert (response.status_code, sent) == (202, [])
    assert shop.jobs[0].due == shop.jobs[0].created


def test_defer_is_the_same_for_a_request_at_hand(shop: Shop) -> None:
    transport = shop.answers(200)

    def use(client: Any) -> Any:
        return defer(client, client.build_request("POST", UPSERT, headers=KEYS, json=USERS), ordering_key="jane")

    response = shop.rig.flavour.using(use, transport=transport)
    assert response.headers["x-insider-otel"] == f"deferred; job={shop.jobs[0].id}"
    assert shop.jobs[0].line


@pytest.mark.parametrize("url", [UPSERT, OTHER_HOST])
def test_defer_sends_nothing_past_insider_otel(shop: Shop, url: str) -> None:
    """Who defers must not find that the call was made at once, by a client that nobody covers or to a mistyped host."""
    sent: list[Any] = []
    transport = shop.rig.flavour.answering(sent.append)
    if url == OTHER_HOST:
        transport = shop.rig.wrap(transport, settings=shop.settings())

    def use(client: Any) -> Any:
        return defer(client, client.build_request("POST", url, headers=KEYS, json=USERS))

    with pytest.raises(CannotDefer, match="would be sent at once"):
        shop.rig.flavour.using(use, transport=transport)
    assert sent == []


@pytest.mark.parametrize("given", [True, False, "later"])
def test_defer_refuses_options_that_it_cannot_add_to(shop: Shop, given: Any) -> None:
    def use(client: Any) -> Any:
        return defer(client, client.build_request("POST", UPSERT, json=USERS, extensions={"insider": given}))

    with pytest.raises(CannotDefer, match=r'extensions\["insider"\] is a (bool|str); it accepts a mapping'):
        shop.rig.flavour.using(use, transport=shop.answers(200))


def test_defer_leaves_it_to_a_transport_of_the_apps_own_to_pass_the_call_on(shop: Shop) -> None:
    class Own(shop.rig.flavour.module.BaseTransport, shop.rig.flavour.module.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        inner = shop.answers(200)

        def handle_request(self, request: Any) -> Any:
            return self.inner.handle_request(request)

        async def handle_async_request(self, request: Any) -> Any:
            return await self.inner.handle_async_request(request)

    def use(client: Any) -> Any:
        return defer(client, client.build_request("POST", UPSERT, headers=KEYS, json=USERS))

    response = shop.rig.flavour.using(use, transport=Own())
    assert response.headers["x-insider-otel"] == f"deferred; job={shop.jobs[0].id}"


def test_calls_with_an_ordering_key_go_through_the_outbox_in_one_line(shop: Shop) -> None:
    transport = shop.answers(200)
    for user in ("jane@example.com", "joe@example.com", "jane@example.com"):
        shop.post(transport, extensions={"insider": {"ordering_key": user}})
    first, other, second = (job.line for job in shop.jobs)
    assert first == second != other
    assert first is not None
    assert "jane" not in first


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"url": VERIFY, "headers": MAIL_KEYS}, "verify.check cannot be deferred: somebody waits for its answer"),
        ({"extensions": {"insider": {"later": True}}}, "has 'later'; it accepts defer, ordering_key, account"),
        ({"extensions": {"insider": True}}, "is a bool; it accepts a mapping"),
        ({"extensions": {"insider": {"defer": "yes"}}}, r'\["defer"\] is True or False'),
        ({"extensions": {"insider": {"ordering_key": 7}}}, r'\["ordering_key"\] is text'),
        ({"extensions": {"insider": {"defer": True, "account": "\ud800"}}}, r'\["account"\] is text'),
        ({"headers": {**KEYS, "X-REQUEST-TOKEN": "another-shops-token"}}, "name this one"),
        ({"headers": {**KEYS, "X-Session-Secret": "abcdef123"}}, "nobody provides x-session-secret"),
        ({"json": {"note": "token-of-shop-one"}}, "a credential stands in its body"),
        ({"json": None, "content": b'{"note": "token-of-shop\\u002done"}'}, "a credential stands in its body"),
        ({"json": None, "content": b"note=token%2Dof-shop-one"}, "a credential stands in its body"),
        (
            {"json": None, "content": gzip.compress(b"token-of-shop-one"), "headers": GZIP},
            "a credential stands in its body",
        ),
        *(({"json": None, **spelt}, "a credential stands in its body") for spelt in _spellings(STRAY_TOKEN)),
        *(({"json": None, **spelt}, "its body holds 'api_key'") for spelt in _spellings(STRAY_KEY)),
        ({"json": None, "data": {"api_key": "another-key"}}, "its body holds 'api_key'"),
        ({"json": None, "content": gzip.compress(STRAY_KEY)[:-9], "headers": GZIP}, "not compressed as its"),
        ({"json": None, "content": b"{}", "headers": GZIP}, "not compressed as its"),
        ({"json": None, "content": zlib.compress(b"{}") + STRAY_KEY, "headers": DEFLATE}, "followed by more"),
        ({"json": None, "content": STRAY_KEY, "headers": {**KEYS, "Content-Encoding": "br"}}, "compressed with br"),
        ({"json": {"users": [{"push": {"api_key": "another-key"}}]}}, "its body holds 'api_key'"),
        ({"url": f"{UPSERT}?note=token-of-shop-one"}, "a credential stands in its URL"),
        ({"url": f"{UPSERT}?note=token%252Dof-shop-one"}, "a credential stands in its URL"),
        ({"url": f"{UPSERT}?apiKey=another-key"}, "its URL holds 'apiKey'"),
        (
            {"url": UPSERT.replace("https://", "https://jane:pass@")},
            "its URL holds a user name or a password|authorization",
        ),
    ],
)
def test_what_cannot_be_deferred_says_why(shop: Shop, options: dict[str, Any], says: str) -> None:
    given: dict[str, Any] = {"extensions": LATER, **options}
    with pytest.raises(CannotDefer, match=says):
        shop.post(shop.answers(200), given.pop("url", UPSERT), **given)
    assert not shop.path.exists() or not shop.jobs


@pytest.mark.parametrize("spelt", _spellings(b'{"users": []}'))
def test_a_body_without_credentials_is_kept_byte_by_byte_however_it_is_spelt(shop: Shop, spelt: dict[str, Any]) -> None:
    shop.post(shop.answers(200), extensions=LATER, **{"json": None, **spelt})
    assert Codec().decode(shop.jobs[0].content).body == spelt["content"]


def test_a_stream_cannot_be_deferred(shop: Shop) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b"{}"

    stream = chunks() if shop.rig.flavour.is_async else iter([b"{}"])
    with pytest.raises(CannotDefer, match="its body is a stream, which is sent once; send bytes"):
        shop.post(shop.answers(200), content=stream, json=None, extensions=LATER)


def test_without_an_outbox_a_call_that_asks_for_one_is_refused(rig: Rig) -> None:
    with pytest.raises(CannotDefer, match="there is no outbox: name one in the setting outbox"):
        rig.flavour.post(UPSERT, transport=rig.answers(200), headers=KEYS, json=USERS, extensions=LATER)


# ------------------------------------------------------------------------------------------------------ credentials


def test_no_credential_is_stored_and_all_else_is(shop: Shop) -> None:
    headers = {**KEYS, "Content-Type": "application/json", "Accept-Language": "tr", "X-Trace-Of-Ours": "1"}
    shop.post(shop.answers(200), f"{UPSERT}?skip=1", headers=headers, extensions=LATER)
    kept = content(shop.jobs[0])
    assert (kept["method"], kept["url"]) == ("POST", f"{UPSERT}?skip=1")
    assert json.loads(kept["text"]) == USERS
    names = {name.lower() for name, _ in kept["headers"]}
    assert {"content-type", "accept-language"} <= names
    assert sorted(kept["places"]) == ["x-partner-name", "x-request-token"]
    stored = b"".join(path.read_bytes() for path in shop.path.parent.iterdir())
    assert b"token-of-shop-one" not in stored


def test_a_key_in_the_body_is_taken_out_of_it(shop: Shop) -> None:
    operation = next(each for each in _deferrable_with_a_key_in_the_body())
    url = f"https://{operation.host}{operation.path.replace('{id}', '7')}"
    body = {"api_key": "api-key-of-web-push", "title": "Sale ✓", "price": 12.5}
    transport = shop.answers(200)
    shop.rig.flavour.using(
        lambda client: client.request(operation.methods[0], url, json=body, extensions=LATER), transport=transport
    )
    kept = content(shop.jobs[0])
    assert json.loads(kept["text"]) == {**body, "api_key": None}
    assert kept["places"] == ["body:api_key"]


def _deferrable_with_a_key_in_the_body() -> list[Any]:
    from insider_otel.api.operations import operations

    return [each for each in operations() if each.deferrable and "body:api_key" in each.credentials]


def test_the_provider_is_asked_for_the_account_that_the_call_names(shop: Shop) -> None:
    asked: list[str | None] = []

    def credentials(operation: Any, account: str | None) -> Mapping[str, str]:
        asked.append(account)
        return {"X-PARTNER-NAME": f"shop-{account}", "X-REQUEST-TOKEN": f"token-of-{account}"}

    transport = shop.answers(200, credentials=credentials)
    keys = {"X-PARTNER-NAME": "shop-de", "X-REQUEST-TOKEN": "token-of-de"}
    shop.post(transport, headers=keys, extensions={"insider": {"defer": True, "account": "de"}})
    assert (asked, shop.jobs[0].account) == (["de"], "de")


@pytest.mark.parametrize("value", [None, "", " "])
def test_an_outbox_without_credentials_is_refused_at_the_start(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, value: str | None
) -> None:
    if value is not None:
        monkeypatch.setenv("INSIDER_OTEL_CREDENTIALS_MAIL", value)
    with pytest.raises(SettingsError, match="outbox needs the credentials to send deferred calls with"):
        shop.answers(200, credentials=None)


@pytest.mark.parametrize(
    ("variable", "value", "says"),
    [
        ("INSIDER_OTEL_CREDENTIALS_MIAL", "{}", "names no product of Insider's"),
        ("INSIDER_OTEL_CREDENTIALS_MAIL", "secret-key", "INSIDER_OTEL_CREDENTIALS_MAIL is not a JSON object"),
        ("INSIDER_OTEL_CREDENTIALS_MAIL", "{}", "INSIDER_OTEL_CREDENTIALS_MAIL is not .* one at least is not empty"),
        ("INSIDER_OTEL_CREDENTIALS_MAIL", '{"X-INS-AUTH-KEY": ""}', "one at least is not empty"),
        ("INSIDER_OTEL_CREDENTIALS_MAIL", '{"secret-key": 7}', "one at least is not empty"),
    ],
)
def test_a_variable_with_credentials_is_read_at_the_start(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, variable: str, value: str, says: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(SettingsError, match=says) as caught:
        shop.answers(200, credentials=None)
    assert "secret-key" not in str(caught.value)


def test_credentials_come_from_the_environment_by_product_and_account(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSIDER_OTEL_CREDENTIALS_UNIFICATION__DE", json.dumps(KEYS))
    transport = shop.answers(200, credentials=None)
    shop.post(transport, extensions={"insider": {"defer": True, "account": "de"}})
    assert len(shop.jobs) == 1
    with pytest.raises(CannotDefer, match="INSIDER_OTEL_CREDENTIALS_UNIFICATION"):
        shop.post(transport, extensions=LATER)


@pytest.mark.parametrize(
    ("provider", "says"),
    [
        (lambda operation, account: 1 / 0, "Settings.credentials raised ZeroDivisionError"),
        (lambda operation, account: dict[str, str]()["token-of-shop-one"], "Settings.credentials raised KeyError"),
        (lambda operation, account: "token-of-shop-one", "Settings.credentials returned str, which is no mapping"),
    ],
)
def test_a_provider_that_fails_fails_no_call_and_its_words_are_not_repeated(
    shop: Shop, caplog: pytest.LogCaptureFixture, provider: Any, says: str
) -> None:
    transport = shop.answers(503, credentials=provider)
    with caplog.at_level(logging.WARNING, "insider_otel.outbox"):
        assert shop.post(transport).status_code == 503
    assert says in caplog.text
    assert "token-of-shop-one" not in caplog.text
    with pytest.raises(CannotDefer, match=says) as caught:
        shop.post(transport, extensions=LATER)
    assert call_of(caught.value).verdict.rule == "local.not_deferred"


def test_cookies_are_neither_kept_nor_asked_for(shop: Shop) -> None:
    shop.post(shop.answers(200), headers={**KEYS, "Cookie": "__cf_bm=abcdef123"}, extensions=LATER)
    assert "cookie" not in {name.lower() for name, _ in content(shop.jobs[0])["headers"]}


def test_the_log_names_headers_that_a_deferred_call_is_sent_without(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, "insider_otel.outbox"):
        headers = {**KEYS, "X-Tenant": "secret-tenant", "sentry-trace": "1"}
        shop.post(shop.answers(200), headers=headers, extensions=LATER)
    assert "a deferred user.upsert is sent without its headers x-tenant" in caplog.text
    assert "secret-tenant" not in caplog.text


def test_a_line_is_one_across_insiders_products_and_another_for_another_account(shop: Shop) -> None:
    transport = shop.answers(200)
    in_line = {"insider": {"ordering_key": "jane"}}
    shop.post(transport, extensions=in_line)
    shop.post(transport, MAIL, headers=MAIL_KEYS, json={"subject": "Order"}, extensions=in_line)
    shop.post(transport, extensions={"insider": {"ordering_key": "jane", "account": "de"}})
    upsert, mail, elsewhere = shop.jobs
    assert upsert.line == mail.line != elsewhere.line
    assert (upsert.pool, elsewhere.pool) == ("user.upsert", "user.upsert@de")


def test_a_call_that_would_lack_credentials_ends_as_without_an_outbox_and_the_log_says_why_once(
    shop: Shop, caplog: pytest.LogCaptureFixture
) -> None:
    transport = shop.answers(503, credentials=lambda operation, account: {})
    with caplog.at_level(logging.WARNING, "insider_otel.outbox"):
        calls = [call_of(shop.post(transport)) for _ in range(2)]
    assert [call.outcome for call in calls] == [Outcome.FAILED] * 2
    assert calls[0].stopped is Stop.DEADLINE
    (record,) = caplog.records
    assert record.getMessage() == (
        "user.upsert cannot be deferred: nobody provides x-partner-name and x-request-token, and credentials are not "
        "stored with a call: let Settings.credentials, which takes an insider_otel.Operation, whose name is "
        "operation.name, and the account, return them, or put them into INSIDER_OTEL_CREDENTIALS_UNIFICATION"
    )


# ---------------------------------------------------------------------------------------------------------- trouble


def _full(outbox: SQLiteOutbox) -> Callable[[Job], None]:
    def put(job: Job) -> None:
        raise OutboxError("the disk is full")

    return put


def test_an_outbox_in_trouble_leaves_a_call_as_it_was_and_refuses_one_that_asked(
    shop: Shop, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    transport = shop.answers(503)
    monkeypatch.setattr(SQLiteOutbox, "put", lambda self, job: _full(self)(job))
    with caplog.at_level(logging.WARNING, "insider_otel.outbox"):
        response = shop.post(transport)
    assert (response.status_code, call_of(response).outcome) == (503, Outcome.FAILED)
    assert "the disk is full" in caplog.text
    with pytest.raises(OutboxError, match="the disk is full"):
        shop.post(transport, extensions=LATER)


def test_one_outbox_serves_all_transports_of_a_process(shop: Shop) -> None:
    clock = shop.rig.clock
    assert Desk(shop.settings(), clock).outbox is Desk(shop.settings(), clock).outbox
