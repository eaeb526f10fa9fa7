"""What a request costs a server: one command, and keys that are small, together and gone in time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
import redis

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import (
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    Correction,
    ListPools,
    PoolKey,
    Report,
)
from insider_otel.state.redis_store import RedisStore
from tests.state.on_redis.words import CLAIM, LIMIT, POOL, record, use_all, wait_until
from tests.state.redis_server import RedisServer, redis_server


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
        told = Report(POOL, (Correction(1, 1, 0),), 1.0, LIMIT, ClaimReport(CLAIM, 1, ClaimEnd.DONE, 9))
        assert self.words(admin, server, lambda: store.perform(told)) == ["EVALSHA"]

    def test_the_server_reads_no_more_of_many_uses_than_of_few(self, admin: Any, store: RedisStore) -> None:
        """Also to find a slot that was used late: it is one of the last."""
        limit, readings = Limit(25_000, 60.0), list[int]()
        for uses in (10, 10_000):
            store.perform(Admit(POOL, limit, cost=uses))
            slot = store.perform(Admit(POOL, limit)).slot
            assert slot is not None
            admin.config_resetstat()
            store.perform(Admit(POOL, limit, corrections=(Correction(slot, 1, 1, 100),)))
            readings.append(admin.info("commandstats")["cmdstat_getrange"]["calls"])
        assert readings[1] <= readings[0] + 4 <= 10

    def test_a_server_that_has_forgotten_the_script_is_told_it_again(
        self, admin: Any, server: RedisServer, store: RedisStore
    ) -> None:
        first = store.perform(Admit(POOL, LIMIT))
        admin.script_flush()
        admin.config_resetstat()
        assert store.perform(Admit(POOL, LIMIT)).used == 2
        assert store.perform(Admit(POOL, LIMIT)).used == 3
        heard = admin.info("commandstats")
        assert (heard["cmdstat_evalsha"]["calls"], heard["cmdstat_eval"]["calls"]) == (2, 1)
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
        store.perform(Admit(POOL, Limit(3, window), longest_wait=9999, claim=ClaimAsk(CLAIM, 600), worker=b"w"))
        left = {key.decode(): admin.pttl(key) / 1000 for key in admin.keys("*")}
        assert 500 < left.pop(record(kind="claim").replace(POOL.pool, CLAIM.hex())) <= 600
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
        assert sum(admin.memory_usage(key, samples=0) for key in admin.keys("*")) < 25_000 * 20

    def test_what_no_longer_counts_goes(self, admin: Any, store: RedisStore) -> None:
        limit = Limit(5, 0.000_001)
        for _ in range(200):
            assert store.perform(Admit(POOL, limit)).wait == 0
        assert admin.strlen(record(kind="uses")) <= 8 * 3

    @pytest.mark.parametrize("prefix", ["other", "insider-otel:staging", "insider-otel:0123"])
    def test_prefixes_do_not_mix(self, prefix: str, server: RedisServer, store: RedisStore) -> None:
        other = RedisStore(server.url, timeout=5, prefix=prefix)
        use_all(store)
        assert other.perform(ListPools()) == ()
        assert other.perform(Admit(POOL, LIMIT)).used == 1
        assert [use.used for use in store.perform(ListPools())] == [3]
        assert [use.used for use in other.perform(ListPools())] == [1]
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
