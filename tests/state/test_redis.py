"""The Redis store, on a real server: what only it has to promise. What all stores promise is in ``test_contract.py``."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import textwrap
import time
import tomllib
from collections.abc import Callable, Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import (
    MICROSECONDS,
    Admission,
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Correction,
    ListPools,
    PastUse,
    PoolKey,
    Report,
    StoreError,
)
from insider_otel.state.redis_store import RedisStore
from insider_otel.state.window import DAY, MomentsInMemory, RollingWindow
from tests.state.redis_server import MISSING, RedisServer, find_program, redis_server

pytestmark = pytest.mark.skipif(find_program() is None, reason=MISSING)

POOL = PoolKey("catalog.ingest", b"o" * 16)
LIMIT = Limit(3, 10.0)
CLAIM = b"c" * 16
HOUR = 3600 * MICROSECONDS


@pytest.fixture(scope="module")
def shared_server() -> Iterator[RedisServer]:
    with redis_server() as server:
        yield server


@pytest.fixture
def admin(shared_server: RedisServer) -> Iterator[Any]:
    """A client of its own on an empty server."""
    with redis.Redis.from_url(shared_server.url) as client:
        client.flushall()
        client.script_flush()
        yield client


@pytest.fixture
def server(shared_server: RedisServer, admin: Any) -> RedisServer:
    """A server that is empty, and that a test leaves running."""
    return shared_server


@pytest.fixture
def store(server: RedisServer) -> Iterator[RedisStore]:
    store = RedisStore(server.url, timeout=5)
    yield store
    store.close()


def use_all(store: RedisStore, pool: PoolKey = POOL, limit: Limit = LIMIT) -> list[Admission]:
    """Take all that a limit allows at once."""
    return [store.perform(Admit(pool, limit, worker=b"w")) for _ in range(limit.count)]


def record(pool: PoolKey = POOL, kind: str = "pool") -> str:
    """The key of a part of a pool's record."""
    return f"{{insider-otel:{pool.owner.hex()}}}:{kind}:{pool.pool}"


class TestTheScriptsWindow:
    """``window.lua`` is ``window.py`` in another language: whatever is done to both, both answer the same."""

    limits = (Limit(3, 0.001), Limit(5, 0.002), Limit(4, 1, calendar=True))
    # What is done, to which limit, of the slots granted before, how much later, and at what cost.
    steps = st.lists(
        st.tuples(
            st.sampled_from(["reserve", "reserve", "confirm", "give_back", "correct", "add", "used"]),
            st.integers(0, 30),
            st.integers(0, 400),
            st.integers(1, 4),
            st.integers(0, 4),
            st.sampled_from([0, 0, 300, 1500]),
            st.sampled_from([0, 500, 10**7]),
        ),
        max_size=40,
    )

    @settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
    @given(limit=st.sampled_from(limits), steps=steps)
    def test_answers_as_the_one_in_memory(self, admin: Any, limit: Limit, steps: list[tuple[Any, ...]]) -> None:
        moments, free = MomentsInMemory(), list[int]()
        window = RollingWindow(moments, free)
        now, slots = 20_000 * DAY + 1234567, [(20_000 * DAY, 1)]
        calls: list[tuple[Any, ...]] = []
        answers: list[Any] = []
        for what, which, later, cost, actual, closed, longest in steps:
            now += later
            slot, held = slots[which % len(slots)]
            match what:
                case "reserve":
                    answer: Any = window.reserve(limit, now, cost=cost, not_before=now + closed, longest_wait=longest)
                    calls.append((what, now, cost, now + closed, longest))
                    slots += [(answer[0], cost)] * answer[1]
                case "confirm":
                    answer = window.confirm(limit, slot, now, cost=held, not_before=now + closed, longest_wait=longest)
                    calls.append((what, slot, now, held, now + closed, longest))
                    slots += [(answer[0], held)] * answer[1]
                case "give_back":
                    answer = window.give_back(slot, cost)
                    calls.append((what, slot, cost))
                case "correct":
                    answer = window.correct(Correction(slot, held, actual, later))
                    calls.append((what, slot, held, actual, later))
                case "add":
                    answer = window.add((now - later, cost), (now - later // 2, actual))
                    calls.append((what, [[now - later, cost], [now - later // 2, actual]]))
                case _:
                    answer = window.used(limit, now)
                    calls.append((what, now))
            answers.append(answer)
        reply = json.loads(admin.eval(self.script(), 1, "uses", json.dumps([self.as_lua(limit), calls])))
        assert [self.as_python(answer) for answer in reply["answers"]] == answers
        assert list(map(int, reply["uses"])) == [moments[index] for index in range(len(moments))]
        assert list(map(int, reply["free"])) == free

    @staticmethod
    def script() -> str:
        window = files("insider_otel.state").joinpath("window.lua").read_text()
        return window + textwrap.dedent("""
            redis.call("DEL", KEYS[1])
            uses.key = KEYS[1]
            local limit, calls = unpack(cjson.decode(ARGV[1]))
            local steps = {
              reserve = function(...) return reserve(limit, ...) end,
              confirm = function(...) return confirm(limit, ...) end,
              used = function(...) return used(limit, ...) end,
              give_back = give_back, correct = correct, add = add,
            }
            local function all(list)
              local members = {}
              for index = list.first, list.stop - 1 do table.insert(members, digits(at(list, index))) end
              return members
            end
            local answers = {}
            for _, call in ipairs(calls) do
              local answer, taken = steps[call[1]](unpack(call, 2))
              table.insert(answers, {answer and digits(answer) or "none", taken == nil and "none" or taken})
            end
            return cjson.encode({answers = answers, uses = all(uses), free = all(free)})
        """)

    @staticmethod
    def as_lua(limit: Limit) -> dict[str, object]:
        return {"count": limit.count, "window": round(limit.window * MICROSECONDS), "calendar": limit.calendar}

    @staticmethod
    def as_python(answer: list[Any]) -> Any:
        moment, taken = answer
        if moment == "none":
            return None
        return int(moment) if taken == "none" else (int(moment), taken)


class TestRoundTrips:
    """One for each request, and no word more."""

    def words(self, admin: Any, server: RedisServer, do: Callable[[], object]) -> list[str]:
        """The commands that clients send while something is done; not those that scripts call."""
        with redis.Redis.from_url(server.url) as other, other.monitor() as monitor:
            do()
            admin.execute_command("ECHO", "over")
            heard: list[str] = []
            while True:
                command = monitor.next_command()
                if command["command"] == "ECHO over":
                    return heard
                if command["client_type"] != "lua":
                    heard.append(command["command"].split()[0])

    def test_a_slot_and_a_claim_together_take_one(self, admin: Any, server: RedisServer, store: RedisStore) -> None:
        store.perform(Report(POOL))
        asked = Admit(POOL, LIMIT, claim=ClaimAsk(CLAIM, 30), worker=b"w")
        assert self.words(admin, server, lambda: store.perform(asked)) == ["EVALSHA"]

    def test_a_report_takes_one(self, admin: Any, server: RedisServer, store: RedisStore) -> None:
        store.perform(Report(POOL))
        told = Report(POOL, LIMIT, (Correction(1, 1, 0),), 1.0, LIMIT, ClaimReport(CLAIM, 1, ClaimEnd.DONE, 9))
        assert self.words(admin, server, lambda: store.perform(told)) == ["EVALSHA"]

    def test_a_server_that_has_forgotten_the_script_is_told_it_again(
        self, admin: Any, server: RedisServer, store: RedisStore
    ) -> None:
        first = store.perform(Admit(POOL, LIMIT))
        admin.script_flush()
        assert self.words(admin, server, lambda: store.perform(Admit(POOL, LIMIT))) == ["EVALSHA", "EVAL"]
        assert store.perform(Admit(POOL, LIMIT)).used == 3
        assert store.perform(Admit(POOL, LIMIT)).born == first.born

    def test_a_new_connection_takes_none(self, admin: Any, server: RedisServer, store: RedisStore) -> None:
        store.perform(Report(POOL))
        new = RedisStore(server.url, timeout=5)
        assert self.words(admin, server, lambda: new.perform(Admit(POOL, LIMIT))) == ["EVALSHA"]
        new.close()

    def test_an_event_loop_takes_no_more(self, admin: Any, server: RedisServer, store: RedisStore) -> None:
        store.perform(Report(POOL))
        assert self.words(admin, server, lambda: asyncio.run(store.perform_async(Admit(POOL, LIMIT)))) == ["EVALSHA"]


class TestWhatIsKept:
    def test_every_key_expires_after_all_that_it_says(self, admin: Any, store: RedisStore) -> None:
        closed, window = 7200, 10.0
        store.perform(Report(POOL, closed_for=closed))
        store.perform(Admit(POOL, Limit(3, window), longest_wait=9999, claim=ClaimAsk(CLAIM, 30), worker=b"w"))
        left = {key.decode(): admin.pttl(key) / 1000 for key in admin.keys()}
        assert 29 < left.pop(record(kind="claim").replace(POOL.pool, CLAIM.hex())) <= 30
        assert sorted(left) == [record(kind="pool"), record(kind="uses"), record(kind="workers")]
        assert min(left.values()) > closed + window

    def test_all_keys_of_an_owner_are_in_one_slot_of_a_cluster(self) -> None:
        """A server of a cluster refuses a script whose keys are in several slots."""
        with redis_server("--cluster-enabled", "yes", tcp=True) as node, redis.Redis.from_url(node.url) as admin:
            for slots in range(0, 16384, 4096):
                admin.execute_command("CLUSTER", "ADDSLOTS", *range(slots, slots + 4096))
            wait_until(lambda: re.search(r"cluster_state\W+ok", str(admin.execute_command("CLUSTER INFO"))) is not None)
            store = RedisStore(node.url, timeout=5)
            for owner in (b"a" * 16, b"b" * 16):
                pool = PoolKey("mail.send", owner)
                granted = store.perform(Admit(pool, LIMIT, claim=ClaimAsk(CLAIM, 30), worker=b"w"))
                assert granted.claim is ClaimState.CLAIMED
                store.perform(Report(pool, claim=ClaimReport(CLAIM, granted.token, ClaimEnd.DONE, 30)))
            assert [use.pool.owner for use in store.perform(ListPools())] == [b"a" * 16, b"b" * 16]
            store.close()

    def test_a_minutes_worth_of_uses_is_small(self, admin: Any, store: RedisStore) -> None:
        """25,000 uses take 20 bytes each at most, the server's own reserve included."""
        limit = Limit(25_000, 60)
        for _ in range(1000):
            assert store.perform(Admit(POOL, limit, cost=25)).slot is not None
        assert sum(admin.memory_usage(key, samples=0) for key in admin.keys()) < 25_000 * 20

    def test_what_no_longer_counts_goes(self, admin: Any, store: RedisStore) -> None:
        limit = Limit(5, 0.000_001)
        for _ in range(200):
            assert store.perform(Admit(POOL, limit)).wait == 0
        assert admin.strlen(record(kind="uses")) <= 8 * 3

    def test_prefixes_do_not_mix(self, server: RedisServer, store: RedisStore) -> None:
        other = RedisStore(server.url, timeout=5, prefix="other")
        use_all(store)
        assert other.perform(ListPools()) == ()
        assert other.perform(Admit(POOL, LIMIT)).used == 1
        assert [use.used for use in store.perform(ListPools())] == [3]
        other.close()

    def test_all_pools_are_listed_among_any_number_of_claims(self, admin: Any, store: RedisStore) -> None:
        for number in range(30):
            store.perform(Admit(PoolKey(f"unlisted:host{number}", b"%16d" % number), LIMIT))
        with admin.pipeline(transaction=False) as many:
            for number in range(5000):
                many.set(f"{{insider-otel:{b'o'.hex() * 16}}}:claim:{number:032x}", b"x")
            many.execute()
        listed = {use.pool for use in store.perform(ListPools())}
        assert listed == {PoolKey(f"unlisted:host{number}", b"%16d" % number) for number in range(30)}

    def test_a_limit_comes_back_as_it_was_named(self, store: RedisStore) -> None:
        named = Limit(7, 0.1234567, unit="quota")
        store.perform(Report(POOL, learned=named))
        assert store.perform(Admit(POOL, Limit(9, 60))).learned == named
        assert [(use.limit, use.learned) for use in store.perform(ListPools())] == [(Limit(9, 60), named)]


class TestTrouble:
    """Whatever is wrong with a server is a ``StoreError``, and in time."""

    def test_nobody_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match="redis.sock"):
            RedisStore(f"unix://{tmp_path}/redis.sock").perform(ListPools())

    def test_a_server_that_hangs(self, server: RedisServer) -> None:
        store = RedisStore(server.url, timeout=0.2)
        store.perform(Admit(POOL, LIMIT))
        server.pause()
        try:
            for _ in range(2):  # on a connection that was there before, and on a new one
                began = time.monotonic()
                with pytest.raises(StoreError, match=r"no answer within 0\.2 s"):
                    store.perform(Admit(POOL, LIMIT))
                assert time.monotonic() - began < 0.4
        finally:
            server.resume()
        assert store.perform(Admit(POOL, Limit(9, 60))).slot is not None
        store.close()

    @pytest.mark.anyio
    async def test_a_server_that_hangs_a_loop(self, server: RedisServer, anyio_backend: Any) -> None:
        store = RedisStore(server.url, timeout=0.2)
        await store.perform_async(Admit(POOL, LIMIT))
        server.pause()
        try:
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises(StoreError, match=r"no answer within 0\.2 s"):
                    await store.perform_async(Admit(POOL, LIMIT))
                assert time.monotonic() - began < 0.4
        finally:
            server.resume()
        assert (await store.perform_async(Admit(POOL, Limit(9, 60)))).slot is not None
        store.close()

    def test_a_restarted_server_is_found_and_seen_to_be_new(self) -> None:
        with redis_server() as server:
            store = RedisStore(server.url, timeout=5)
            before = use_all(store)[-1]
            server.stop()
            with pytest.raises(StoreError):
                store.perform(Admit(POOL, LIMIT))
            server.start()
            after = store.perform(Admit(POOL, LIMIT))
            assert after.born != before.born
            assert after.used == 1
            store.close()

    def test_a_flushed_server_is_seen_to_be_new(self, admin: Any, store: RedisStore) -> None:
        before = use_all(store)
        assert len({admission.born for admission in before}) == 1
        admin.flushall()
        assert store.perform(Admit(POOL, LIMIT)).born > before[0].born

    def test_a_record_that_lost_its_uses_is_seen_to_be_new(self, admin: Any, store: RedisStore) -> None:
        """A server that is short of memory may evict any key."""
        before = use_all(store)[-1]
        admin.delete(record(kind="uses"))
        after = store.perform(Admit(POOL, LIMIT))
        assert after.born > before.born
        assert after.used == 1

    def test_a_record_that_is_not_one(self, admin: Any, store: RedisStore) -> None:
        admin.set(record(), "something else")
        with pytest.raises(StoreError, match="WRONGTYPE"):
            store.perform(Admit(POOL, LIMIT))
        admin.delete(record())
        assert store.perform(Admit(POOL, LIMIT)).used == 1

    def test_a_server_without_memory_does_a_request_whole_or_not_at_all(self) -> None:
        with redis_server("--maxmemory-policy", "noeviction") as server, redis.Redis.from_url(server.url) as admin:
            store = RedisStore(server.url, timeout=5)
            store.perform(Admit(POOL, LIMIT))
            kept = {key: admin.dump(key) for key in admin.keys()}
            admin.config_set("maxmemory", "1mb")
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                for number in range(1000):
                    admin.set(f"filling:{number}", b"x" * 10_000)
            with pytest.raises(StoreError, match="OutOfMemoryError"):
                store.perform(Admit(POOL, LIMIT, claim=ClaimAsk(CLAIM, 30), worker=b"new"))
            assert {key: admin.dump(key) for key in admin.keys() if not key.startswith(b"filling")} == kept
            admin.config_set("maxmemory", "0")
            assert store.perform(Admit(POOL, LIMIT)).used == 2
            store.close()

    def test_a_server_that_may_only_be_read(self, server: RedisServer, admin: Any, store: RedisStore) -> None:
        admin.replicaof("127.0.0.1", 1)
        try:
            with pytest.raises(StoreError, match="ReadOnlyError"):
                store.perform(Admit(POOL, LIMIT))
        finally:
            admin.replicaof("NO", "ONE")
        assert store.perform(Admit(POOL, LIMIT)).used == 1

    def test_no_password_is_told(self) -> None:
        with redis_server("--requirepass", "sesame-open") as server:
            wrong = RedisStore(server.url_as("default:sesame-shut"), timeout=5)
            with pytest.raises(StoreError) as refused:
                wrong.perform(ListPools())
            for text in (str(refused.value), repr(wrong), wrong.address):
                assert "sesame" not in text
            right = RedisStore(server.url_as(":sesame-open"), timeout=5)
            assert right.perform(ListPools()) == ()
            right.close()
            wrong.close()


class TestAddress:
    @pytest.mark.parametrize(
        ("url", "address"),
        [
            ("redis://user:secret@example.com:6380/2", "redis://example.com:6380/2"),
            ("rediss://:secret@example.com", "rediss://example.com:6379/0"),
            ("redis://[::1]:7000", "redis://[::1]:7000/0"),
            ("unix://user:secret@/run/redis.sock?db=3", "unix:///run/redis.sock"),
        ],
    )
    def test_is_told_without_user_and_password(self, url: str, address: str) -> None:
        assert RedisStore(url).address == address

    @pytest.mark.parametrize("url", ["redis://user:se/cret@example.com", "http://user:secret@example.com"])
    def test_one_that_cannot_be_read_is_refused_without_showing_it(self, url: str) -> None:
        with pytest.raises(ValueError, match="state: the redis address") as refused:
            RedisStore(url)
        assert "cret" not in str(refused.value)

    def test_an_option_that_is_none_is_refused_by_name(self) -> None:
        with pytest.raises(ValueError, match=r"state: .*'sockettimeout'"):
            RedisStore("redis://localhost?sockettimeout=1")

    @pytest.mark.parametrize("prefix", ["", "a{b}", "a*", "a b"])
    def test_a_prefix_that_means_something_else_in_a_key_is_refused(self, prefix: str) -> None:
        with pytest.raises(ValueError, match="state: prefix"):
            RedisStore("redis://localhost", prefix=prefix)

    def test_without_redis_py_the_remedy_is_named(self) -> None:
        program = "import sys; sys.modules['redis'] = None; import insider_otel.state.redis_store"
        ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False, timeout=60)
        assert 'pip install "insider-otel[redis]"' in ended.stderr


class TestClock:
    """Time is the server's; if that is set back, a pool's time goes on from where it was."""

    def test_nobody_waits_an_hour_because_the_clock_was_set_back(self, admin: Any, store: RedisStore) -> None:
        store.perform(Admit(POOL, LIMIT))
        admin.hset(record(), "skew", HOUR)
        use_all(store, limit=Limit(3, 10))
        admin.hset(record(), "skew", 0)
        waits = [store.perform(Admit(POOL, LIMIT, longest_wait=99)).wait for _ in range(4)]
        assert all(9 < wait <= 10 for wait in waits[:3])
        assert 19 < waits[3] <= 20

    def test_a_closed_pool_opens_when_it_was_to(self, admin: Any, store: RedisStore) -> None:
        store.perform(Report(POOL))
        admin.hset(record(), "skew", HOUR)
        store.perform(Report(POOL, closed_for=5))
        admin.hset(record(), "skew", 0)
        assert 4 < store.perform(Admit(POOL, LIMIT)).wait <= 5

    def test_a_claim_lasts_as_long_as_it_was_to(self, admin: Any, store: RedisStore) -> None:
        store.perform(Report(POOL))
        admin.hset(record(), "skew", HOUR)
        ask = Admit(POOL, LIMIT, claim=ClaimAsk(CLAIM, 0.3))
        store.perform(ask)
        admin.hset(record(), "skew", 0)
        assert store.perform(ask).claim is ClaimState.IN_FLIGHT
        wait_until(lambda: store.perform(Admit(POOL, None, claim=ClaimAsk(CLAIM, 9))).claim is ClaimState.CLAIMED)

    def test_what_was_missed_is_told_by_its_age(self, store: RedisStore) -> None:
        past = (PastUse(9 * MICROSECONDS, 2), PastUse(20 * MICROSECONDS, 5))
        admission = store.perform(Admit(POOL, LIMIT, cost=2, longest_wait=9, past=past))
        assert 0.9 < admission.wait <= 1


class TestEventLoops:
    def test_a_loop_closes_its_connections_and_another_opens_its_own(self, admin: Any, store: RedisStore) -> None:
        async def ask_many() -> list[Admission]:
            return await asyncio.gather(*(store.perform_async(Admit(POOL, Limit(99, 60))) for _ in range(20)))

        before = len(admin.client_list())
        for loop in range(1, 4):
            assert max(admission.used for admission in asyncio.run(ask_many())) == 20 * loop
            wait_until(lambda: len(admin.client_list()) == before)

    def test_connections_of_a_loop_are_bounded(self, admin: Any, store: RedisStore) -> None:
        async def ask_many() -> int:
            await asyncio.gather(*(store.perform_async(Admit(POOL, Limit(999, 60))) for _ in range(300)))
            return len(await asyncio.to_thread(admin.client_list))

        assert asyncio.run(ask_many()) <= 55

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.anyio
    async def test_a_cancelled_request_leaves_no_answer_behind(self, store: RedisStore, anyio_backend: str) -> None:
        """Wherever it is cancelled, the next one to use its connection gets the answer to its own question."""
        await store.perform_async(Report(POOL))
        for steps in range(25):
            task = asyncio.create_task(store.perform_async(ListPools()))
            for _ in range(steps):
                await asyncio.sleep(0)
            task.cancel()
            await asyncio.wait([task])
            other = PoolKey(f"pool{steps}", POOL.owner)
            assert (await store.perform_async(Admit(other, LIMIT, cost=2))).used == 2

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.anyio
    async def test_a_loop_that_was_held_up_takes_the_store_for_no_worse(
        self, server: RedisServer, anyio_backend: str
    ) -> None:
        store = RedisStore(server.url, timeout=0.5)
        await store.perform_async(Report(POOL))
        task = asyncio.create_task(store.perform_async(Admit(POOL, LIMIT)))
        await asyncio.sleep(0.0)
        hold_up = time.sleep
        hold_up(0.7)
        assert (await task).used == 1
        store.close()

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.anyio
    async def test_a_closed_store_lets_go_of_the_loops_connections(
        self, admin: Any, store: RedisStore, anyio_backend: str
    ) -> None:
        before = len(admin.client_list())
        await store.perform_async(Admit(POOL, LIMIT))
        assert len(admin.client_list()) == before + 1
        store.close()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if len(admin.client_list()) == before:
                break
        assert len(admin.client_list()) == before
        assert (await store.perform_async(Admit(POOL, LIMIT))).used == 2


class TestProcesses:
    def run(self, program: str, *arguments: str) -> Any:
        """Run a program on its own; it prints JSON."""
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", textwrap.dedent(program), *arguments],
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        assert not ended.stderr
        return json.loads(ended.stdout)

    def test_a_fork_uses_connections_of_its_own(self, server: RedisServer, store: RedisStore) -> None:
        """Both ask at the same time and each gets its own answers; and the parent's connection stays whole."""
        told = self.run(
            """
            import json, os, sys
            from insider_otel.api.operations import Limit
            from insider_otel.state.protocol import Admit, PoolKey
            from insider_otel.state.redis_store import RedisStore

            store = RedisStore(sys.argv[1], timeout=5)
            limit = Limit(1000, 60)
            store.perform(Admit(PoolKey("before", b"o"), limit))
            def used(pool):
                return [store.perform(Admit(PoolKey(pool, b"o"), limit)).used for _ in range(100)]
            reading, writing = os.pipe()
            if os.fork() == 0:
                os.write(writing, json.dumps(used("child")).encode())
                os._exit(0)
            parent = used("parent")
            os.wait()
            print(json.dumps({"child": json.loads(os.read(reading, 10000)), "parent": parent, "after": used("after")}))
            store.close()
            """,
            server.url,
        )
        assert told == dict.fromkeys(("child", "parent", "after"), list(range(1, 101)))

    def test_greenlets_share_it(self, server: RedisServer, store: RedisStore) -> None:
        pytest.importorskip("gevent", reason="gevent is not installed")
        told = self.run(
            """
            from gevent import monkey
            monkey.patch_all()
            import json, sys
            import gevent
            from insider_otel.api.operations import Limit
            from insider_otel.state.protocol import Admit, PoolKey
            from insider_otel.state.redis_store import RedisStore

            store = RedisStore(sys.argv[1], timeout=5)
            ask = Admit(PoolKey("pool", b"o"), Limit(1000, 60))
            jobs = [gevent.spawn(lambda: [store.perform(ask).used for _ in range(5)]) for _ in range(100)]
            gevent.joinall(jobs, raise_error=True)
            print(json.dumps(sorted(used for job in jobs for used in job.value)))
            store.close()
            """,
            server.url,
        )
        assert told == list(range(1, 501))


def test_the_scripts_are_in_the_wheel() -> None:
    """They are files of the package, and the wheel takes all of those."""
    project = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())
    assert cast("dict[str, Any]", project)["tool"]["hatch"]["build"]["targets"]["wheel"] == {
        "packages": ["insider_otel"]
    }
    assert {file.name for file in files("insider_otel.state").iterdir()} >= {"window.lua", "store.lua"}


def wait_until(holds: Callable[[], bool], within: float = 10) -> None:
    deadline = time.monotonic() + within
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)
