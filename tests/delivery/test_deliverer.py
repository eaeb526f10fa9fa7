"""A deferred call is sent in the trace of the call that was made, and what becomes of it is decided once."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.trace import Link, SpanContext, StatusCode, TraceFlags

from insider_otel import Settings, SettingsError, health, request_scope
from insider_otel.delivery.deliverer import Deliverer, Ending
from insider_otel.http.engine import Engine
from insider_otel.http.redelivery import LeaseLost
from insider_otel.http.transport import EngineTransport
from insider_otel.outbox.job import Job
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.testing import CapturedSpans, FakeClock

UPSERT = "https://unification.useinsider.com/api/user/v1/upsert"
MAIL = "https://mail.useinsider.com/mail/v1/send"
SMS = "https://sms.useinsider.com/v1/send"
KEYS = {"X-PARTNER-NAME": "shop-one", "X-REQUEST-TOKEN": "token-of-shop-one", "X-INS-AUTH-KEY": "key-of-the-shop"}
LATER = {"insider": {"defer": True}}
WORKER = Link(SpanContext(0xABC, 0xDEF, is_remote=False, trace_flags=TraceFlags(1)))


@dataclass
class Insider:
    """Answers in turn, and the last answer for ever."""

    answers: list[Any] = field(default_factory=lambda: [200])
    requests: list[httpx.Request] = field(default_factory=list)

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, type):
            raise answer("no answer", request=request)
        status, body, headers = answer if isinstance(answer, tuple) else (answer, {}, {})
        return httpx.Response(status, json=body, headers=headers)


@dataclass
class Shop:
    """An app that defers, and the worker that delivers, by one clock."""

    path: Path
    insider: Insider = field(default_factory=Insider)
    clock: FakeClock = field(default_factory=FakeClock)
    spans: CapturedSpans = field(default_factory=CapturedSpans)
    metrics: InMemoryMetricReader = field(default_factory=InMemoryMetricReader)

    def __post_init__(self) -> None:
        self.meter_provider = MeterProvider([self.metrics], shutdown_on_exit=False)

    def engine(self, **more: Any) -> Engine:
        options: dict[str, Any] = {
            "outbox": f"sqlite:///{self.path}",
            "credentials": lambda operation, account: KEYS,
            "quick_retries": 1,
            "quick_delay": 0.5,
        }
        settings = Settings(**{**options, **more})
        return Engine(
            settings,
            tracer_provider=self.spans.tracer_provider,
            meter_provider=self.meter_provider,
            clock=self.clock,
            random=lambda: 0.5,
        )

    def client(self, engine: Engine) -> httpx.Client:
        return httpx.Client(transport=EngineTransport(engine, httpx.MockTransport(self.insider), self.clock.sleep))

    def defer(self, url: str = UPSERT, *, extensions: Any = LATER, body: Any = None, **more: Any) -> Job:
        engine = self.engine(**more)
        with self.client(engine) as client:
            client.post(url, headers=_keys_for(url), json=body or {"users": []}, extensions=extensions)
        return self.kept[-1]

    def deliver(self, job: Job, **more: Any) -> Ending:
        engine = self.engine(**more)
        with self.client(engine) as client:
            return Deliverer(engine, lambda: client).deliver(job, [WORKER])

    def retries(self) -> dict[Any, float]:
        """The metric: by what made them necessary, how many there were."""
        data = self.metrics.get_metrics_data()
        return {
            (point.attributes or {})["insider.status.category"]: point.value  # type: ignore[union-attr]
            for resource in (data.resource_metrics if data else ())
            for scope in resource.scope_metrics
            for metric in scope.metrics
            if metric.name == "insider.client.retries"
            for point in metric.data.data_points
        }

    @property
    def kept(self) -> list[Job]:
        return list(SQLiteOutbox(self.path).jobs())


def _keys_for(url: str) -> dict[str, str]:
    names = ("X-PARTNER-NAME", "X-REQUEST-TOKEN") if "unification" in url else ("X-INS-AUTH-KEY",)
    return {name: KEYS[name] for name in names}


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path / "outbox.db")


def kept(ending: Ending) -> Job:
    assert ending.job is not None
    return ending.job


# ------------------------------------------------------------------------------------------------------------- sent


def test_it_is_sent_as_the_app_would_have_sent_it(shop: Shop) -> None:
    job = shop.defer(body={"users": [{"identifiers": {"email": "jane@example.com"}}]})
    assert shop.deliver(job) == Ending(None)
    sent = shop.insider.requests[0]
    assert (sent.method, str(sent.url)) == ("POST", UPSERT)
    assert json.loads(sent.content) == {"users": [{"identifiers": {"email": "jane@example.com"}}]}
    assert {name: sent.headers[name] for name in _keys_for(UPSERT)} == _keys_for(UPSERT)
    assert sent.headers["content-type"] == "application/json"


def test_it_goes_on_in_the_trace_of_the_call_and_links_to_the_worker(shop: Shop) -> None:
    shop.deliver(shop.defer())
    assert shop.spans.tree() == [
        "call user.upsert deferred",
        "  delivery user.upsert succeeded",
        "    POST /api/user/v1/upsert 200",
    ]
    delivery = shop.spans.deliveries()[0]
    assert [link.context.span_id for link in delivery.links] == [0xDEF]
    assert shop.insider.requests[0].headers["traceparent"].split("-")[1] == f"{delivery.context.trace_id:032x}"


def test_attempts_go_on_counting(shop: Shop) -> None:
    shop.insider.answers = [503, 503, 503, 200]
    with request_scope(2.0, clock=shop.clock):
        job = shop.defer(extensions={})
    assert job.attempts == 2
    assert shop.deliver(job) == Ending(None)
    delivery = shop.spans.deliveries()[0]
    assert (delivery.attributes or {})["insider.attempts"] == 4
    resends = [(span.attributes or {}).get("http.request.resend_count") for span in shop.spans.attempts()]
    assert resends == [None, 1, 2, 3]
    # The metric counts each of them, also the first one of a delivery.
    assert shop.retries() == {"unavailable": 3}


def test_the_first_attempt_of_a_call_is_no_retry_whenever_it_is_made(shop: Shop) -> None:
    shop.deliver(shop.defer())
    assert shop.retries() == {}


def test_rotated_credentials_are_the_new_ones(shop: Shop) -> None:
    job = shop.defer()
    new = {**KEYS, "X-REQUEST-TOKEN": "token-after-rotation"}
    shop.deliver(job, credentials=lambda operation, account: new)
    assert shop.insider.requests[0].headers["X-REQUEST-TOKEN"] == "token-after-rotation"


@pytest.mark.parametrize("key", [None, Fernet.generate_key().decode()], ids=["in clear", "encrypted"])
def test_a_call_is_never_sent_with_the_credentials_of_another_account(shop: Shop, key: str | None) -> None:
    job = shop.defer(outbox_key=key)
    assert b"shop-one" not in job.content
    others = {**KEYS, "X-PARTNER-NAME": "shop-two", "X-REQUEST-TOKEN": "token-of-shop-two"}
    left = kept(shop.deliver(job, outbox_key=key, credentials=lambda operation, account: others))
    assert shop.insider.requests == []
    assert (left.stopped, left.attempts) == (None, 0), "it waits for a worker of its own account"
    assert "shared by several accounts: name them by account" in left.verdict["message"]
    assert shop.deliver(left, outbox_key=key) == Ending(None)


def test_a_call_that_an_older_version_kept_without_its_account_is_sent(shop: Shop) -> None:
    job = shop.defer()
    content = json.loads(job.content[1:])
    del content["owner"]
    assert shop.deliver(replace(job, content=b"p" + json.dumps(content).encode())) == Ending(None)


def test_a_call_that_says_nothing_of_its_account_is_sent(shop: Shop) -> None:
    assert shop.deliver(shop.defer(MAIL)) == Ending(None)


def test_what_was_encrypted_is_read_with_an_older_key_too(shop: Shop) -> None:
    old, new = Fernet.generate_key().decode(), Fernet.generate_key().decode()
    job = shop.defer(body={"users": [{"email": "jane@example.com"}]}, outbox_key=old)
    assert b"jane@example.com" not in job.content
    assert shop.deliver(job, outbox_key=f"{new},{old}") == Ending(None)


# ------------------------------------------------------------------------------------------------- sent again, later


def test_while_insider_is_down_it_is_spread_over_a_window_that_doubles(shop: Shop) -> None:
    shop.insider.answers = [503]
    job, delays = shop.defer(), []
    for _ in range(6):
        job = kept(shop.deliver(job))
        delays.append(job.due - shop.clock())
        shop.clock.advance(delays[-1])
    # Chance is 0.5 here: half of 300 s, 600 s … and half of an hour at most.
    assert [round(delay) for delay in delays] == [150, 300, 600, 1200, 1800, 1800]
    assert job.deliveries == 6
    assert job.verdict["category"] == "unavailable"


def test_it_comes_back_when_insider_said(shop: Shop) -> None:
    shop.insider.answers = [(429, {"message": "Too many requests"}, {"retry-after": "120"})]
    ending = shop.deliver(shop.defer())
    assert 120 <= kept(ending).due - shop.clock() <= 133
    assert ending.pool_opens_at is None


def test_a_pool_without_room_is_left_alone(shop: Shop) -> None:
    limits = {"user.upsert": "1/60s"}
    engine = shop.engine(limits=limits)
    first, second = shop.defer(), shop.defer()
    with shop.client(engine) as client:
        deliverer = Deliverer(engine, lambda: client)
        assert deliverer.deliver(first) == Ending(None)
        ending = deliverer.deliver(second)
    assert kept(ending).attempts == 0
    assert ending.pool_opens_at == pytest.approx(shop.clock() + 60.0)
    assert len(shop.insider.requests) == 1


@pytest.mark.parametrize(
    ("trouble", "says"),
    [
        ({"credentials": lambda operation, account: None}, "nobody provides x-partner-name"),
        ({"credentials": lambda operation, account: 1 / 0}, ""),
        ({"outbox_key": None}, "there is no outbox_key"),
        ({"outbox_key": Fernet.generate_key().decode()}, "encrypted with another key"),
    ],
)
def test_what_the_app_has_to_mend_keeps_a_job_waiting(shop: Shop, trouble: dict[str, Any], says: str) -> None:
    key = Fernet.generate_key().decode()
    job = kept(shop.deliver(shop.defer(outbox_key=key), **{"outbox_key": key, **trouble}))
    assert (job.stopped, job.attempts, job.deliveries) == (None, 0, 0)
    assert job.due > shop.clock()
    assert job.verdict["category"] == "configuration"
    assert says in job.verdict["message"]
    assert shop.insider.requests == []


def test_an_address_that_is_insiders_no_longer_is_not_sent_to(shop: Shop) -> None:
    job = shop.defer("http://127.0.0.1:9/api/user/v1/upsert", hosts={"127.0.0.1:9": "unification.useinsider.com"})
    assert "127.0.0.1 is no host of Insider's" in kept(shop.deliver(job)).verdict["message"]
    assert shop.insider.requests == []


# -------------------------------------------------------------------------------------------------------- given up


def test_a_final_refusal_is_a_dead_letter_with_the_verdict(shop: Shop) -> None:
    shop.insider.answers = [400]
    job = kept(shop.deliver(shop.defer()))
    assert (job.stopped, job.attempts, job.verdict["fault"]) == ("failed", 1, "caller")


def test_a_key_that_is_refused_waits_for_the_right_one(shop: Shop) -> None:
    shop.insider.answers = [(401, {"message": "Authentication failed"}, {}), 200]
    job = kept(shop.deliver(shop.defer()))
    assert (job.stopped, job.verdict["category"]) == (None, "authentication")
    assert job.due > shop.clock()
    assert shop.deliver(job) == Ending(None)


def test_a_delivery_whose_key_is_refused_is_deferred_and_no_failure_until_it_is_given_up(shop: Shop) -> None:
    shop.insider.answers = [(401, {"message": "Authentication failed"}, {})]
    with request_scope(clock=shop.clock) as scope:
        job = kept(shop.deliver(shop.defer()))
    assert scope.summary()["insider.request.failed_calls"] == 0
    (delivery,) = shop.spans.deliveries()
    told = delivery.attributes or {}
    assert (told["insider.outcome"], told["insider.status.category"]) == ("deferred", "authentication")
    assert ("error.type" in told, delivery.status.status_code) == (False, StatusCode.UNSET)
    assert [event.name for event in delivery.events] == ["insider.deferred"]
    last = health()["products"]["unification"]
    assert (last["outcome"], last["category"]) == ("deferred", "authentication")

    shop.clock.advance(job.expires - shop.clock())
    assert kept(shop.deliver(job)).stopped == "expired"
    given_up = shop.spans.deliveries()[-1].attributes or {}
    assert (given_up["insider.outcome"], given_up["error.type"]) == ("failed", "authentication")


def test_whoever_has_lost_the_job_sends_nothing(shop: Shop) -> None:
    job, engine = shop.defer(), shop.engine()
    with shop.client(engine) as client, pytest.raises(LeaseLost):
        Deliverer(engine, lambda: client).deliver(job, [], lambda: False)
    assert shop.insider.requests == []
    assert (shop.spans.deliveries()[0].attributes or {})["insider.outcome"] == "cancelled"


def test_it_counts_as_sent_only_when_it_is(shop: Shop) -> None:
    begun: list[int] = []

    def begin() -> bool:
        begun.append(len(shop.insider.requests))
        return True

    job, engine = shop.defer(), shop.engine()
    with shop.client(engine) as client:
        deliverer = Deliverer(engine, lambda: client)
        deliverer.deliver(job, [], begin)
        deliverer.deliver(replace(job, content=b"damaged"), [], begin)
    assert begun == [0]


def test_what_a_hook_of_the_client_raises_changes_nothing(shop: Shop) -> None:
    shop.insider.answers = [400]
    job, engine = shop.defer(), shop.engine()
    with shop.client(engine) as client:
        client.event_hooks = {"response": [lambda response: response.raise_for_status()]}
        assert kept(Deliverer(engine, lambda: client).deliver(job)).stopped == "failed"


def test_parameters_of_the_client_are_not_put_in_the_place_of_the_calls(shop: Shop) -> None:
    job, engine = shop.defer(f"{UPSERT}?v=1&q=2"), shop.engine()
    with shop.client(engine) as client:
        client.params = httpx.QueryParams({"q": "3"})
        Deliverer(engine, lambda: client).deliver(job)
    assert str(shop.insider.requests[0].url) == f"{UPSERT}?v=1&q=2"


def test_a_job_is_not_due_after_it_has_expired(shop: Shop) -> None:
    shop.insider.answers = [(429, {"message": "Too many requests"}, {"retry-after": "86400"})]
    job = kept(shop.deliver(shop.defer(outbox_horizon=60.0)))
    assert job.due == job.expires


def test_after_the_clock_was_set_back_a_mail_that_may_have_arrived_is_not_sent_again(shop: Shop) -> None:
    job = replace(shop.defer(MAIL, body={"subject": "Order"}), ambiguous_since=shop.clock() + 60.0)
    assert kept(shop.deliver(job)).stopped == "duplicate_window"


def test_a_mail_that_may_have_arrived_is_that_also_if_its_key_is_refused_then(shop: Shop) -> None:
    shop.insider.answers = [httpx.ReadTimeout, (401, {"message": "Authentication failed"}, {})]
    began = shop.clock()
    job = kept(shop.deliver(shop.defer(MAIL, body={"subject": "Order"})))
    assert job.attempts == 2
    assert job.ambiguous_since == pytest.approx(began)


def test_a_mail_whose_credentials_come_after_its_window_is_not_sent(shop: Shop) -> None:
    job = replace(shop.defer(MAIL, body={"subject": "Order"}), ambiguous_since=shop.clock() - 880)

    def slow(operation: Any, account: str | None) -> dict[str, str]:
        shop.clock.advance(60.0)
        return KEYS

    assert kept(shop.deliver(job, credentials=slow)).stopped == "duplicate_window"
    assert shop.insider.requests == []


def test_cookies_of_one_answer_do_not_go_with_the_next_call(shop: Shop) -> None:
    shop.insider.answers = [(200, {}, {"set-cookie": "account=one"})]
    first, second, engine = shop.defer(), shop.defer(), shop.engine()
    with shop.client(engine) as client:
        deliverer = Deliverer(engine, lambda: client)
        deliverer.deliver(first)
        deliverer.deliver(second)
    assert ["cookie" in request.headers for request in shop.insider.requests] == [False, False]


def test_a_client_that_bypasses_the_engine_sends_nothing(shop: Shop) -> None:
    job, engine = shop.defer(), shop.engine()
    with httpx.Client(transport=httpx.MockTransport(shop.insider)) as client:
        left = kept(Deliverer(engine, lambda: client).deliver(job))
    assert "does not go through this worker's engine" in left.verdict["message"]
    assert shop.insider.requests == []


def test_the_span_of_a_delivery_says_why_it_goes_on_later(shop: Shop) -> None:
    shop.insider.answers = [503]
    shop.deliver(shop.defer())
    attributes = shop.spans.deliveries()[0].attributes or {}
    assert (attributes["insider.outcome"], attributes["insider.status.category"]) == ("deferred", "unavailable")


def test_records_lost_are_a_dead_letter(shop: Shop) -> None:
    body = {"data": {"successful": {"count": 1}, "fail": {"count": 1, "errors": {}}}}
    shop.insider.answers = [(200, body, {})]
    dead = kept(shop.deliver(shop.defer()))
    assert (dead.stopped, dead.stopped_at) == ("partly_failed", shop.clock())


def test_after_the_horizon_it_is_given_up_with_the_last_verdict(shop: Shop) -> None:
    shop.insider.answers = [503]
    job = kept(shop.deliver(shop.defer(outbox_horizon=3600.0)))
    shop.clock.advance(3600.0)
    dead = kept(shop.deliver(job))
    assert (dead.stopped, dead.verdict["category"]) == ("expired", "unavailable")
    assert (job.stopped_at, dead.stopped_at) == (None, shop.clock())
    last = shop.spans.deliveries()[-1].attributes or {}
    assert (last["insider.outcome"], last["insider.retry.stopped"]) == ("failed", "expired")
    assert len(shop.insider.requests) == 2


def test_what_must_not_be_sent_twice_is_given_up_where_it_may_have_arrived(shop: Shop) -> None:
    job = replace(shop.defer(SMS, body={"message": "hello"}), ambiguous_since=shop.clock())
    assert kept(shop.deliver(job)).stopped == "unsafe"
    assert shop.insider.requests == []


def test_what_may_be_sent_twice_is_sent_again_however_late(shop: Shop) -> None:
    job = replace(shop.defer(), ambiguous_since=shop.clock() - 80_000)
    assert shop.deliver(job) == Ending(None)


@given(late=st.floats(0, 2000), answers=st.lists(st.sampled_from([503, httpx.ReadTimeout, 429, 200]), min_size=1))
def test_a_mail_that_may_have_arrived_is_sent_inside_the_duplicate_window_or_never(
    tmp_path_factory: pytest.TempPathFactory, late: float, answers: list[Any]
) -> None:
    shop = Shop(tmp_path_factory.mktemp("shop") / "outbox.db")
    sent_at: list[float] = []
    shop.insider.answers = [httpx.ReadTimeout, *answers]

    answer: Callable[[httpx.Request], httpx.Response] = shop.insider.__call__

    def note(request: httpx.Request) -> httpx.Response:
        sent_at.append(shop.clock())
        return answer(request)

    job: Job | None = shop.defer(MAIL, body={"subject": "Order"})
    engine = shop.engine()
    transport = EngineTransport(engine, httpx.MockTransport(note), shop.clock.sleep)
    with httpx.Client(transport=transport) as client:
        deliverer = Deliverer(engine, lambda: client)
        while job is not None and job.stopped is None:
            shop.clock.advance(max(job.due - shop.clock(), 0.0) + late)
            job = deliverer.deliver(job).job
    ambiguous_since = sent_at[0] if sent_at else 0.0
    assert all(moment < ambiguous_since + 900 for moment in sent_at)
    if job is not None:
        assert job.stopped in {"duplicate_window", "expired", "failed"}


def test_without_an_outbox_there_is_nothing_to_deliver(shop: Shop) -> None:
    with pytest.raises(SettingsError, match="there is no outbox"):
        shop.deliver(shop.defer(), outbox=None)


def test_no_credential_shows_in_any_span(shop: Shop) -> None:
    shop.insider.answers = [400]
    shop.deliver(shop.defer(body={"users": [{"email": "jane@example.com"}]}))
    shop.spans.assert_no_secrets(*KEYS.values(), "jane@example.com")
