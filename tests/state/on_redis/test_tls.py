"""A server behind TLS: its certificate is checked, and one that is not trusted stops no call."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
import redis
import trustme

from insider_otel import AsyncInsiderTransport, InsiderTransport, Settings, SettingsError
from insider_otel.api.operations import Limit
from insider_otel.state import opening
from insider_otel.state.protocol import (
    Admission,
    Admit,
    ClaimAsk,
    ClaimEnd,
    ClaimReport,
    ClaimState,
    ListPools,
    PoolKey,
    Report,
    StoreError,
)
from insider_otel.state.redis_store import RedisStore
from insider_otel.testing import FakeInsider, sample_request
from tests.state.on_redis.words import CLAIM, LIMIT, POOL, wait_until
from tests.state.redis_server import free_port, redis_server, skip_without_program

PASSWORD = "s3cret"


@dataclass
class TLSServer:
    """A server on a port of 127.0.0.1 that takes TLS connections only.

    Attributes:
        port: The port.
        directory: Where its certificates are.
    """

    port: int
    directory: Path

    def url(self, host: str = "localhost", **options: object) -> str:
        """Its address, with options of the driver, or of the setting."""
        written = "&".join(f"{name}={quote(str(value), safe='')}" for name, value in options.items())
        return f"rediss://:{PASSWORD}@{host}:{self.port}/0?{written}"

    @property
    def trusted(self) -> str:
        """Its address for who knows who signed its certificate."""
        return self.url(ssl_ca_certs=self.directory / "ca.pem")

    @property
    def trusting(self) -> str:
        """Its address for who also has a certificate that it asks for."""
        return (
            f"{self.trusted}&ssl_certfile={self.directory / 'client.pem'}&ssl_keyfile={self.directory / 'client.key'}"
        )


@contextmanager
def tls_server(directory: Path, *others: str, clients: str = "no", port: int | None = None) -> Iterator[TLSServer]:
    """A server of one's own, with a certificate for ``localhost``.

    Args:
        directory: A place for certificates.
        *others: Other options of the server.
        clients: ``yes`` if it lets in only those who have a certificate themselves.
        port: Its port; None for any.
    """
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    for name in ("localhost", "client"):
        certificate = authority.issue_cert(name)
        certificate.cert_chain_pems[0].write_to_path(str(directory / f"{name}.pem"))
        certificate.private_key_pem.write_to_path(str(directory / f"{name}.key"))
    port = port or free_port()
    files = {"cert": "localhost.pem", "key": "localhost.key", "ca-cert": "ca.pem"}
    options = [word for name, file in files.items() for word in (f"--tls-{name}-file", str(directory / file))]
    try:
        started = redis_server(
            *("--port", "0", "--tls-port", str(port), *options, "--tls-auth-clients", clients),
            *("--requirepass", PASSWORD, *others),
        )
        with started:
            yield TLSServer(port, directory)
    except RuntimeError as error:
        if "Bad directive" not in str(error) or os.environ.get("CI"):
            raise
        pytest.skip("this machine's server was built without TLS")


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TLSServer]:
    skip_without_program()
    with tls_server(tmp_path_factory.mktemp("tls")) as server:
        yield server


@pytest.fixture
def store(server: TLSServer) -> Iterator[RedisStore]:
    store = RedisStore(server.trusted, timeout=5)
    yield store
    store.close()


@pytest.fixture
def pool(request: pytest.FixtureRequest) -> PoolKey:
    """A pool that no other test has."""
    return PoolKey(request.node.name, b"o" * 16)


@pytest.fixture(autouse=True)
def no_state_is_left() -> Iterator[None]:
    yield
    for state in opening._states.values():
        assert state.store is not None
        state.store.close()
    opening._states.clear()


class TestTrusted:
    def test_limits_and_claims_are_held(self, store: RedisStore, pool: PoolKey) -> None:
        granted = store.perform(Admit(pool, LIMIT, claim=ClaimAsk(CLAIM, 30), worker=b"w"))
        assert (granted.used, granted.claim) == (1, ClaimState.CLAIMED)
        store.perform(Report(pool, claim=ClaimReport(CLAIM, granted.token, ClaimEnd.DONE, 30)))
        assert store.perform(Admit(pool, LIMIT, claim=ClaimAsk(CLAIM, 30))).claim is ClaimState.DONE
        assert pool in [use.pool for use in store.perform(ListPools())]

    @pytest.mark.parametrize("anyio_backend", ["asyncio", "trio"])
    @pytest.mark.anyio
    async def test_in_an_event_loop_too(self, store: RedisStore, pool: PoolKey, anyio_backend: str) -> None:
        content = ClaimAsk(anyio_backend.encode(), 30)
        granted = await store.perform_async(Admit(pool, LIMIT, claim=content, worker=b"w"))
        assert (granted.used, granted.claim) == (1, ClaimState.CLAIMED)
        await store.perform_async(Report(pool, claim=ClaimReport(content.key, granted.token, ClaimEnd.DONE, 30)))
        assert (await store.perform_async(Admit(pool, LIMIT, claim=content))).claim is ClaimState.DONE

    @pytest.mark.parametrize("anyio_backend", ["asyncio"])
    @pytest.mark.anyio
    async def test_certificates_are_read_once(self, tmp_path: Path, pool: PoolKey, anyio_backend: str) -> None:
        """Reading those of a whole system takes as long as a store may for an answer: no new connection does."""
        skip_without_program()
        with tls_server(tmp_path) as server:
            store = RedisStore(server.trusted, timeout=5)
            (tmp_path / "ca.pem").unlink()
            assert store.perform(Admit(pool, LIMIT)).used == 1
            assert (await store.perform_async(Admit(pool, LIMIT))).used == 2
            store.close()

    @pytest.mark.parametrize("way", ["threads", "a loop"])
    def test_certificates_that_were_replaced_are_read_anew(self, way: str, tmp_path: Path, pool: PoolKey) -> None:
        """By those of another authority, the client's too, in the same files."""
        skip_without_program()
        with asyncio.Runner() as loop:

            def used(store: RedisStore) -> int:
                asked = Admit(pool, LIMIT)
                admission = store.perform(asked) if way == "threads" else loop.run(store.perform_async(asked))
                assert isinstance(admission, Admission)
                return admission.used

            with tls_server(tmp_path, clients="yes") as server:
                store = RedisStore(server.trusting, timeout=5)
                assert [used(store), used(store)] == [1, 2]
            with tls_server(tmp_path, clients="yes", port=server.port):
                assert [used(store), used(store)] == [1, 2]
            store.close()

    @pytest.mark.parametrize("way", ["threads", "a loop"])
    @pytest.mark.parametrize(
        ("file", "content"),
        [("client.pem", "localhost.pem"), ("client.key", None), ("ca.pem", None)],
        ids=["the key is yet to follow", "a key is being written", "an authority is being written"],
    )
    def test_while_certificates_are_being_replaced_those_that_were_read_are_used(
        self,
        file: str,
        content: str | None,
        way: str,
        tmp_path: Path,
        pool: PoolKey,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """Each new connection looks whether all is there; one line says that it was not."""
        skip_without_program()
        replaced = tmp_path / file
        moments = count(1)
        with tls_server(tmp_path, clients="yes") as server:
            store, before = RedisStore(server.trusting, timeout=5), replaced.read_bytes()

            def used_on_a_new_connection() -> int:
                asked = Admit(pool, Limit(9, 60.0))
                store.close()
                admission = store.perform(asked) if way == "threads" else asyncio.run(store.perform_async(asked))
                assert isinstance(admission, Admission)
                return admission.used

            def write(content: bytes) -> None:
                replaced.write_bytes(content)
                # What is written twice within a tick of the file system's clock has not changed for it.
                os.utime(replaced, (next(moments),) * 2)

            for times in (1, 2):
                write(b"" if content is None else (tmp_path / content).read_bytes())
                assert [used_on_a_new_connection() for _ in range(2)] == [times * 3 - 2, times * 3 - 1]
                write(before)
                assert used_on_a_new_connection() == times * 3
                lines = [record.getMessage() for record in caplog.records if record.name == "insider_otel"]
                assert len(lines) == times
                assert str(replaced) in lines[-1]
            store.close()

    def test_a_server_that_wants_a_certificate_gets_ours(self, tmp_path: Path, pool: PoolKey) -> None:
        skip_without_program()
        with tls_server(tmp_path, clients="yes") as server:
            nobody = RedisStore(server.trusted, timeout=5)
            with pytest.raises(StoreError):
                nobody.perform(Admit(pool, LIMIT))
            store = RedisStore(server.trusting, timeout=5)
            assert store.perform(Admit(pool, LIMIT)).used == 1
            store.close()
            nobody.close()

    def test_the_nodes_of_a_cluster_are_asked_behind_tls_too(self, tmp_path: Path, pool: PoolKey) -> None:
        skip_without_program()
        with tls_server(tmp_path, "--cluster-enabled", "yes", "--tls-cluster", "yes") as server:
            with redis.Redis.from_url(server.trusted) as admin:
                admin.execute_command("CLUSTER", "ADDSLOTSRANGE", 0, 16383)
                wait_until(lambda: b"cluster_state:ok" in admin.execute_command("CLUSTER", "INFO"))
            store = RedisStore(server.trusted, timeout=5, cluster=True)
            assert [store.perform(Admit(pool, LIMIT)).used for _ in range(2)] == [1, 2]
            assert asyncio.run(store.perform_async(Admit(pool, LIMIT))).used == 3
            assert [use.pool for use in store.perform(ListPools())] == [pool]
            assert {node for node in store._clients if node} == {("localhost", server.port)}
            store.close()

    def test_who_asks_for_no_check_gets_none(self, server: TLSServer, pool: PoolKey) -> None:
        store = RedisStore(server.url(ssl_cert_reqs="none"), timeout=5)
        assert store.perform(Admit(pool, LIMIT)).used == 1
        store.close()


class TestNotTrusted:
    def test_a_certificate_of_a_stranger(self, server: TLSServer) -> None:
        """None of the authorities that the machine knows has signed it."""
        with pytest.raises(StoreError, match="certificate verify failed"):
            RedisStore(server.url(), timeout=5).perform(Admit(POOL, LIMIT))

    def test_a_certificate_for_another_name(self, server: TLSServer) -> None:
        url = server.url("127.0.0.1", ssl_ca_certs=server.directory / "ca.pem")
        with pytest.raises(StoreError, match=r"not valid for '127\.0\.0\.1'"):
            RedisStore(url, timeout=5).perform(Admit(POOL, LIMIT))

    def test_a_certificate_that_is_not_there_is_refused_at_start(self, server: TLSServer) -> None:
        url = server.url(ssl_ca_certs="/etc/shop/missing.pem")
        with pytest.raises(
            SettingsError, match=r"state \(INSIDER_OTEL_STATE\): .*options ssl_… cannot be used"
        ) as refused:
            opening.shared_state(url)
        assert PASSWORD not in str(refused.value)

    @pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
    def test_calls_go_on_by_this_process_alone_and_one_line_says_so(
        self, server: TLSServer, is_async: bool, caplog: pytest.LogCaptureFixture
    ) -> None:
        import anyio

        fake, sample = FakeInsider(), sample_request("catalog.ingest")
        settings = Settings(state=server.url(timeout=5), limits={"catalog.ingest": "99/60s"})

        async def call_async() -> list[int]:
            transport = AsyncInsiderTransport(fake.transport(), settings=settings)
            async with httpx.AsyncClient(transport=transport) as client:
                return [
                    (await client.post(sample.url, headers=sample.headers, content=sample.content)).status_code
                    for _ in range(3)
                ]

        def call() -> list[int]:
            transport = InsiderTransport(fake.transport(), settings=settings)
            with httpx.Client(transport=transport) as client:
                return [
                    client.post(sample.url, headers=sample.headers, content=sample.content).status_code
                    for _ in range(3)
                ]

        with caplog.at_level(logging.INFO, "insider_otel"):
            assert (anyio.run(call_async) if is_async else call()) == [200] * 3
        lines = [record.getMessage() for record in caplog.records if "store" in record.getMessage()]
        (line,) = [line for line in lines if "cannot be used" in line]
        assert line.startswith(f"the redis store rediss://localhost:{server.port}/0 cannot be used (")
        assert "certificate verify failed" in line
        assert PASSWORD not in caplog.text
