"""The fake's limits are written as the app's are."""

from __future__ import annotations

import httpx
import pytest

from insider_otel.testing import FakeClock, FakeInsider, sample_request


def statuses(fake: FakeInsider, operation: str, count: int, content: bytes | None = None) -> list[int]:
    """What the fake answers to the same request, several times."""
    sample = sample_request(operation)
    content = sample.content if content is None else content
    with httpx.Client(transport=fake.transport(), headers=sample.headers) as client:
        return [client.request(sample.method, sample.url, content=content).status_code for _ in range(count)]


def test_the_text_of_a_limit_counts_quota_units_where_the_documented_one_does() -> None:
    """Each of these reads costs one unit and a half."""
    fake = FakeInsider(clock=FakeClock(), limits={"user.profile": "3/60s"})
    statuses(fake, "user.upsert", 1)
    assert statuses(fake, "user.profile", 3) == [200, 200, 429]


def test_an_export_that_failed_does_not_count_under_a_limit_of_ones_own_either() -> None:
    fake = FakeInsider(clock=FakeClock(), limits={"raw.export": "1/60s"})
    assert statuses(fake, "raw.export", 1, content=b"{") == [400]
    assert statuses(fake, "raw.export", 2) == [200, 429]


@pytest.mark.parametrize("off", ["off", None])
def test_a_limit_can_be_lifted(off: str | None) -> None:
    fake = FakeInsider(clock=FakeClock(), limits={"mail.campaign_create": off})
    assert 429 not in statuses(fake, "mail.campaign_create", 5)


def test_what_is_no_limit_is_refused() -> None:
    with pytest.raises(ValueError, match="'many' is not of the form"):
        FakeInsider(limits={"user.upsert": "many"})
