"""The doctor tries the store that limits and duplicates are kept in, and looks at the limits that the app sets."""

from __future__ import annotations

import os
import re
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from insider_otel.cli.checks.environment import Environment, Finding, Level
from insider_otel.cli.checks.state import DOCTOR, limits, state
from insider_otel.state.sqlite_store import SQLiteStore
from insider_otel.testing import FakeClock

from ..state.redis_cluster import RedisCluster, redis_cluster
from ..state.redis_server import RedisServer, redis_server, skip_without_program

WITH_REDIS = {"redis": "6.0.0"}


def seen(url: str, versions: dict[str, str] = WITH_REDIS) -> Finding:
    """The one thing the doctor says of a state."""
    (finding,) = state(Environment({"INSIDER_OTEL_STATE": url} if url else {}, versions))
    for text in (finding.what, finding.why, finding.remedy):
        assert "s3cret" not in text
    return finding


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    skip_without_program()
    with redis_server("--requirepass", "s3cret", tcp=True) as server:
        yield server


# --------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize("url", ["", "memory://"])
def test_memory_is_noted_because_nobody_can_see_from_here_how_many_workers_there_are(url: str) -> None:
    finding = seen(url)
    assert finding.level is Level.NOTE
    assert "Enough for one process. Of several each takes a limit for its own" in finding.why
    assert "INSIDER_OTEL_STATE to sqlite:////path/of/a/file, on several machines to redis://host" in finding.remedy


def test_an_address_that_is_none_is_told_by_the_check_of_the_settings_alone() -> None:
    assert seen("mysql://shop:s3cret@localhost").level is Level.NOTE


# --------------------------------------------------------------------------------------------------------- sqlite


def test_a_file_that_is_not_there_yet_is_fine_and_not_made(tmp_path: Path) -> None:
    finding = seen(f"sqlite:///{tmp_path}/state.db")
    assert (finding.level, finding.what) == (
        Level.OK,
        f"the state sqlite:///{tmp_path}/state.db is not there yet; the first call makes it",
    )
    assert list(tmp_path.iterdir()) == []


def test_a_directory_that_is_not_there_is_an_error(tmp_path: Path) -> None:
    finding = seen(f"sqlite:///{tmp_path}/missing/state.db")
    assert finding.level is Level.ERROR
    assert f"the directory {tmp_path}/missing" in finding.what
    assert finding.why == "insider-otel refuses to start with it."


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_directory_that_is_not_writable_is_an_error(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    finding = seen(f"sqlite:///{tmp_path}/state.db")
    assert (finding.level, "is not writable" in finding.what) == (Level.ERROR, True)


def made(path: Path) -> str:
    """The address of a store that has been used."""
    from insider_otel.state.protocol import ListPools

    with closing(SQLiteStore(path, timeout=5)) as store:
        store.perform(ListPools())
    return f"sqlite:///{path}"


def test_a_file_is_read_and_written_and_timed(tmp_path: Path) -> None:
    finding = seen(f"{made(tmp_path / 'state.db')}?timeout=10")
    assert finding.level is Level.OK
    assert finding.what.startswith(f"the state sqlite:///{tmp_path}/state.db is read and written in ")
    assert finding.what.endswith(" ms; it is given 10000 ms")


def test_a_file_that_is_no_database_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "letter.txt").write_text("Dear Jane, " * 100)
    assert "file is not a database" in seen(f"sqlite:///{tmp_path}/letter.txt").what


def test_a_file_that_can_be_read_but_not_written_is_an_error(tmp_path: Path) -> None:
    url = made(tmp_path / "state.db")
    with closing(sqlite3.connect(tmp_path / "state.db")) as other:
        other.execute("BEGIN IMMEDIATE")
        finding = seen(url)
    assert finding.level is Level.ERROR
    assert "database is locked" in finding.what
    assert finding.why.startswith("Calls go on without it")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_file_of_another_user_is_an_error_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    url = made(tmp_path / "state.db")
    (tmp_path / "state.db").chmod(0o400)
    finding = seen(url)
    assert (finding.level, finding.what) == (Level.ERROR, f"the state {url} cannot be used: it is not writable")
    assert list(tmp_path.iterdir()) == [tmp_path / "state.db"]


def test_a_store_that_answers_too_late_is_a_warning_with_a_timeout_that_would_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = made(tmp_path / "state.db")
    perform, clock = SQLiteStore.perform, FakeClock()

    def slowly(store: SQLiteStore, request: Any) -> Any:
        clock.advance(0.07)
        return perform(store, request)

    monkeypatch.setattr(SQLiteStore, "perform", slowly)
    monkeypatch.setattr(time, "perf_counter", clock)
    finding = seen(f"{url}?timeout=0.01")
    assert finding.level is Level.WARNING
    assert finding.what.endswith(" is read and written in 70.0 ms, and it is given 10 ms")
    assert "INSIDER_OTEL_STATE=…?timeout=0.21" in finding.remedy


# ---------------------------------------------------------------------------------------------------------- redis


def test_a_server_is_read_and_written_and_timed(redis: RedisServer) -> None:
    finding = seen(f"{redis.url_as(':s3cret')}?timeout=10")
    assert finding.level is Level.OK
    address = f"redis://127.0.0.1:{redis.port}/0"
    assert re.match(rf"the state {address} \((Redis|Valkey) \d+\.[\d.]+\) is read and written in ", finding.what)


@pytest.mark.parametrize("account", ["", ":s3cret-no-more"])
def test_a_server_that_lets_nobody_in_is_an_error(redis: RedisServer, account: str) -> None:
    finding = seen(redis.url_as(account))
    assert (finding.level, "AuthenticationError" in finding.what) == (Level.ERROR, True)


def test_a_server_that_is_down_is_an_error_with_what_it_means() -> None:
    finding = seen("redis://shop:s3cret@127.0.0.1:1/0")
    assert finding.level is Level.ERROR
    assert finding.what.startswith("the state cannot be used: redis://127.0.0.1:1/0: ")
    assert finding.why.startswith("Calls go on without it, and each process then holds its share of a limit by itself")
    assert finding.remedy.startswith("Start the server, or correct INSIDER_OTEL_STATE.")


def test_a_replica_which_cannot_be_written_is_an_error() -> None:
    skip_without_program()
    with redis_server("--replicaof", "127.0.0.1", "1") as replica:
        finding = seen(replica.url)
    assert (finding.level, "to be no replica" in finding.remedy) == (Level.ERROR, True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[RedisCluster]:
    skip_without_program()
    with redis_cluster(size=2) as cluster:
        yield cluster


def test_a_cluster_is_read_and_written_at_the_node_that_has_the_keys(cluster: RedisCluster) -> None:
    for node in cluster.nodes:
        finding = seen(f"{node.url}?cluster=true&timeout=10")
        assert (finding.level, " is read and written in " in finding.what) == (Level.OK, True)


def test_a_node_of_a_cluster_is_an_error_where_the_address_names_it_alone(cluster: RedisCluster) -> None:
    """Also if the doctor's own keys happen to be at that node."""
    here, elsewhere = sorted(cluster.nodes, key=lambda node: node is not cluster.node_of(DOCTOR))
    finding = seen(here.url)
    assert finding.level is Level.ERROR
    assert finding.what.endswith("is one node of a cluster, and INSIDER_OTEL_STATE does not say so")
    assert finding.remedy.startswith("Say it: INSIDER_OTEL_STATE=…?cluster=true.")
    finding = seen(elsewhere.url)
    assert finding.level is Level.ERROR
    assert "it is one node of a cluster, and others have a part of the keys: add cluster=true to" in finding.what


def test_a_server_in_no_cluster_is_an_error_where_the_address_says_cluster(redis: RedisServer) -> None:
    finding = seen(f"{redis.url_as(':s3cret')}?cluster=true")
    assert (finding.level, "cluster support disabled" in finding.what) == (Level.ERROR, True)
    assert "with cluster=true, it has to be a node of a cluster" in finding.remedy


def test_without_redis_py_it_says_what_to_install() -> None:
    finding = seen("rediss://shop:s3cret@cache:6380/0", versions={})
    assert (finding.level, finding.what) == (
        Level.ERROR,
        "INSIDER_OTEL_STATE is rediss://cache:6380/0, and redis-py is not installed",
    )
    assert finding.remedy == "pip install 'insider-otel[redis]'"


def test_an_option_that_redis_py_does_not_know_is_an_error() -> None:
    assert seen("redis://:s3cret@localhost/0?ssl_nonsense=1").what.startswith("INSIDER_OTEL_STATE cannot be used: ")


# --------------------------------------------------------------------------------------------------------- limits


def said_of(text: str) -> list[tuple[Level, str]]:
    """What the doctor says of limits."""
    return [(finding.level, finding.what) for finding in limits(Environment({"INSIDER_OTEL_LIMITS": text}))]


def test_limits_below_the_documented_ones_are_fine() -> None:
    assert said_of('{"user.upsert": "12500/60s", "raw.export": "1/day"}') == []
    assert said_of("") == []


def test_a_limit_above_the_documented_one_is_a_warning() -> None:
    assert said_of('{"user.upsert": "1000/1s"}') == [
        (Level.WARNING, "INSIDER_OTEL_LIMITS lets user.upsert have 1000/1s, and 25000/60s is documented")
    ]


def test_a_documented_limit_that_is_lifted_is_a_warning() -> None:
    assert said_of('{"user.upsert": "off"}') == [
        (Level.WARNING, "INSIDER_OTEL_LIMITS lifts the limit of user.upsert, documented as 25000/60s")
    ]


def test_a_limit_where_none_is_documented_is_noted() -> None:
    ((level, what),) = said_of('{"unlisted:mail.useinsider.com": "10/60s"}')
    assert (level, what) == (
        Level.NOTE,
        "INSIDER_OTEL_LIMITS holds unlisted:mail.useinsider.com to 10/60s, and Insider documents no limit for it",
    )
    assert said_of('{"unlisted:mail.useinsider.com": "off"}') == []


def test_limits_that_cannot_be_read_are_told_by_the_check_of_the_settings_alone() -> None:
    assert said_of('{"fax.send": "10/60s"}') == said_of("many") == []
