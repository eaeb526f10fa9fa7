"""A discrete-event simulation of many clients, one server and a rule for coming back; it knows neither of them.

Events are handled a step of time at once, and exactly nevertheless: what reaches the server within one step cannot
cause anything else within it, because an answer and the next request need longer than a step to travel. So a step is
a few operations on arrays, and a million clients are no more code than one.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

Integers: TypeAlias = NDArray[np.int64]
Seconds: TypeAlias = NDArray[np.float64]
Flags: TypeAlias = NDArray[np.bool_]

GIVES_UP = math.nan
"""In place of a wait: the client does not come back."""


class Outcome(IntEnum):
    """What the server makes of a request."""

    REFUSED = 0
    SERVED = 1
    CONTINUE = 2
    """Neither: the client has to send another request before it knows."""


class Server(Protocol):
    """Answers requests.

    Attributes:
        step: Seconds, a power of two (so that no moment is rounded into the step before); an answer and the next
            request together never travel for less.
    """

    step: float

    def handle(self, clients: Integers, times: Seconds) -> Integers:
        """Outcomes of the requests that arrive within one step, in the order of their arrival."""
        ...

    def journey(self, count: int) -> Seconds:
        """How long so many messages travel one way."""
        ...


class Strategy(Protocol):
    """Says when a client that was refused comes back."""

    def answered(self, clients: Integers, times: Seconds, served: Flags) -> Seconds:
        """Seconds to wait, or ``GIVES_UP``, for each that was refused; what is said for the others is not read.

        Args:
            clients: Who was answered, in the order in which the requests had arrived.
            times: When the answers came.
            served: Whether they are good.
        """
        ...


@dataclass(frozen=True, slots=True)
class Trace:
    """What happened.

    Attributes:
        starts: When each client made its first request.
        ends: When each client had its good answer; infinite for one that gave up.
        attempts: Attempts of each client.
        load: Attempts that arrived in each second, from second 0.
    """

    starts: Seconds
    ends: Seconds
    attempts: Integers
    load: Integers

    @property
    def lost(self) -> int:
        """How many gave up."""
        return int(np.isinf(self.ends).sum())


def simulate(starts: Seconds, server: Server, strategy: Strategy) -> Trace:
    """Let clients call until each has been served or has given up.

    Args:
        starts: The moment at which each client's first request is sent, in seconds from 0.
        server: What answers.
        strategy: What every client does when it is refused.

    Raises:
        ValueError: The server's step is no power of two, or longer than its shortest journeys.
    """
    step = server.step
    if math.frexp(step)[0] != 0.5:
        raise ValueError(f"step is {step!r}; it has to be a power of two, such as 0.0625")
    due = starts + server.journey(len(starts))
    ends = np.full(len(starts), np.inf)
    attempts = np.zeros(len(starts), np.int64)
    load: dict[int, int] = {}
    while (first := due.min()) < np.inf:
        step_ends = (first // step + 1) * step
        clients = np.flatnonzero(due < step_ends)
        times = due[clients]
        order = np.argsort(times, kind="stable")
        clients, times = clients[order], times[order]
        outcomes = server.handle(clients, times)

        is_over = outcomes != Outcome.CONTINUE
        attempts[clients[is_over]] += 1
        load[int(first)] = load.get(int(first), 0) + int(is_over.sum())
        answered = times + server.journey(len(clients))
        served = outcomes == Outcome.SERVED
        ends[clients[served]] = answered[served]
        waits = np.zeros(len(clients))
        if is_over.any():
            waits[is_over] = strategy.answered(clients[is_over], answered[is_over], served[is_over])
        again = answered + waits + server.journey(len(clients))
        again[served | np.isnan(waits)] = np.inf
        if (again < step_ends).any():
            raise ValueError(f"step is {step!r}; it has to be shorter than an answer and the next request travel")
        due[clients] = again
    seconds = np.zeros(max(load) + 1, np.int64)
    seconds[list(load)] = list(load.values())
    return Trace(starts, ends, attempts, seconds)
