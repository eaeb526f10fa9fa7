"""The options as type checkers and editors see them; what they mean is said by ``WebOptions`` and ``Settings``."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

from insider_otel import Events, Mode
from insider_otel.api.operations import Limit, Operation
from insider_otel.policy.settings import Dedupe
from insider_otel.web import Providers


class Options(Providers, total=False):
    """Keywords of ``InsiderMiddleware``, beside where telemetry goes."""

    request_deadline: float | None
    error_responses: bool
    instrument: bool
    outbox_worker: bool

    mode: Mode | Literal["observe", "enforce"]
    hosts: Mapping[str, str]
    deadline: float | None
    quick_retries: int
    quick_delay: float
    spread_retries: int
    retry_window: float
    limits: Mapping[str, str | Limit | None]
    dedupe: Dedupe | Literal["documented", "all", "off"]
    dedupe_window: float
    state: str
    outbox: str | None
    outbox_horizon: float
    outbox_retention: float | None
    outbox_key: str | None
    credentials: Callable[[Operation, str | None], Mapping[str, str] | None] | None
    events: Events | Literal["span", "log", "both"]
