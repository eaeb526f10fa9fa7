"""What Insider holds: one account, in memory."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field
from random import Random
from typing import Any

from insider_otel.testing._wire import as_dict, as_list


@dataclass(slots=True)
class Profile:
    """One user.

    Attributes:
        insider_id: Insider's own identifier.
        identifiers: Value by kind: ``email``, ``phone_number``, ``uuid``, ``custom.<name>``.
        attributes: What ``user.profile`` reads.
        events: Every event as it was sent.
    """

    insider_id: str
    identifiers: dict[str, str] = field(default_factory=dict[str, str])
    attributes: dict[str, Any] = field(default_factory=dict[str, Any])
    events: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


@dataclass(slots=True)
class Code:
    """A one-time code that waits to be checked."""

    code: str
    expires: float
    attempts_left: int


@dataclass(slots=True)
class Account:
    """One account of the fake, empty at first."""

    random: Random = field(default_factory=lambda: Random(0))  # the same ids and codes in every run
    profiles: list[Profile] = field(default_factory=list[Profile])
    codes: dict[str, Code] = field(default_factory=dict[str, Code])
    channels: dict[str, Any] = field(default_factory=dict[str, Any])
    templates: dict[tuple[str, str], Any] = field(default_factory=dict[tuple[str, str], Any])
    segments: set[str] = field(default_factory=set[str])
    deleted_campaigns: set[str] = field(default_factory=set[str])
    activities: dict[str, bool] = field(default_factory=dict[str, bool])
    """Whether it was started, by id."""
    idempotency_keys: set[str] = field(default_factory=set[str])
    seen: dict[tuple[str, str, str], float] = field(default_factory=dict[tuple[str, str, str], float])
    """When a content was last accepted, by operation, credentials and content."""

    def uuid(self) -> str:
        """A new id in the form of a UUID."""
        return str(uuid.UUID(int=self.random.getrandbits(128), version=4))

    def number(self) -> int:
        """A new campaign number."""
        return self.random.randrange(10_000, 100_000)

    def profile(self, identifiers: dict[str, str], insider_id: object = None) -> Profile | None:
        """The user with any of these identifiers.

        Args:
            identifiers: Value by kind, as ``flat_identifiers`` gives them.
            insider_id: Insider's own identifier, instead.
        """
        for profile in self.profiles:
            if insider_id is not None and profile.insider_id == insider_id:
                return profile
            if any(profile.identifiers.get(kind) == value for kind, value in identifiers.items()):
                return profile
        return None

    def upsert(self, user: dict[str, Any]) -> None:
        """Insert or update a user, in the shape of an upsert request."""
        identifiers = flat_identifiers(user.get("identifiers"))
        profile = self.profile(identifiers, user.get("insider_id"))
        if profile is None:
            profile = Profile(insider_id=str(user.get("insider_id") or self.uuid()))
            self.profiles.append(profile)
        profile.identifiers |= identifiers
        append = not user.get("not_append", False)
        for name, value in as_dict(user.get("attributes")).items():
            _set(profile.attributes, name, value, append=append)
        profile.events.extend(as_dict(event) for event in as_list(user.get("events")))


def flat_identifiers(identifiers: object) -> dict[str, str]:
    """Identifiers with the custom ones beside the others.

    Args:
        identifiers: ``{"email": …, "custom": {"loyalty": …}}``

    Returns:
        ``{"email": …, "custom.loyalty": …}``; values that are no text are left out.
    """
    given = as_dict(identifiers)
    custom = {f"custom.{name}": value for name, value in as_dict(given.get("custom")).items()}
    flat = {name: value for name, value in given.items() if name != "custom"} | custom
    return {name: value for name, value in flat.items() if isinstance(value, str) and value}


def _set(attributes: dict[str, Any], name: str, value: object, *, append: bool) -> None:
    items = as_list(value)
    if name == "custom":
        held = attributes.setdefault("custom", {})
        for custom, inner in as_dict(value).items():
            _set(held, custom, inner, append=append)
    elif append and items:
        known = as_list(attributes.get(name))
        attributes[name] = known + [item for item in items if item not in known]
    else:
        attributes[name] = value
