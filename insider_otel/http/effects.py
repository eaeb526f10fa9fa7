"""What an exchange asks its driver to do. Everything that blocks or awaits is one of these."""

from __future__ import annotations

from collections.abc import Callable, Generator
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


# None is frozen: five are made for each attempt, which would take 1.5 µs longer.
@dataclass(slots=True)
class Transmit:
    """Send a request; answered with the response, its body not yet read."""

    request: httpx.Request


@dataclass(slots=True)
class Iterate:
    """Answered with an iterator over a stream."""

    stream: Any


@dataclass(slots=True)
class NextChunk:
    """Answered with the next bytes of an iterator, or None at its end."""

    iterator: Any


@dataclass(slots=True)
class Close:
    """Close a stream."""

    stream: Any


@dataclass(slots=True)
class Sleep:
    """Sleep."""

    seconds: float


@dataclass(slots=True)
class Keep:
    """Make a job and keep it in an outbox; answered with the job.

    Attributes:
        make: Makes it. It asks the app for credentials, which may take a while.
        outbox: The outbox.
    """

    make: Callable[[], Job]
    outbox: Outbox


Effect = Transmit | Iterate | NextChunk | Close | Sleep | Perform | Keep

Effects = Generator[Effect, Any, T]
"""A course of effects that ends with a ``T``."""
