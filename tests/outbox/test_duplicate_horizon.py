"""A mail that Insider may have is repeated while Insider ignores repeats, or never: whoever dies, however late."""

from __future__ import annotations

import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel import Settings, request_scope
from insider_otel.delivery.deliverer import Deliverer
from insider_otel.http.engine import Engine
from insider_otel.http.transport import EngineTransport
from insider_otel.outbox.protocol import Lease
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.testing import FakeClock, FakeInsider, sample_request
from insider_otel.testing._wire import Plan, Request
from insider_otel.testing.faults import Step, reply, reset, timeout

from .jobs import LEASE, unlimited
from .killed import KEYS

_MAIL = sample_request("mail.send")
WINDOW = 900.0


class TimedInsider(FakeInsider):
    """Notes when each request came."""

    def __init__(self, clock: FakeClock) -> None:
        super().__init__(clock=clock)
        self.moments: list[float] = []

    def handle(self, request: Request) -> Plan:
        self.moments.append(self.clock())
        return super().handle(request)


class Shop:
    """An app that sends one mail, and a worker that may die while it delivers it."""

    def __init__(self, directory: Path, **settings: Any) -> None:
        self.clock = FakeClock()
        self.insider = TimedInsider(self.clock)
        options: dict[str, Any] = {
            "outbox": f"sqlite:///{directory / 'outbox.db'}",
            "credentials": lambda operation, account: KEYS,
            "quick_retries": 1,
        }
        self.engine = Engine(Settings(**{**options, **settings}), clock=self.clock, random=lambda: 0.5)
        transport = EngineTransport(self.engine, self.insider.transport(), self.clock.sleep)
        self.client = httpx.Client(transport=transport)
        self.store = SQLiteOutbox(directory / "outbox.db")
        self._deliverer = Deliverer(self.engine, lambda: self.client)

    def send(self, *steps: Step | str, **options: Any) -> None:
        """The app sends the mail; this is what happens to it and to its repeats, for ever."""
        self.insider.script("mail.send", *steps, repeat=True)
        with request_scope(deadline=20.0):
            self.client.post(
                _MAIL.url,
                headers=_MAIL.headers,
                content=_MAIL.content,
                extensions={"insider": options} if options else {},
            )

    def work(self, fate: str = "lives") -> None:
        """One turn of the worker, if anything is due."""
        for lease in self.store.take(1, self.clock(), lease=LEASE, pace=unlimited).leases:
            if fate == "dies planned":
                return
            assert self.store.begin(lease, self.clock())
            if fate == "dies before":
                return
            self._deliver(lease, fate)

    def _deliver(self, lease: Lease, fate: str) -> None:
        job = self._deliverer.deliver(lease.job).job
        if fate == "dies after":
            return
        if job is None:
            self.store.delivered(lease)
        else:
            self.store.put_back(lease, job)

    def work_to_the_end(self) -> None:
        """Until nothing waits."""
        while self.store.stats().waiting:
            wake_at = self.store.take(0, self.clock(), lease=LEASE, pace=unlimited).wake_at
            assert wake_at is not None
            self.clock.advance(max(wake_at - self.clock(), 0.0) + 0.001)
            self.work()

    @property
    def stopped(self) -> list[str | None]:
        """Why the mail was given up, if it was."""
        return [job.stopped for job in self.store.jobs("dead")]

    def close(self) -> None:
        self.client.close()
        self.store.close()


_STEPS = st.sampled_from(
    ["ok", "503", "reset", reset(processed=True), timeout(processed=True), timeout(), reply(502, processed=True)]
)
_FATES = st.sampled_from(["lives", "dies planned", "dies before", "dies after"])
_TURNS = st.lists(st.tuples(st.floats(0, 1000), _FATES), max_size=8)


@given(steps=st.lists(_STEPS, min_size=1, max_size=6), turns=_TURNS, later=st.booleans())
def test_no_repeat_comes_after_the_window(steps: list[Step | str], turns: list[tuple[float, str]], later: bool) -> None:
    with tempfile.TemporaryDirectory() as directory:
        shop = Shop(Path(directory))
        with suppress(httpx.TransportError):
            shop.send(*steps, **({"defer": True} if later else {}))
        for pause, fate in turns:
            shop.clock.advance(pause)
            shop.work(fate)
        shop.work_to_the_end()
        requests = list(zip(shop.insider.moments, shop.insider.requests, strict=True))
        accepted = [moment for moment, request in requests if request.accepted]
        assert len(accepted) <= 1, "nobody gets the mail twice"
        for first in accepted:
            assert all(moment < first + WINDOW for moment, _ in requests), "not even a repeat that would be ignored"
        assert set(shop.stopped) <= {"duplicate_window", "expired"}
        shop.close()


@pytest.mark.parametrize(("age", "ends"), [(880.0, "delivered"), (894.0, "delivered"), (901.0, "duplicate_window")])
def test_the_window_is_counted_from_the_first_sending_of_which_nothing_was_heard(
    tmp_path: Path, age: float, ends: str
) -> None:
    shop = Shop(tmp_path)
    shop.send("ok", defer=True)
    sent_at = shop.clock()
    shop.work("dies before")
    shop.clock.advance(age)
    shop.work()
    assert shop.clock() == sent_at + age
    if ends == "delivered":
        assert len(shop.insider.accepted("mail.send")) == 1
        assert shop.stopped == []
    else:
        assert shop.insider.requests == []
        assert shop.stopped == ["duplicate_window"]
    assert shop.store.stats().waiting == 0
    shop.close()


def test_a_person_who_retries_a_dead_letter_has_seen_what_may_have_become_of_it(tmp_path: Path) -> None:
    shop = Shop(tmp_path)
    shop.send("ok", defer=True)
    shop.work("dies before")
    shop.clock.advance(1000)
    shop.work()
    (dead,) = shop.store.jobs("dead")
    assert shop.store.retry(dead.id, now=shop.clock(), expires=dead.expires)
    shop.work()
    assert len(shop.insider.accepted("mail.send")) == 1
    assert shop.store.jobs() == []
    shop.close()


def test_a_shorter_window_of_the_apps_own_is_kept_too(tmp_path: Path) -> None:
    shop = Shop(tmp_path, dedupe_window=60.0)
    shop.send("ok", defer=True)
    shop.work("dies before")
    shop.clock.advance(61)
    shop.work()
    assert shop.stopped == ["duplicate_window"]
    shop.close()
