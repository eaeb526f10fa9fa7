"""The scenarios of the demo, as data: what a shop does, what Insider does, and what its bare status looks like."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from insider_otel.testing._names import known
from insider_otel.testing.faults import Step, documented, timeout
from insider_otel.testing.samples import FAKE_KEY

CREDENTIALS: Mapping[str, str] = {"body:api_key": FAKE_KEY}
"""What the fake takes for the right key; any value will do for a credential that is not named here."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One way a call can go.

    Attributes:
        name: What ``--scenario`` calls it.
        title: What it shows.
        route: The shop's own page or job that makes the call: method and path.
        operation: The operation it calls.
        impression: What the bare status makes somebody think who has nothing else.
        body: The request's body; the sample's by default.
        before: Operations that were called earlier, with their sample requests, by somebody else.
        just_now: Operations that the shop itself called a moment ago. A client without insider-otel is then let try the
            call too: only so can its bare status be told where insider-otel sends nothing, or later.
        script: What the fake does in place of its usual answers, one step for each attempt.
        timeout: Seconds the shop's client waits for an answer.
        deadline: Seconds the page may take.
        outbox: Whether the shop has an outbox; what it keeps is sent when the page is done.
        note: Where the demo differs from the real thing; empty if it does not.
    """

    name: str
    title: str
    route: str
    operation: str
    impression: str
    body: Any = None
    before: tuple[str, ...] = ()
    just_now: tuple[str, ...] = ()
    script: tuple[Step | str, ...] = ()
    timeout: float = 5.0
    deadline: float = 5.0
    outbox: bool = False
    note: str = ""


SCENARIOS = (
    Scenario(
        name="success",
        title="All is well",
        route="POST /signup",
        operation="user.upsert",
        impression="Looks fine, and is.",
    ),
    Scenario(
        name="quick-retry",
        title="A 503, healed by a quick retry",
        route="POST /signup",
        operation="user.upsert",
        impression="Looks like an outage; the profile is lost.",
        script=("service_unavailable",),
    ),
    Scenario(
        name="handed-over",
        title="An outage, left to the outbox",
        route="POST /signup",
        operation="user.upsert",
        impression="Looks like an outage; the profile is lost.",
        script=("service_unavailable",) * 3,
        outbox=True,
        note="Here the outbox is emptied when the page is done. In an app the call is sent when it is due: in minutes.",
    ),
    Scenario(
        name="hidden-rate-limit",
        title="A 403 that is a rate limit",
        route="GET /reports/push",
        operation="web_push.top_metrics",
        impression="Looks like a rejected key; a new one is made, in vain.",
        script=(documented("request_limit_exceeded_30_per_minute", headers={"Retry-After": "1"}),),
        note="Here the reply also has Retry-After: 1. Without it the wait would be the minute that the message names.",
    ),
    Scenario(
        name="wait-for-slot",
        title="A limit that is held here",
        route="POST /admin/campaigns",
        operation="mail.campaign_create",
        impression="Looks like a bad day at Insider; the campaign is lost.",
        just_now=("mail.campaign_create",),
    ),
    Scenario(
        name="otp-typo",
        title="A one-time code with a typo",
        route="POST /login/code",
        operation="verify.check",
        impression="Looks like a rejected key; somebody is paged.",
        body={"to": "+905550000001", "code": "l234"},
        before=("verify.generate",),
    ),
    Scenario(
        name="lost-records",
        title="A 200 that lost records",
        route="POST /import",
        operation="user.upsert",
        impression="Looks fine; nobody looks again.",
        body={
            "users": [
                {"identifiers": {"email": "jane@example.com"}, "attributes": {"name": "Jane"}},
                {"identifiers": {"email": "jane at example.com"}, "attributes": {"name": "Jane"}},
                {
                    "identifiers": {"phone_number": "+905550000001"},
                    "events": [{"event_name": "purchase", "timestamp": "2026-01-01T09:00:00Z"}],
                },
            ]
        },
    ),
    Scenario(
        name="duplicate-window",
        title="A timeout, healed by the duplicate window",
        route="POST /orders",
        operation="mail.send",
        impression="Was the mail sent? Sending it again may send it twice.",
        script=(timeout(processed=True),),
        timeout=1.0,
    ),
    Scenario(
        name="held-back",
        title="The same mail, held back",
        route="POST /orders",
        operation="mail.send",
        impression="Looks like a second mail; Insider ignores it.",
        just_now=("mail.send",),
    ),
    Scenario(
        name="permanent-500",
        title="A 500 that will never work",
        route="POST /admin/otp-channel",
        operation="verify.channel_create",
        impression="Looks like an outage; retry loops hammer on.",
        before=("verify.channel_create",),
    ),
    Scenario(
        name="wrong-key",
        title="A wrong key that comes as 400",
        route="POST /admin/campaigns",
        operation="push.bulk",
        impression="Looks like a mistake in the body; hours of searching.",
        body={
            "api_key": "last-years-key",
            "campaign_name": "Spring",
            "segment_name": "All",
            "title": "Spring",
            "content": "It is here.",
        },
    ),
)


def scenario(name: str) -> Scenario:
    """The scenario of a name.

    Args:
        name: Its name.

    Raises:
        ValueError: There is no such scenario.
    """
    return known({each.name: each for each in SCENARIOS}, name, "scenario", "`insider-otel demo --list` lists them")
