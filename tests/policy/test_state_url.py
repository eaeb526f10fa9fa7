"""The address of a store: what it may be, and that its password goes no further."""

from __future__ import annotations

import traceback
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from insider_otel import SettingsError
from insider_otel.policy.state_url import StateURL


@pytest.mark.parametrize(
    ("text", "scheme", "target", "display"),
    [
        ("memory://", "memory", "", "memory://"),
        ("sqlite:///state.db", "sqlite", "state.db", "sqlite:///state.db"),
        ("sqlite:////var/lib/shop/state.db", "sqlite", "/var/lib/shop/state.db", "sqlite:////var/lib/shop/state.db"),
        ("sqlite:///my%20state%3F.db?timeout=1", "sqlite", "my state?.db", "sqlite:///my state?.db"),
        ("redis://cache", "redis", "redis://cache", "redis://cache"),
        ("REDIS://cache:6380/2", "redis", "redis://cache:6380/2", "redis://cache:6380/2"),
        ("redis://[::1]:6379/0", "redis", "redis://[::1]:6379/0", "redis://[::1]:6379/0"),
        ("redis://cache.svc.:6379", "redis", "redis://cache.svc.:6379", "redis://cache.svc.:6379"),
        (f"redis://{'c' * 63}.svc", "redis", f"redis://{'c' * 63}.svc", f"redis://{'c' * 63}.svc"),
        ("redis://önbellek.svc", "redis", "redis://önbellek.svc", "redis://önbellek.svc"),
        ("rediss://shop:pw@cache/1", "redis", "rediss://shop:pw@cache/1", "rediss://cache/1"),
        (
            "rediss://cache?ssl_ca_certs=%2Fca.pem&timeout=1&db=3",
            "redis",
            "rediss://cache?ssl_ca_certs=%2Fca.pem&db=3",
            "rediss://cache",
        ),
        ("unix:///run/redis.sock?db=1", "redis", "unix:///run/redis.sock?db=1", "unix:///run/redis.sock"),
        ("unix://shop:pw@/run/redis.sock", "redis", "unix://shop:pw@/run/redis.sock", "unix:///run/redis.sock"),
    ],
)
def test_an_address_names_its_store(text: str, scheme: str, target: str, display: str) -> None:
    url = StateURL.parse(text)
    assert (url.scheme, url.target, url.display) == (scheme, target, display)


def test_a_store_has_50_ms_and_keys_of_our_name_unless_its_options_say_otherwise() -> None:
    url = StateURL.parse("redis://cache")
    assert (url.timeout, url.prefix) == (0.05, "insider-otel")
    url = StateURL.parse("redis://cache?timeout=0.2&prefix=shop-2%3Aeu")
    assert (url.timeout, url.prefix, url.target) == (0.2, "shop-2:eu", "redis://cache")
    assert StateURL.parse("sqlite:///state.db?timeout=2").timeout == 2.0


@pytest.mark.parametrize(
    ("text", "is_cluster", "target"),
    [
        ("redis://cache?cluster=true", True, "redis://cache"),
        (
            "rediss://shop:pw@cache/0?ssl_ca_certs=ca.pem&cluster=true",
            True,
            "rediss://shop:pw@cache/0?ssl_ca_certs=ca.pem",
        ),
        ("redis://cache?cluster=true&db=0", True, "redis://cache?db=0"),
        ("redis://cache?cluster=false&db=3", False, "redis://cache?db=3"),
        ("redis://cache", False, "redis://cache"),
    ],
)
def test_a_cluster_is_one_if_its_address_says_so(text: str, is_cluster: bool, target: str) -> None:
    url = StateURL.parse(text)
    assert (url.cluster, url.target) == (is_cluster, target)


@pytest.mark.parametrize(
    ("text", "remedy"),
    [
        ("memory", "it has no scheme"),
        ("/var/lib/state.db", "it has no scheme; a file is sqlite:////var/lib/x.db"),
        ("shop:pw@cache:6379", "it has no scheme"),
        ("postgres://cache", "sqlite:////absolute.db"),
        ("memory://shared", "no path"),
        ("memory://?timeout=1", "no options"),
        ("sqlite://state.db", "three slashes"),
        ("sqlite:///", "path of a file"),
        ("sqlite:////var/lib/", "path of a file"),
        ("sqlite:///%00", "path of a file"),
        ("sqlite:///:memory:", "memory://"),
        ("sqlite:///~", "write that out, as in sqlite:////home/shop/x.db"),
        ("sqlite:///~/state.db", "write that out, as in sqlite:////home/shop/x.db"),
        ("sqlite:///%7Eshop/state.db", "write that out"),
        ("sqlite:///state#2.db", "%23"),
        ("sqlite:///state.db?prefix=a", "no option but timeout"),
        ("redis://", "host"),
        ("redis:///0", "host"),
        ("redis://cache..svc", "1 to 63 characters"),
        ("rediss://.svc.local:6379", "1 to 63 characters"),
        ("redis://shop:pw@cache%2e%2esvc", "1 to 63 characters"),
        (f"redis://{'c' * 64}.svc", "1 to 63 characters"),
        ("redis://cache%00", "1 to 63 characters"),
        ("redis://cache/first", "number of a database"),
        ("redis://cache:port", "its port cannot be read"),
        ("redis://cache:99999", "its port cannot be read"),
        ("redis://[::1", "its host or its port"),
        ("redis://shop:a#b@cache", "%23"),
        ("redis://shop:a/b@cache", "%2F"),
        ("redis://cache?timout=1", "timeout, prefix"),
        ("redis://cache?socket_timeout=1", "timeout, prefix"),
        ("redis://cache?timeout=0", "seconds above 0"),
        ("redis://cache?timeout=-1", "seconds above 0"),
        ("redis://cache?timeout=nan", "seconds above 0"),
        ("redis://cache?timeout=3600", "60 at most"),
        ("redis://cache?timeout=50ms", "seconds above 0"),
        ("redis://cache?timeout=1&timeout=2", "twice"),
        ("redis://cache?prefix=", "letters"),
        ("redis://cache?prefix={a}", "letters"),
        ("redis://cache?cluster=yes", "cluster is true or false"),
        ("redis://cache?cluster", "cluster is true or false"),
        ("redis://cache/1?cluster=true", "no database but 0"),
        ("redis://cache?cluster=true&db=1", "no database but 0"),
        ("unix:///run/redis.sock?cluster=true", "a cluster has a host"),
        ("unix://run/redis.sock", "three slashes"),
        ("unix:///", "absolute path"),
    ],
)
def test_a_bad_address_is_refused_with_field_variable_and_remedy(text: object, remedy: str) -> None:
    with pytest.raises(SettingsError) as refused:
        StateURL.parse(text)
    assert str(refused.value).startswith("state (INSIDER_OTEL_STATE) is '")
    assert remedy in str(refused.value)


def test_nothing_is_said_of_passwords_where_there_can_be_none() -> None:
    for text in ("state.db", "redis://cache:port", "redis://cache/first", ""):
        with pytest.raises(SettingsError) as refused:
            StateURL.parse(text)
        assert "password" not in str(refused.value)


@pytest.mark.parametrize(
    ("value", "shown"), [("", "''"), (" ", "' '"), (None, "None"), (b"redis://:pw@cache", "of type bytes")]
)
def test_what_is_no_address_at_all_is_shown_as_what_it_is(value: object, shown: str) -> None:
    with pytest.raises(SettingsError) as refused:
        StateURL.parse(value)
    assert str(refused.value).startswith(f'state (INSIDER_OTEL_STATE) is {shown}; it accepts "memory://", ')


def test_a_file_may_have_a_tilde_in_its_name() -> None:
    assert StateURL.parse("sqlite:///~state.db").target == "~state.db"


@pytest.mark.parametrize(
    "text",
    [
        "redis://shop:{}@cache:6379/0",
        "redis://:{}@cache?prefix=a&timeout=1",
        "unix://shop:{}@/run/redis.sock",
        "redis://shop:{}@cache:port",
        "redis://shop:{}@cache:6379/first",
        "redis://shop:{}@",
        "redis://{}@cache:6379:1",
        "redis://cache:{}",
        "redis://cache?password={}",
        "redis://cache?password={}&timeout=x",
        "rediss://cache?pass={}",
        "mysql://shop:{}@cache",
        "memory://{}",
        "sqlite://shop:{}@/state.db",
        "redis:{}@cache",
        "{}",
    ],
)
@given(password=st.text(min_size=6, max_size=12).map(lambda text: f"pw{text}wp"), quoted=st.booleans())
def test_a_password_is_never_shown(text: str, password: str, quoted: bool) -> None:
    written = quote(password, safe="") if quoted else password
    try:
        url = StateURL.parse(text.format(written))
    except SettingsError as error:
        shown = "".join(traceback.format_exception(error))
        chained = "".join(traceback.format_exception(error.__context__)) if error.__context__ else ""
        # The text of this test stands in the traceback, the password does not.
        assert written not in shown + chained
        assert password not in shown + chained
    else:
        assert written not in repr(url)
        assert password not in repr(url)
