"""Whoever steals the file: no key, no token; with ``outbox_key`` nobody's data either; and nothing of what is done."""

from __future__ import annotations

import base64
import contextlib
import os
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography.fernet import Fernet

from insider_otel import CannotDefer, InsiderTransport, Settings, request_scope
from insider_otel.api.operations import Operation, operations
from insider_otel.outbox.protocol import JobStore
from insider_otel.outbox.sqlite_outbox import SQLiteOutbox
from insider_otel.testing import FakeInsider, reply, sample_request

from .jobs import NOW, put, take

SECRETS = {
    "X-PARTNER-NAME": "planted-partner-name",
    "X-REQUEST-TOKEN": "planted-request-token",
    "X-INS-AUTH-KEY": "planted-ins-auth-key",
    "Authorization": "Bearer planted.bearer.token",
    "body:api_key": "planted-api-key",
}
OTHER_SECRETS = {
    "Cookie": "session=planted-cookie",
    "Proxy-Authorization": "Basic planted-proxy-password",
    "X-Shop-Auth": "planted-other-key",
    "X-Our-Gateway-Signature": "planted-signature",
}
UNKNOWN = {"X-Whatever": "planted-in-a-header-that-nobody-knows"}
PLANTED = b"planted"
JANE = ("jane@example.com", "+905550000001", "Jane")

Send = Callable[..., httpx.Response]


def _credentials(operation: Operation, account: str | None) -> dict[str, str]:
    return OTHER_SECRETS | {place: SECRETS.get(place, "planted-credential") for place in operation.credentials}


def everything(directory: Path) -> bytes:
    """All bytes of all files, as a thief has them."""
    return b"".join(file.read_bytes() for file in sorted(directory.iterdir()))


@pytest.fixture
def fake() -> FakeInsider:
    return FakeInsider()


@pytest.fixture
def shop(path: Path, fake: FakeInsider) -> Iterator[Callable[..., Send]]:
    """Makes an app; calls it makes are deferred unless it says otherwise."""
    clients: list[httpx.Client] = []

    def make(**settings: Any) -> Send:
        options: dict[str, Any] = {"outbox": f"sqlite:///{path}", "credentials": _credentials}
        transport = InsiderTransport(fake.transport(), settings=Settings(**{**options, **settings}))
        clients.append(httpx.Client(transport=transport))
        return clients[-1].request

    yield make
    for client in clients:
        client.close()


def _request(operation: Operation, **more: Any) -> dict[str, Any]:
    """A call of an operation with planted credentials, wherever they belong, to be deferred."""
    sample = sample_request(operation.name)
    body = sample.json
    headers = {"Content-Type": "application/json"}
    for place in operation.credentials:
        value = _credentials(operation, None)[place]
        if place.startswith("body:"):
            body = {**body, place.removeprefix("body:"): value}
        else:
            headers[place] = value
    call: dict[str, Any] = {"method": sample.method, "url": sample.url, "headers": headers}
    return {**call, "json": body, "extensions": {"insider": {"defer": True}}, **more}


_DEFERRABLE = [operation for operation in operations() if operation.deferrable]
_UPSERT, _MAIL = (next(each for each in _DEFERRABLE if each.name == name) for name in ("user.upsert", "mail.send"))


@pytest.mark.parametrize("operation", _DEFERRABLE, ids=lambda operation: operation.name)
def test_a_stolen_file_holds_no_credential_of_any_operation(
    shop: Callable[..., Send], path: Path, operation: Operation
) -> None:
    send = shop()
    call = _request(operation)
    call["headers"] |= OTHER_SECRETS | UNKNOWN
    assert send(**call).status_code == 202
    stolen = everything(path.parent)
    assert operation.name.encode() in stolen, "the job is in it"
    for form in (PLANTED, base64.b64encode(PLANTED)[:-4], PLANTED.hex().encode()):
        assert form not in stolen


def test_what_comes_back_after_it_was_put_back_holds_none_either(
    shop: Callable[..., Send], path: Path, fake: FakeInsider
) -> None:
    """Insider's own words about a failure are kept with the job, if they are safe to keep."""
    said = {"message": f"{SECRETS['X-REQUEST-TOKEN']} of {JANE[0]} and {JANE[1]} is busy"}
    fake.script("user.upsert", reply(503, said), repeat=True)
    send = shop(quick_retries=0, outbox_key=Fernet.generate_key().decode())
    with request_scope(deadline=0.05):
        response = send(**_request(_UPSERT, extensions={}))
    assert response.status_code == 202, "it was handed over"
    stolen = everything(path.parent)
    assert b"service_unavailable" in stolen or b"503" in stolen, "the verdict is in it"
    assert not [text for text in ("planted", *JANE) if text.encode() in stolen]


def _elsewhere() -> Iterator[Any]:
    token, key = SECRETS["X-REQUEST-TOKEN"], SECRETS["X-INS-AUTH-KEY"]
    upsert, mail = sample_request("user.upsert"), sample_request("mail.send")
    yield pytest.param(_UPSERT, {"url": f"{upsert.url}?token={token}"}, "URL", id="in the query")
    yield pytest.param(_UPSERT, {"url": f"{upsert.url}?t={token.replace('-', '%2D')}"}, "URL", id="in it, escaped")
    yield pytest.param(
        _MAIL, {"url": mail.url.replace("//", f"//me:{key}@")}, "URL|authorization", id="as its password"
    )
    yield pytest.param(_UPSERT, {"json": {**upsert.json, "note": f"by {token}"}}, "body", id="in the body")
    yield pytest.param(_UPSERT, {"json": {**upsert.json, token: 1}}, "body", id="as a field")
    yield pytest.param(_MAIL, {"also": {"Idempotency-Key": key}}, "headers", id="in a header that is kept")


@pytest.mark.parametrize(("operation", "change", "place"), list(_elsewhere()))
def test_a_call_that_has_a_credential_elsewhere_is_refused(
    shop: Callable[..., Send], path: Path, operation: Operation, change: dict[str, Any], place: str
) -> None:
    call = _request(operation)
    call["headers"] = {**call["headers"], **change.pop("also", {})}
    with pytest.raises(CannotDefer, match=place) as refused:
        shop()(**{**call, **change})
    assert "planted" not in str(refused.value)
    assert PLANTED not in everything(path.parent)


def test_with_a_key_nobodys_data_can_be_read(shop: Callable[..., Send], path: Path) -> None:
    users = [{"identifiers": {"email": JANE[0], "phone_number": JANE[1]}, "attributes": {"name": JANE[2]}}]
    call = _request(_UPSERT, json={"users": users})
    call["extensions"]["insider"]["ordering_key"] = JANE[0]
    assert shop(outbox_key=Fernet.generate_key().decode())(**call).status_code == 202
    stolen = everything(path.parent)
    assert b"user.upsert" in stolen
    assert not [text for text in JANE if text.encode() in stolen or base64.b64encode(text.encode())[:-4] in stolen]


def test_without_a_key_it_can_be_and_the_ordering_key_is_a_hash_all_the_same(
    shop: Callable[..., Send], path: Path
) -> None:
    call = _request(_UPSERT)
    call["extensions"]["insider"]["ordering_key"] = "jane-of-the-ordering-key"
    shop()(**call)
    stolen = everything(path.parent)
    assert b"jane@example.com" in stolen, "what the test above looks for is found where it is"
    assert b"jane-of-the-ordering-key" not in stolen


def test_the_files_are_readable_by_their_owner_alone(path: Path) -> None:
    mask = os.umask(0)
    try:
        store = SQLiteOutbox(path)
        put(store)
        modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    finally:
        os.umask(mask)
    assert modes == {"outbox.db": 0o600, "outbox.db-wal": 0o600, "outbox.db-shm": 0o600}
    store.close()


# ---------------------------------------------------------------------------------------------- what is done is gone


@pytest.mark.parametrize("size", [1, 100, 20_000], ids=["small", "a page", "many pages"])
@pytest.mark.parametrize("ending", ["delivered", "discarded"])
def test_what_is_done_is_in_no_file_any_more(
    store: JobStore, open_store: Callable[[], JobStore], path: Path, size: int, ending: str
) -> None:
    waiting = put(store, content=b"p-of-john" * size)
    one = put(store, content=b"p-of-jane" * size)
    web = open_store()
    assert web.job(one.id) == one, "another process has the file open"
    (first, second) = take(store)
    store.put_back(second, one)
    store.release([first])
    (again,) = [lease for lease in take(store) if lease.job.id == one.id]
    if ending == "delivered":
        assert store.begin(again, NOW)
        store.delivered(again)
    else:
        store.release([again])
        assert store.discard(one.id)
    take(store)
    assert b"p-of-jane" not in everything(path.parent)
    assert b"p-of-john" in everything(path.parent), "what waits is there"
    assert web.job(waiting.id) == waiting


def test_a_log_that_is_in_use_is_emptied_soon_after(store: JobStore, path: Path) -> None:
    one = put(store, content=b"p-of-jane")
    (lease,) = take(store)
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT id FROM jobs").fetchall() == [(one.id,)]
        store.delivered(lease)
        wake_at = store.take(1, NOW, lease=1.0, pace=lambda pool: 0.0).wake_at
        assert wake_at is not None, "somebody is to try again"
        assert b"p-of-jane" in everything(path.parent)
    take(store, now=wake_at)
    assert b"p-of-jane" not in everything(path.parent)


def test_the_log_is_emptied_though_a_clock_was_ahead_for_a_moment(store: JobStore, path: Path) -> None:
    put(store, due=NOW + 86_400)
    (early,) = take(store, now=NOW + 86_400)
    store.delivered(early)
    take(store, now=NOW + 86_400)
    one = put(store, content=b"p-of-jane")
    (lease,) = take(store)
    assert lease.job.id == one.id
    store.delivered(lease)
    take(store)
    assert b"p-of-jane" not in everything(path.parent)
