"""Whose limit a request counts against: the same in every process, without telling what the credential is."""

from __future__ import annotations

import json
import subprocess
import sys
from urllib.parse import urlencode

import httpx
import pytest

from insider_otel.api.operations import Operation, operations
from insider_otel.state.credential import NOBODY, Credentials

BY_NAME = {operation.name: operation for operation in operations()}
MAIL = BY_NAME["mail.send"]
UPSERT = BY_NAME["user.upsert"]
PUSH = BY_NAME["push.notify"]
TOKEN = BY_NAME["gateway.token"]


def owner_of(operation: Operation, headers: httpx.Headers, body: bytes | None) -> bytes | None:
    return Credentials(operation, headers, body).owner()


def of_mail(**headers: str) -> bytes | None:
    return owner_of(MAIL, httpx.Headers({name.replace("_", "-"): value for name, value in headers.items()}), None)


def test_the_same_credential_has_the_same_fingerprint_in_every_process() -> None:
    code = (
        "import httpx\n"
        "from insider_otel.api.operations import find\n"
        "from insider_otel.state.credential import Credentials\n"
        "mail = find('POST', 'mail.useinsider.com', '/mail/v1/send')\n"
        "print(Credentials(mail, httpx.Headers({'x-ins-auth-key': 'key-1'}), None).owner().hex())"
    )
    other = subprocess.run([sys.executable, "-c", code], check=True, timeout=30, capture_output=True, text=True)
    mine = of_mail(X_INS_AUTH_KEY="key-1")
    assert mine is not None
    assert len(mine) == 16
    assert other.stdout.strip() == mine.hex()


def test_another_key_or_partner_is_another_owner() -> None:
    owners = {
        of_mail(X_INS_AUTH_KEY="key-1"),
        of_mail(X_INS_AUTH_KEY="key-2"),
        of_mail(X_INS_AUTH_KEY="key-1", X_PARTNER_NAME="shop"),
        of_mail(X_INS_AUTH_KEY="key-1", X_PARTNER_NAME="shop2"),
    }
    assert None not in owners
    assert len(owners) == 4


def test_where_one_value_ends_and_the_next_begins_is_clear() -> None:
    one = owner_of(UPSERT, httpx.Headers({"X-PARTNER-NAME": "ab", "X-REQUEST-TOKEN": "c"}), None)
    other = owner_of(UPSERT, httpx.Headers({"X-PARTNER-NAME": "a", "X-REQUEST-TOKEN": "bc"}), None)
    assert one is not None
    assert one != other


def test_requests_to_which_a_proxy_adds_the_headers_have_one_owner() -> None:
    without = owner_of(UPSERT, httpx.Headers(), None)
    assert without is not None
    assert without == owner_of(UPSERT, httpx.Headers({"X-REQUEST-TOKEN": ""}), b"{}")
    assert without != owner_of(UPSERT, httpx.Headers({"X-REQUEST-TOKEN": "key-1"}), None)


def test_a_key_in_the_body_tells_owners_apart() -> None:
    first, second, same = (
        owner_of(PUSH, httpx.Headers(), json.dumps({"api_key": key, "n": n}).encode())
        for key, n in [("key-1", 1), ("key-2", 1), ("key-1", 2)]
    )
    assert None not in {first, second}
    assert first == same != second


@pytest.mark.parametrize(
    "body",
    [None, b"", b"{}", b"[]", b'{"api_key": 5}', b'{"api_key": null}', b'{"api_key": ""}', b"\xff", b"[" * 100_000],
)
def test_a_body_without_its_key_is_nobody_knows_whose(body: bytes | None) -> None:
    assert owner_of(PUSH, httpx.Headers(), body) is None


def test_a_key_in_the_body_may_be_any_text() -> None:
    assert owner_of(PUSH, httpx.Headers(), b'{"api_key": "\\ud800"}') is not None


def test_where_header_and_body_may_carry_the_credential_either_will_do() -> None:
    form = urlencode({"grant_type": "client_credentials", "client_id": "shop", "client_secret": "s3cret"}).encode()
    in_header = owner_of(TOKEN, httpx.Headers({"Authorization": "Basic c2hvcDpzM2NyZXQ="}), b"grant_type=a")
    in_body = owner_of(TOKEN, httpx.Headers(), form)
    assert None not in {in_header, in_body}
    assert in_header != in_body
    assert owner_of(TOKEN, httpx.Headers(), b"grant_type=a&client_id=shop") is None


def test_what_is_sent_without_credentials_has_one_owner() -> None:
    search = BY_NAME["search.query"]
    assert search.credentials == ()
    assert owner_of(search, httpx.Headers({"Authorization": "Bearer key-1"}), None) == NOBODY


def test_who_reads_a_store_does_not_learn_what_keys_the_hashes_of_content() -> None:
    credentials = Credentials(MAIL, httpx.Headers({"X-INS-AUTH-KEY": "key-1"}), None)
    secret = credentials.content_secret()
    assert secret is not None
    assert secret != credentials.owner()
    assert secret == credentials.content_secret()
