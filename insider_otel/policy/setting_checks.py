"""What a setting accepts: a check for each kind of value, with errors that name the field and its variable."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from enum import StrEnum
from ipaddress import IPv6Address
from typing import Any, TypeVar, cast
from urllib.parse import urlsplit

from insider_otel.api.operations import ANY_HOST, Limit, hosts, operations_by_name

PREFIX = "INSIDER_OTEL_"

CREDENTIALS_PREFIX = f"{PREFIX}CREDENTIALS_"
"""What the variables with the credentials of deferred calls begin with; a product's name follows."""

MOST_RETRIES = 20

LIMITS_ACCEPT = 'a mapping of the name of a pool to "25000/60s", "1/day" (a UTC calendar day) or "off"'

V = TypeVar("V")

Check = Callable[[str, Any], Any]
"""Takes the name of a setting and the value given; returns the value to keep."""


class SettingsError(ValueError):
    """A setting that cannot be used; says which, where it can be set, and what it accepts."""


class FrozenMapping(Mapping[str, V]):
    """A mapping that does not change, and can be pickled and copied, which a ``mappingproxy`` cannot.

    Args:
        pairs: What it holds.
    """

    def __init__(self, pairs: Mapping[str, V]) -> None:
        self._pairs = dict(pairs)

    def __getitem__(self, key: str) -> V:
        return self._pairs[key]

    def __contains__(self, key: object) -> bool:
        # Asked at each call: the base class would raise and catch a KeyError.
        return key in self._pairs

    def __iter__(self) -> Iterator[str]:
        return iter(self._pairs)

    def __len__(self) -> int:
        return len(self._pairs)

    def __repr__(self) -> str:
        return repr(self._pairs)


def variable_of(name: str) -> str:
    """The environment variable of a setting: ``quick_delay`` → ``INSIDER_OTEL_QUICK_DELAY``."""
    return PREFIX + name.upper()


def setting_error(name: str, value: object, accepts: str) -> SettingsError:
    """The error about a value that cannot be used.

    Args:
        name: The setting.
        value: The value given.
        accepts: What it accepts.
    """
    return SettingsError(f"{name} ({variable_of(name)}) is {value!r}; it accepts {accepts}")


def choice(choices: type[StrEnum]) -> Check:
    """A check for one of several words."""
    accepts = " or ".join(f"{choice.value!r}" for choice in choices)

    def check(name: str, value: Any) -> StrEnum:
        try:
            return choices(value.strip().lower() if isinstance(value, str) else value)
        except ValueError:
            raise setting_error(name, value, accepts) from None

    return check


def seconds(*, zero: bool, none: bool = False, most: float = math.inf) -> Check:
    """A check for a time in seconds.

    Args:
        zero: Whether it may be 0.
        none: Whether it may be None, for no bound.
        most: The longest time.
    """
    accepts = "seconds from 0 up" if zero else "seconds above 0"
    if most < math.inf:
        accepts += f", {most:.0f} at most"
    if none:
        accepts += ", or nothing for no bound"

    def check(name: str, value: Any) -> float | None:
        if value is None and none:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise setting_error(name, value, accepts)
        try:
            length = float(value)
        except OverflowError:  # 10**400
            length = value = math.inf
        if not math.isfinite(length) or not 0 <= length <= most or (length == 0 and not zero):
            raise setting_error(name, value, accepts)
        return length

    return check


def retries(name: str, value: Any) -> int:
    """Check a number of retries."""
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MOST_RETRIES:
        raise setting_error(name, value, f"a whole number from 0 to {MOST_RETRIES}")
    return value


_FERNET_KEY = re.compile(r"[A-Za-z0-9_-]{43}=")


def fernet_keys(name: str, value: Any) -> str | None:
    """Check the keys that encrypt. The error repeats none."""
    if value is None:
        return None
    if not isinstance(value, str) or not all(_FERNET_KEY.fullmatch(key.strip()) for key in value.split(",")):
        raise SettingsError(
            f"{name} ({variable_of(name)}) is no Fernet key, nor several separated by commas; "
            "cryptography.fernet.Fernet.generate_key() makes one"
        )
    return ",".join(key.strip() for key in value.split(","))


def provider(name: str, value: Any) -> Any:
    """Check what provides credentials. The error repeats none."""
    if value is None or callable(value):
        return value
    raise SettingsError(
        f"{name} is no function of an operation and an account that returns credentials by header; in the environment "
        f'set {CREDENTIALS_PREFIX}<PRODUCT>, such as {CREDENTIALS_PREFIX}MAIL=\'{{"X-INS-AUTH-KEY": "…"}}\''
    )


HOSTS_ACCEPT = 'a mapping of "address" or "address:port", without scheme, path or space, to an Insider host or "*"'


def split_address(address: str) -> tuple[str, int | None]:
    """The host and the port of ``host``, ``host:port``, ``[::1]`` or ``[::1]:port``.

    Raises:
        ValueError: It is none of these.
    """
    # No request's host has white space in it, nor a *, which would be compared as it stands.
    if re.search(r"[\s*]", address):
        raise ValueError(address)
    parts = urlsplit(f"//{address}")
    if parts.netloc != address or not parts.hostname or parts.username is not None or parts.port == 0:
        raise ValueError(address)
    return one_spelling(parts.hostname), parts.port


def one_spelling(host: str) -> str:
    """The host, if it is an IPv6 address in the one of its spellings that it is compared by.

    Raises:
        ValueError: It is no host.
    """
    return str(IPv6Address(host)) if ":" in host else host


def address_error(address: object, why: str = "") -> SettingsError:
    """The error about an address that cannot be used. It repeats the host of it only: the rest may be a password.

    Args:
        address: The address given.
        why: What is wrong with it, if that is not plain.
    """
    return SettingsError(f"hosts ({variable_of('hosts')}) holds {_host_in(address)!r}; it accepts {HOSTS_ACCEPT}{why}")


def _host_in(address: object) -> str:
    return re.split("[/?#]", re.sub("^[a-z+.-]*://", "", str(address).rpartition("@")[2]))[0]


def insider_addresses(name: str, value: Any) -> Mapping[str, str]:
    """Check a mapping of addresses to the Insider hosts that they stand for."""
    if not isinstance(value, Mapping):
        raise SettingsError(f"{name} ({variable_of(name)}) is a {type(value).__name__}; it accepts {HOSTS_ACCEPT}")
    checked: dict[str, str] = {}
    for address, host in cast("Mapping[object, object]", value).items():
        if not isinstance(address, str) or not isinstance(host, str):
            raise address_error(address)
        try:
            split_address(address)
        except ValueError:
            has_any = ANY_HOST in _host_in(address)
            why = f'; "{ANY_HOST}" stands for every Insider host as a value only' if has_any else ""
            raise address_error(address, why) from None
        if host != ANY_HOST and host.lower() not in hosts():
            raise address_error(
                address, f"; {_host_in(host)!r} is no documented host (`insider-otel operations` lists them)"
            )
        checked[address.lower()] = host.lower()
    return FrozenMapping(checked)


def pool_limits(name: str, value: Any) -> Mapping[str, Limit | None]:
    """Check a mapping of pools to limits, and read those that are text."""
    if not isinstance(value, Mapping):
        raise setting_error(name, value, LIMITS_ACCEPT)
    pairs = cast("Mapping[object, object]", value)
    checked: dict[str, Limit | None] = {}
    for key, limit in pairs.items():
        if not isinstance(key, str):
            raise setting_error(name, pairs, LIMITS_ACCEPT)
        try:
            pool, documented = _pool(key.strip().lower())
            checked[pool] = read_limit(limit, documented)
        except ValueError as error:
            raise setting_error(name, pairs, f"{LIMITS_ACCEPT}; {error}") from None
    return FrozenMapping(checked)


def _pool(key: str) -> tuple[str, Limit | None]:
    """A pool and its documented limit."""
    kind, _, host = key.partition(":")
    if kind == "unlisted" and (host == ANY_HOST or host in hosts()):
        return key, None
    if kind == "unlisted":
        raise ValueError(
            f"{key!r} is no pool: after 'unlisted:' stands a documented host (`insider-otel operations` lists them) "
            "or '*'"
        )
    listed = operations_by_name().get(key)
    if listed is None:
        raise ValueError(f"{key!r} is no pool (`insider-otel operations` lists them)")
    if listed.pool != key:
        raise ValueError(f"{key!r} shares the limit of {listed.pool!r}: set that")
    return key, listed.limit


def read_limit(value: object, documented: Limit | None) -> Limit | None:
    """The limit that somebody sets in place of a documented one.

    Args:
        value: A ``Limit``, its text, or ``"off"`` or None to lift it.
        documented: The documented limit; None if there is none.

    Returns:
        The limit; None if it is lifted.

    Raises:
        ValueError: It is no limit.
    """
    if value is None or (isinstance(value, str) and value.strip().lower() == "off"):
        return None
    if isinstance(value, Limit):
        return value
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is no limit")
    limit = Limit.parse(value)
    if documented is None:
        return limit
    # How much is the app's to say; what is counted is Insider's.
    return replace(limit, unit=documented.unit, counts_failures=documented.counts_failures)
