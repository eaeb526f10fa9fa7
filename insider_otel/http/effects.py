"""What an exchange asks its driver to do. Everything that blocks or awaits is one of these."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from insider_otel.state.protocol import Perform

if TYPE_CHECKING:
    import httpx

    from insider_otel.outbox.job import Job
    from insider_otel.outbox.protocol import Outbox

T = TypeVar("T")

OPTIONS = "insider"
"""Extension of a request with what the app asks for the call: ``extensions={"insider": {"defer": True}}``."""

REDELIVERY = "insider_otel.redelivery"
"""Extension of a request that sends a deferred call: its ``Redelivery``."""


@dataclass(frozen=True, slots=True)
class Transmit:
    """Send a request; answered with the response, its body not yet read."""

    request: httpx.Request


@dataclass(frozen=True, slots=True)
class Iterate:
    """Answered with an iterator over a stream."""

    stream: Any


@dataclass(frozen=True, slots=True)
class NextChunk:
    """Answered with the next bytes of an iterator, or None at its end."""

    iterator: Any


@dataclass(frozen=True, slots=True)
class Close:
    """Close a stream."""

    stream: Any


@dataclass(frozen=True, slots=True)
class Sleep:
    """Sleep."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Keep:
    """Keep a job in an outbox."""

    outbox: Outbox
    job: Job


Effect = Transmit | Iterate | NextChunk | Close | Sleep | Perform | Keep

Effects = Generator[Effect, Any, T]
"""A course of effects that ends with a ``T``."""
