"""Servers that hang, vanish, forget, are full or closed; addresses that are none."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import time
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from insider_otel.api.operations import Limit
from insider_otel.state.protocol import (
    Admission,
    Admit,
    ClaimAsk,
    ListPools,
    StoreError,
)
from insider_otel.state.redis_store import RedisStore
from tests.state.on_redis.words import CLAIM, LIMIT, POOL, record, use_all, wait_until
from tests.state.redis_server import RedisServer, redis_server


class TestTrouble:
    """Whatever is wrong with a server is a ``StoreError``, and in time."""

    def test_nobody_is_there(self, tmp_path: Path) -> None:
        with pytest.raises(StoreError, match=r"redis\.sock"):
            RedisStore(f"unix://{tmp_path}/redis.sock").perform(ListPools())

    def test_an_exception_that_the_app_deals_with_keeps_what_it_holds(self, tmp_path: Path) -> None:
        """Its frames are not the driver's, whose connections must not linger: its locals stay, and its loops go on."""
        store = RedisStore(f"unix://{tmp_path}/redis.sock")

        def rows() -> Iterator[object]:
            for row in ("one", "bad row", "three"):
                try:
                    yield row if row != "bad row" else int(row)
                except ValueError as error:
                    # Of this frame, which goes on.
                    yield error

        seen: list[object] = []
        held: list[dict[str, object]] = []
        for row in rows():
            try:
                if isinstance(row, Exception):
                    raise row
            except ValueError as caught:
                with pytest.raises(StoreError):
                    store.perform(ListPools())
                held += [frame.f_locals for frame, _ in traceback.walk_tb(caught.__traceback__)]
            seen.append(row)
        assert len(seen) == 3
        assert held
        assert all(held)

    @pytest.mark.parametrize(
        "perform", [RedisStore.perform, lambda *asked: asyncio.run(RedisStore.perform_async(*asked))]
    )
    def test_a_host_that_no_name_can_be(self, perform: Any) -> None:
        """A node of a cluster may name such a one."""
        with pytest.raises(StoreError, match="label empty"):
            perform(RedisStore("redis://cache..svc", timeout=5), Admit(POOL, LIMIT))

    def test_a_server_that_hangs(self, server: RedisServer) -> None:
        store = RedisStore(server.url, timeout=1.0)
        store.perform(Admit(POOL, LIMIT))
        server.pause()
        try:
            for _ in range(2):  # on a connection that was there before, and on a new one
                began = time.monotonic()
                with pytest.raises(StoreError, match=r"no answer within 1 s"):
                    store.perform(Admit(POOL, LIMIT))
                assert time.monotonic() - began < 5
        finally:
            server.resume()
        assert store.perform(Admit(POOL, Limit(9, 60))).slot is not None
        store.close()

    @pytest.mark.anyio
    async def test_a_server_that_hangs_a_loop(self, server: RedisServer, anyio_backend: Any) -> None:
        store = RedisStore(server.url, timeout=1.0)
        await store.perform_async(Admit(POOL, LIMIT))
        server.pause()
        try:
            for _ in range(2):
                began = time.monotonic()
                with pytest.raises(StoreError, match=r"no answer within 1 s"):
                    await store.perform_async(Admit(POOL, LIMIT))
                assert time.monotonic() - began < 5
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
            kept = {key: admin.dump(key) for key in admin.keys("*")}
            admin.config_set("maxmemory", "1mb")
            with pytest.raises(redis.exceptions.OutOfMemoryError):
                fill(admin)
            with pytest.raises(StoreError, match="OutOfMemoryError"):
                store.perform(Admit(POOL, LIMIT, claim=ClaimAsk(CLAIM, 30), worker=b"new"))
            assert {key: admin.dump(key) for key in admin.keys("*") if not key.startswith(b"filling")} == kept
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

    @pytest.mark.parametrize("way", ["threads", "a loop"])
    def test_a_server_that_was_demoted_is_left_for_the_one_that_has_its_name_now(
        self, way: str, tmp_path: Path
    ) -> None:
        """It keeps its connections open, as one behind a load balancer does: who is on them has to leave."""
        name = tmp_path / "redis.sock"
        with redis_server() as old, redis_server() as new, asyncio.Runner() as loop:

            def lead_to(server: RedisServer) -> None:
                name.unlink(missing_ok=True)
                name.symlink_to(server.url.removeprefix("unix://"))

            def ask() -> Admission:
                asked = Admit(POOL, LIMIT)
                admission = store.perform(asked) if way == "threads" else loop.run(store.perform_async(asked))
                assert isinstance(admission, Admission)
                return admission

            lead_to(old)
            store = RedisStore(f"unix://{name}", timeout=5)
            before = ask()
            with redis.Redis.from_url(old.url) as admin:
                admin.replicaof("127.0.0.1", 1)
                lead_to(new)
                with pytest.raises(StoreError, match="ReadOnlyError"):
                    ask()
                assert ask().born > before.born
                # This one's alone: nothing is left behind.
                wait_until(lambda: len(admin.client_list(_type="normal")) == 1)
            store.close()

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


def fill(admin: Any) -> None:
    """Fill a server's memory."""
    for number in range(1000):
        admin.set(f"filling:{number}", b"x" * 10_000)
