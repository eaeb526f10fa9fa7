"""Which requests go to an address of ``Settings.hosts``, however both are spelt."""

from __future__ import annotations

from types import ModuleType

import httpx
import httpx2
import pytest

from insider_otel import InsiderTransport, Settings, SettingsError
from insider_otel.http.engine import Engine


@pytest.mark.parametrize("module", [httpx, httpx2])
@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("example.com", "https://Example.COM"),
        ("EXAMPLE.com", "https://example.com"),
        ("example.com", "https://example.com."),
        ("example.com.", "https://example.com."),
        ("example.com.", "https://example.com"),
        ("müşteri.example", "https://müşteri.example"),
        ("müşteri.example", "https://xn--mteri-kva70e.example"),
        ("xn--mteri-kva70e.example", "https://Müşteri.example"),
        ("www.müşteri.example", "https://www.müşteri.example"),
        ("www.xn--mteri-kva70e.example", "https://www.müşteri.example"),
        ("example.com:443", "https://example.com"),
        ("example.com:0443", "https://example.com:443"),
        ("127.0.0.1:8080", "http://127.0.0.1:8080"),
        ("[::1]", "http://[::1]:8080"),
        ("[0:0::1]", "http://[0:0::1]"),
        ("[0:0::1]:80", "http://[::1]"),
        ("[::1]", "http://[0:0:0:0:0:0:0:1]"),
        ("[2001:DB8::A]", "http://[2001:db8::a]"),
        ("[fe80::1%eth0]", "http://[fe80::1%eth0]"),
    ],
)
def test_an_address_is_met_however_it_is_spelt(module: ModuleType, address: str, url: str) -> None:
    engine = Engine(Settings(hosts={address: "mail.useinsider.com"}))
    assert engine.insider_host(module.URL(url)) == "mail.useinsider.com"


@pytest.mark.parametrize(
    ("address", "url"),
    [
        ("example.com:8080", "https://example.com"),
        ("example.com", "https://www.example.com"),
        ("[::1]", "http://[::2]"),
        ("[fe80::1%eth0]", "http://[fe80::1]"),
        # Not the name of anything, but for other people's transports to say so.
        ("example.com", "https://xn--a.example"),
    ],
)
def test_another_address_is_left_alone(address: str, url: str) -> None:
    engine = Engine(Settings(hosts={address: "mail.useinsider.com"}))
    assert engine.insider_host(httpx.URL(url)) is None


def test_a_name_that_can_never_be_requested_is_refused() -> None:
    settings = Settings(hosts={"①.example": "*"})
    with pytest.raises(SettingsError, match=r"hosts \(INSIDER_OTEL_HOSTS\) holds '①.example'; it accepts"):
        InsiderTransport(httpx.HTTPTransport(), settings=settings)
