"""The setting ``state``: the address of a store and its options. It may hold a password, which nothing here repeats."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from typing import Literal
from urllib.parse import SplitResult, unquote, urlsplit

from insider_otel.policy.setting_checks import SettingsError, variable_of

DEFAULT_TIMEOUT = 0.05
"""Seconds that a store may take for an answer."""

DEFAULT_PREFIX = "insider-otel"
"""What the names of all keys in Redis begin with."""

_LONGEST_TIMEOUT = 60.0
# No braces, which mark the part of a key that says where in a cluster it lives, and no sign of a search pattern.
_PREFIX = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,19}://")
_ACCEPTS = (
    '"memory://", "sqlite:///relative.db", "sqlite:////absolute.db", "redis://host:6379/0", "rediss://host:6379/0" or '
    '"unix:///path/to/redis.sock"'
)
_QUOTING = "a # is written as %23 and, in a password, / as %2F and ? as %3F"
# Of redis-py's own options those that say where the server is and who asks; the others are the library's business.
_REDIS_OPTION = re.compile(r"db|username|password|ssl_[a-z_]+")


@dataclass(frozen=True, slots=True)
class StateURL:
    """Where limits and claims live.

    Attributes:
        scheme: The kind of store.
        target: The path of the file for sqlite, the URL without our options for Redis, which may hold a password.
        timeout: Seconds that the store may take for an answer.
        prefix: What the names of all keys in Redis begin with.
        display: The address without user, password and query: for people.
        cluster: Whether it is the address of a Redis cluster, or of one of its nodes.
    """

    scheme: Literal["memory", "sqlite", "redis"]
    target: str = field(repr=False)
    timeout: float
    prefix: str
    display: str
    cluster: bool = False

    @classmethod
    def parse(cls, text: object) -> StateURL:
        """Read the setting.

        Args:
            text: ``memory://``, ``sqlite:///relative.db``, ``sqlite:////absolute.db``, or a URL of redis-py (``redis://``,
                ``rediss://``, ``unix://``). ``?timeout=0.05`` gives sqlite and Redis their time in seconds;
                ``&prefix=insider-otel`` tells apps that share a Redis apart; ``&cluster=true`` finds the nodes of a
                cluster.

        Raises:
            SettingsError: It cannot be used. The error names no part of the URL that may hold a password.
        """
        if not isinstance(text, str) or not text.strip():
            raise _error(text)
        if "://" not in text:
            raise _error(text, "it has no scheme; a file is sqlite:////var/lib/x.db")
        parts = _split(text)
        if parts is None or parts.fragment:
            is_unquoted = "@" in text or "#" in text
            raise _error(text, _QUOTING if is_unquoted else "its host or its port cannot be read")
        match parts.scheme:
            case "memory":
                return _memory(text, parts)
            case "sqlite":
                return _sqlite(text, parts)
            case "redis" | "rediss" | "unix":
                return _redis(text, parts)
            case _:
                raise _error(text)


def _split(text: str) -> SplitResult | None:
    """The parts of a URL, or None: what ``urlsplit`` raises repeats parts of it."""
    try:
        parts = urlsplit(text)
        _ = parts.port
    except ValueError:
        return None
    return parts


def _error(text: object, remedy: str = "") -> SettingsError:
    return SettingsError(
        f"state ({variable_of('state')}) is {_shown(text)}; it accepts {_ACCEPTS}{'; ' if remedy else ''}{remedy}"
    )


def _shown(text: object) -> str:
    """No more of the value than cannot be a part of a password."""
    if text is None:
        return "None"
    if not isinstance(text, str):
        return f"of type {type(text).__name__}"
    scheme = _SCHEME.match(text)
    return repr(text) if not text.strip() else f"'{'' if scheme is None else scheme[0]}…'"


def _memory(text: str, parts: SplitResult) -> StateURL:
    if parts.netloc or parts.path or parts.query:
        raise _error(text, "memory:// takes no path and no options")
    return StateURL("memory", "", DEFAULT_TIMEOUT, DEFAULT_PREFIX, "memory://")


def _sqlite(text: str, parts: SplitResult) -> StateURL:
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc:
        raise _error(text, "sqlite:/// has three slashes before a relative path and four before an absolute one")
    if not path or path.endswith("/") or "\0" in path:
        raise _error(text, "sqlite:/// needs the path of a file")
    if re.match(r"~[^/]*/", path) or path == "~":
        raise _error(text, "~ is not read as a home directory: write that out, as in sqlite:////home/shop/x.db")
    if path == ":memory:":
        raise _error(text, "memory:// is what shares nothing with other processes")
    own, others = _options(text, parts, {"timeout"})
    if others:
        raise _error(text, "sqlite takes no option but timeout")
    return StateURL("sqlite", path, _timeout(text, own), DEFAULT_PREFIX, f"sqlite:///{path}")


def _redis(text: str, parts: SplitResult) -> StateURL:
    address = parts.netloc.rpartition("@")[2]
    if parts.scheme == "unix":
        if address or len(parts.path) < 2:
            raise _error(text, "unix:// needs the absolute path of a socket: three slashes")
    elif not parts.hostname or not re.fullmatch(r"/?[0-9]{0,4}", parts.path):
        raise _error(text, "redis:// needs a host, and no path but the number of a database")
    elif not _can_be_looked_up(unquote(parts.hostname)):
        raise _error(text, "no host can have that name; each part of one, between dots, has 1 to 63 characters")
    own, others = _options(text, parts, {"timeout", "prefix", "cluster"})
    for name, _ in others:
        if not _REDIS_OPTION.fullmatch(name):
            raise _error(text, "the options are timeout, prefix, cluster, db, username, password and ssl_…")
    prefix = own.get("prefix", DEFAULT_PREFIX)
    if not _PREFIX.fullmatch(prefix):
        raise _error(text, "prefix is 1 to 64 letters, digits or . _ : -")
    cluster = own.get("cluster", "false")
    if cluster not in {"true", "false"}:
        raise _error(text, "cluster is true or false")
    databases = {parts.path.removeprefix("/"), *(written for name, written in others if name == "db")}
    if cluster == "true" and (parts.scheme == "unix" or not databases <= {"", "0", "db=0"}):
        raise _error(text, "a cluster has a host, and no database but 0")
    # The rest is redis-py's to read, so it stays as it was written.
    query = "&".join(written for _, written in others)
    target = f"{parts.scheme}://{parts.netloc}{parts.path}{'?' if query else ''}{query}"
    display = f"{parts.scheme}://{address}{parts.path}"
    return StateURL("redis", target, _timeout(text, own), prefix, display, cluster == "true")


def _can_be_looked_up(host: str) -> bool:
    try:
        host.encode("idna")
    except UnicodeError:
        return False
    return "\0" not in host


def _options(text: str, parts: SplitResult, ours: set[str]) -> tuple[dict[str, str], list[tuple[str, str]]]:
    """Our options by name; and the names of the others, each with how it was written."""
    own: dict[str, str] = {}
    others: list[tuple[str, str]] = []
    for written in filter(None, parts.query.split("&")):
        name, _, value = written.partition("=")
        if name not in ours:
            others.append((name, written))
        elif name in own:
            raise _error(text, f"{name} stands there twice")
        else:
            own[name] = unquote(value)
    return own, others


def _timeout(text: str, options: dict[str, str]) -> float:
    try:
        timeout = float(options.get("timeout", DEFAULT_TIMEOUT))
    except ValueError:
        timeout = math.nan
    if not 0 < timeout <= _LONGEST_TIMEOUT:
        raise _error(text, f"timeout is seconds above 0, {_LONGEST_TIMEOUT:g} at most")
    return timeout
