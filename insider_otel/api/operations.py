"""Insider's endpoints under stable names: ``operations.toml``, and what finds an operation from a request."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import cache, lru_cache
from types import MappingProxyType
from typing import Any, cast

ANY_HOST = "*"
"""Stands for every Insider host at once: the operation is found by its method and path alone."""

IN_BODY = "body:"
"""What the place of a credential in a body begins with, in ``Operation.credentials``; the name of its field follows."""

DAY = 86_400.0
"""Seconds of a day."""


class Resend(StrEnum):
    """When the same request may be sent a second time."""

    IDEMPOTENT = "idempotent"
    """Always: twice is the same as once."""
    WINDOW = "window"
    """After no answer only while Insider's duplicate window holds a repeat back."""
    ANSWERED = "answered"
    """Only after an answer that says "not processed" (500, 503, 504, 520); never after silence."""
    NEVER = "never"
    """Not at all."""


_LIMIT = re.compile(
    r"(?P<count>[0-9]{1,15})(?P<successful> successful)?(?: (?P<unit>quota))?"
    r"/(?:(?P<day>(?:UTC )?day)|(?P<seconds>[0-9]{1,20}(?:\.[0-9]{1,20})?(?:e[+-]?[0-9]{1,3})?)s)"
)


@dataclass(frozen=True, slots=True)
class Limit:
    """A rate limit. Its text, ``25000/60s`` or ``1/UTC day``, is what ``parse`` reads.

    Attributes:
        count: Requests, or quota units, allowed in one window.
        window: Seconds.
        calendar: Whether the window is a UTC calendar day instead of a rolling one.
        unit: What is counted: ``request`` or ``quota``.
        counts_failures: Whether a request that Insider refused counts too.

    Raises:
        ValueError: It allows nothing, or has no window.
    """

    count: int
    window: float
    calendar: bool = False
    unit: str = "request"
    counts_failures: bool = True

    def __post_init__(self) -> None:
        if self.count < 1 or not 0 < self.window < math.inf:
            raise ValueError(f"limit of {self.count} in {self.window} s: both have to be above 0, such as 25000/60s")

    def __str__(self) -> str:
        successful = "" if self.counts_failures else " successful"
        unit = "" if self.unit == "request" else f" {self.unit}"
        window = "UTC day" if self.calendar else f"{float(self.window)!r}".removesuffix(".0") + "s"
        return f"{self.count}{successful}{unit}/{window}"

    @classmethod
    def parse(cls, text: str) -> Limit:
        """A limit from its text.

        Args:
            text: ``<requests>/<seconds>s``, such as ``25000/60s``; ``<requests>/day`` for a UTC calendar day.
                ``1000 quota/60s`` counts quota units, ``1 successful/day`` only what Insider did not refuse.

        Raises:
            ValueError: The text is not of that form, or one of its numbers is 0.
        """
        match = _LIMIT.fullmatch(text.strip())
        if match is not None:
            count, seconds = int(match["count"]), DAY if match["day"] else float(match["seconds"])
            if count and 0 < seconds < math.inf:
                unit, counts_failures = match["unit"] or "request", match["successful"] is None
                return cls(count, seconds, match["day"] is not None, unit, counts_failures)
        raise ValueError(
            f"limit {text!r} is not of the form <requests>/<seconds>s, such as 25000/60s, nor <requests>/day"
        )


@dataclass(frozen=True, slots=True)
class Operation:
    """One Insider endpoint.

    Attributes:
        name: Stable name, for instance ``user.upsert``.
        product: The group it belongs to, for instance ``unification``.
        methods: HTTP methods it answers to.
        host: Its host.
        path: Path template, as in ``url.template``: ``/v1/journey/{id}``; ``{+rest}`` stands for several segments.
        pool: Name of the operations' pool that shares ``limit``; the name of the pool's first operation.
        limit: Documented limit of the pool; the newer source's where sources disagree.
        max_records: Records allowed in one request whose body holds a list of them; None as well if it takes one record
            only, which ``note`` then says.
        max_bytes: Bytes allowed in one request body.
        max_record_bytes: Bytes allowed in one record.
        records: Fields of the request body that may hold its records; an empty name is the body itself.
        resend: When it may be sent twice.
        duplicate_window: Seconds in which Insider ignores the same content for the same user.
        deferrable: Whether it makes sense to send it later: it changes something, and nobody waits for what the answer
            says.
        credentials: Names of the headers, and ``body:api_key``-like paths, that carry the credentials.
        source: The document that says so.
        note: What else the sources say, such as a second figure.
    """

    name: str
    product: str
    methods: tuple[str, ...]
    host: str
    path: str
    pool: str
    limit: Limit | None = None
    max_records: int | None = None
    max_bytes: int | None = None
    max_record_bytes: int | None = None
    records: tuple[str, ...] = ()
    resend: Resend = Resend.ANSWERED
    duplicate_window: float | None = None
    deferrable: bool = False
    credentials: tuple[str, ...] = ()
    source: str = ""
    note: str = ""

    def count_records(self, payload: object) -> int | None:
        """How many records a request body holds.

        Args:
            payload: The body, read from JSON.

        Returns:
            The number of records; None if the operation has none, or the body is not of its shape.
        """
        body: object = payload
        fields = cast("dict[str, object]", payload) if isinstance(payload, dict) else {}
        for name in self.records:
            held = fields.get(name) if name else body
            if isinstance(held, list):
                return len(cast("list[object]", held))
        return None


def operations() -> tuple[Operation, ...]:
    """Every documented operation, in the order of ``operations.toml``."""
    return _registry().operations


def operations_by_name() -> Mapping[str, Operation]:
    """Every documented operation, by its name."""
    return _registry().by_name


@cache
def hosts() -> frozenset[str]:
    """Every documented Insider host, lower case."""
    return frozenset(_registry().hosts)


def find(method: str, host: str, path: str) -> Operation | None:
    """The operation that answers ``method`` and ``path`` on ``host``.

    A trailing slash, doubled slashes and the case of the path do not matter: the operation meant is still the same,
    even if Insider's answer should be "not found".

    Args:
        method: HTTP method, upper case.
        host: An Insider host in lower case, or ``*`` for any of them. Where two hosts share method and path, ``*``
            means the first of them in ``operations.toml``: ``POST /v1/send``, which SMS and WhatsApp have in common, is
            then ``sms.send``. A server that stands in for WhatsApp needs WhatsApp's own host here.
        path: Path without the query.

    Returns:
        The documented operation; an ``unlisted`` one for a path, or a method of a path, that is not documented (product
        named after the host, resend safety by the method's idempotency as RFC 9110 defines it); None if ``host`` is no
        Insider host.
    """
    registry = _registry()
    operation = registry.by_request.get((host, method, path))
    if operation is not None:
        return operation
    return registry.search(method, host, path)


class _Registry:
    """The table, indexed.

    Attributes:
        operations: In the order of the table.
        by_name: The same by name.
        hosts: By name, what the operations of a host have in common.
        by_request: By host, method and path, in the documented and in lower case, for paths without placeholders.
        by_template: By host, for the others.
    """

    def __init__(self) -> None:
        self.operations: tuple[Operation, ...] = ()
        self.by_name: Mapping[str, Operation] = {}
        self.hosts: dict[str, dict[str, Any]] = {}
        self.by_request: dict[tuple[str, str, str], Operation] = {}
        self.by_template: dict[str, list[tuple[re.Pattern[str], Operation]]] = {}

    def add(self, operation: Operation, host: str) -> None:
        if "{" in operation.path:
            self.by_template.setdefault(host, []).append((_template_pattern(operation.path), operation))
            return
        for method in operation.methods:
            for path in {operation.path, operation.path.lower()}:
                self.by_request.setdefault((host, method, path), operation)

    def search(self, method: str, host: str, path: str) -> Operation | None:
        if host != ANY_HOST and host not in self.hosts:
            return None
        while "//" in path:
            path = path.replace("//", "/")
        path = path.rstrip("/") or path
        operation = self.by_request.get((host, method, path.lower()))
        if operation is not None:
            return operation
        for pattern, operation in self.by_template.get(host, ()):
            if method in operation.methods and pattern.fullmatch(path):
                return operation
        return _unlisted(method, host)


def _template_pattern(template: str) -> re.Pattern[str]:
    parts = [
        (".+" if part.startswith("{+") else "[^/]+") if part.startswith("{") else re.escape(part)
        for part in re.split(r"(\{\+?[a-z_]+\})", template)
    ]
    return re.compile("".join(parts), re.IGNORECASE)


@cache
def _registry() -> _Registry:
    table = _read()
    registry = _Registry()
    addresses: dict[str, list[str]] = {}
    for name, row in table["hosts"].items():
        main = row.get("alias_of", name)
        registry.hosts[name] = table["hosts"][main]
        addresses.setdefault(main, []).append(name)
    listed: dict[str, Operation] = {}
    for row in table["operation"]:
        operation = _operation(row, registry.hosts[row["host"]], listed)
        listed[operation.name] = operation
        for host in (*addresses[operation.host], ANY_HOST):
            registry.add(operation, host)
    registry.operations = tuple(listed.values())
    registry.by_name = MappingProxyType(listed)
    return registry


def _read() -> dict[str, Any]:
    import pkgutil  # noqa: PLC0415  (only an app that calls Insider needs the table)
    import tomllib  # noqa: PLC0415

    data = pkgutil.get_data("insider_otel.api", "operations.toml")
    if data is None:
        raise FileNotFoundError("insider_otel/api/operations.toml is missing from the installed package")
    return tomllib.loads(data.decode("utf-8"))


def _operation(row: dict[str, Any], host: dict[str, Any], listed: dict[str, Operation]) -> Operation:
    """A row with what its host and its pool say about it."""
    columns: dict[str, Any] = {"pool": row["name"]} | host | row
    for name in ("methods", "credentials", "records"):
        columns[name] = tuple(columns.get(name, ()))
    if "limit" in row:
        columns["limit"] = Limit(**row["limit"])
    columns["resend"] = Resend(row["resend"])
    operation = Operation(**columns)
    return operation if operation.pool == operation.name else replace(operation, limit=listed[operation.pool].limit)


_IDEMPOTENT_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE"})


@lru_cache(maxsize=256)
def _unlisted(method: str, host: str) -> Operation:
    row = _registry().hosts.get(host, {"product": "unlisted"})
    return Operation(
        name="unlisted",
        product=row["product"],
        methods=(method,),
        host=host,
        path="",
        pool=f"unlisted:{host}",
        resend=Resend.IDEMPOTENT if method in _IDEMPOTENT_METHODS else Resend.ANSWERED,
        credentials=tuple(row.get("credentials", ())),
    )
